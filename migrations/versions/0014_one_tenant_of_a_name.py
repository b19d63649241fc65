"""One tenant of a name: later ones of the same name get their id behind it

Two processes could each make a tenant of a name that a token brought. What belongs to a tenant stays with it, as the audit
says; keys and users name it by its id. A token that names the tenant goes to the oldest.

Revision: 0014, after 0013
"""

import sqlalchemy as sa
from alembic import op

revision = "0014"
down_revision = "0013"
branch_labels = None
depends_on = None

TENANT = sa.table("tenant", sa.column("id", sa.String), sa.column("name", sa.String), sa.column("created_at", sa.Double))
LONGEST = 200
"""Letters of a name that are kept, so that the id fits into the column with it."""


def upgrade() -> None:
    sql = op.get_bind()
    seen: set[str] = set()
    for row in sql.execute(sa.select(TENANT).order_by(TENANT.c.created_at, TENANT.c.id)).all():
        if row.name in seen:
            renamed = f"{row.name[:LONGEST]} ({row.id})"
            sql.execute(sa.update(TENANT).where(TENANT.c.id == row.id).values(name=renamed))
        seen.add(row.name)
    op.create_index("ix_tenant_name", "tenant", ["name"], unique=True)


def downgrade() -> None:
    op.drop_index("ix_tenant_name", "tenant")
