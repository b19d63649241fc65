"""What operators ask of a worker's memory: models to load or to let go

Revision: 0010, after 0009
"""

import sqlalchemy as sa
from alembic import op

revision = "0010"
down_revision = "0009"
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.add_column("worker", sa.Column("orders", sa.JSON(), nullable=False, server_default="[]"))


def downgrade() -> None:
    op.drop_column("worker", "orders")
