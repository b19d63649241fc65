"""Picks of pictures, and the finals made of them

Revision: 0008, after 0007
"""

import sqlalchemy as sa
from alembic import op

revision = "0008"
down_revision = "0007"
branch_labels = None
depends_on = None

REUSING = sa.text("reuses IS NOT NULL")


def upgrade() -> None:
    op.create_table(
        "pick",
        sa.Column("job_id", sa.String(length=40), nullable=False),
        sa.Column("index", sa.Integer(), autoincrement=False, nullable=False),
        sa.Column("batch_id", sa.String(length=40), nullable=False),
        sa.Column("pick", sa.String(length=16), nullable=False),
        sa.Column("replaced_by", sa.String(length=40), nullable=True),
        sa.Column("at", sa.Double(), nullable=False),
        sa.ForeignKeyConstraint(["job_id"], ["job.id"], name=op.f("fk_pick_job_id_job"), ondelete="CASCADE"),
        sa.PrimaryKeyConstraint("job_id", "index", name=op.f("pk_pick")),
    )
    op.create_index("ix_pick_batch_id_pick_job_id_index", "pick", ["batch_id", "pick", "job_id", "index"])
    op.add_column("job", sa.Column("from_image", sa.String(length=40), nullable=True))
    op.create_index("ix_job_reuses", "job", ["reuses"], sqlite_where=REUSING, postgresql_where=REUSING)
    op.add_column("image", sa.Column("scores", sa.JSON(), nullable=True))
    op.add_column("batch", sa.Column("drafts", sa.String(length=40), nullable=True))
    op.create_index(op.f("ix_batch_drafts"), "batch", ["drafts"])


def downgrade() -> None:
    op.drop_index(op.f("ix_batch_drafts"), table_name="batch")
    op.drop_column("batch", "drafts")
    op.drop_column("image", "scores")
    op.drop_index("ix_job_reuses", table_name="job")
    op.drop_column("job", "from_image")
    op.drop_table("pick")
