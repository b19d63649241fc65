"""A lease on each webhook, so that its messages are sent one at a time and apart from those of the others

Due messages are found by webhook: the index begins with it.

Revision: 0002, after 0001
"""

import sqlalchemy as sa
from alembic import op

revision = "0002"
down_revision = "0001"
branch_labels = None
depends_on = None

WAITING = sa.text("state = 'waiting'")


def upgrade() -> None:
    op.add_column("webhook", sa.Column("leased_until", sa.Double(), server_default="0", nullable=False))
    _index_due("webhook_id", "next_at")


def downgrade() -> None:
    _index_due("next_at")
    op.drop_column("webhook", "leased_until")


def _index_due(*columns: str) -> None:
    op.drop_index("ix_webhook_delivery_due", "webhook_delivery")
    op.create_index("ix_webhook_delivery_due", "webhook_delivery", list(columns), sqlite_where=WAITING, postgresql_where=WAITING)
