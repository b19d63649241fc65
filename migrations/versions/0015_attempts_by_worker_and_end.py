"""The jobs of a worker in order, and the attempts that succeeded by their end

Revision: 0015, after 0014
"""

import sqlalchemy as sa
from alembic import op

revision = "0015"
down_revision = "0014"
branch_labels = None
depends_on = None

SUCCEEDED = sa.text("outcome = 'succeeded'")


def upgrade() -> None:
    op.create_index("ix_attempt_owner_job_id", "attempt", ["owner", "job_id"])
    op.drop_index("ix_attempt_owner", "attempt")
    op.create_index("ix_attempt_succeeded", "attempt", ["ended_at"], sqlite_where=SUCCEEDED, postgresql_where=SUCCEEDED)


def downgrade() -> None:
    op.drop_index("ix_attempt_succeeded", "attempt")
    op.create_index("ix_attempt_owner", "attempt", ["owner"])
    op.drop_index("ix_attempt_owner_job_id", "attempt")
