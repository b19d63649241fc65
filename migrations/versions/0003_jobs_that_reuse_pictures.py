"""Jobs that take another job's pictures

Revision: 0003, after 0002
"""

import sqlalchemy as sa
from alembic import op

revision = "0003"
down_revision = "0002"
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.add_column("job", sa.Column("reuses", sa.String(length=40), nullable=True))


def downgrade() -> None:
    op.drop_column("job", "reuses")
