"""What operators ask of a worker's memory: models to load or to let go

Revision: 0009, after 0008
"""

import sqlalchemy as sa
from alembic import op

revision = "0009"
down_revision = "0008"
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.add_column("worker", sa.Column("orders", sa.JSON(), nullable=False, server_default="[]"))


def downgrade() -> None:
    op.drop_column("worker", "orders")
