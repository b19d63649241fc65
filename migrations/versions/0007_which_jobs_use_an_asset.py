"""Which jobs begin from which asset

Revision: 0007, after 0006
"""

import sqlalchemy as sa
from alembic import op

revision = "0007"
down_revision = "0006"
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.create_table(
        "asset_use",
        sa.Column("asset_id", sa.String(length=40), nullable=False),
        sa.Column("job_id", sa.String(length=40), nullable=False),
        sa.ForeignKeyConstraint(["asset_id"], ["asset.id"], name=op.f("fk_asset_use_asset_id_asset")),
        sa.ForeignKeyConstraint(["job_id"], ["job.id"], name=op.f("fk_asset_use_job_id_job"), ondelete="CASCADE"),
        sa.PrimaryKeyConstraint("asset_id", "job_id", name=op.f("pk_asset_use")),
    )
    op.create_index(op.f("ix_asset_use_job_id"), "asset_use", ["job_id"])
    op.create_index("ix_asset_tenant_id_name", "asset", ["tenant_id", "name"])
    named = "recipe->>'init_image'" if op.get_bind().dialect.name == "postgresql" else "json_extract(recipe, '$.init_image')"
    op.execute(
        "INSERT INTO asset_use (asset_id, job_id) "  # noqa: S608 - nothing from outside is in it
        f"SELECT asset.id, job.id FROM job JOIN asset ON asset.id = {named.replace('recipe', 'job.recipe')}"
    )


def downgrade() -> None:
    op.drop_index("ix_asset_tenant_id_name", table_name="asset")
    op.drop_table("asset_use")
