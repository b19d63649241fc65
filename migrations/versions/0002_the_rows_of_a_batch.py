"""The rows of a batch as they came

Revision: 0002, after 0001
"""

import sqlalchemy as sa
from alembic import op

revision = "0002"
down_revision = "0001"
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.create_table(
        "batch_rows",
        sa.Column("batch_id", sa.String(length=40), nullable=False),
        sa.Column("first_row", sa.Integer(), nullable=False),
        sa.Column("rows", sa.LargeBinary(), nullable=False),
        sa.ForeignKeyConstraint(["batch_id"], ["batch.id"], name=op.f("fk_batch_rows_batch_id")),
        sa.PrimaryKeyConstraint("batch_id", "first_row", name=op.f("pk_batch_rows")),
    )
    op.create_index("ix_job_batch_id_id", "job", ["batch_id", "id"])


def downgrade() -> None:
    op.drop_index("ix_job_batch_id_id", table_name="job")
    op.drop_table("batch_rows")
