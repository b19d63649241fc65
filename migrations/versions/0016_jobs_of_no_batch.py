"""The jobs of a tenant that did not come from a batch, for the studio

Revision: 0016, after 0015
"""

import sqlalchemy as sa
from alembic import op

revision = "0016"
down_revision = "0015"
branch_labels = None
depends_on = None

SINGLE = sa.text("batch_id IS NULL")


def upgrade() -> None:
    op.create_index("ix_job_single", "job", ["tenant_id", "id"], sqlite_where=SINGLE, postgresql_where=SINGLE)


def downgrade() -> None:
    op.drop_index("ix_job_single", "job")
