"""The lifetime that a key was made with, so that a key that replaces it has the same

Revision: 0003, after 0002
"""

import sqlalchemy as sa
from alembic import op

revision = "0003"
down_revision = "0002"
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.add_column("api_key", sa.Column("lifetime_s", sa.Double(), nullable=True))


def downgrade() -> None:
    op.drop_column("api_key", "lifetime_s")
