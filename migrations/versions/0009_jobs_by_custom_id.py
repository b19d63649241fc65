"""Jobs by custom id, in order of their ids, whoever's they are

Revision: 0009, after 0008
"""

import sqlalchemy as sa
from alembic import op

revision = "0009"
down_revision = "0008"
branch_labels = None
depends_on = None


def upgrade() -> None:
    given = sa.text("custom_id IS NOT NULL")
    op.create_index("ix_job_custom_id_id", "job", ["custom_id", "id"], sqlite_where=given, postgresql_where=given)
    op.drop_index("ix_job_tenant_id_custom_id", "job")


def downgrade() -> None:
    op.create_index("ix_job_tenant_id_custom_id", "job", ["tenant_id", "custom_id"])
    op.drop_index("ix_job_custom_id_id", "job")
