"""People who sign in, their browsers, and keys with limits of their own that can be replaced

Revision: 0012, after 0011
"""

import sqlalchemy as sa
from alembic import op

revision = "0012"
down_revision = "0011"
branch_labels = None
depends_on = None

COUNTED = sa.text("limited_by IS NOT NULL AND state IN ('held', 'queued', 'running')")


def upgrade() -> None:
    op.add_column("api_key", sa.Column("limits", sa.JSON(), server_default="{}", nullable=False))
    op.add_column("api_key", sa.Column("account", sa.String(40), nullable=True))
    op.add_column("api_key", sa.Column("expires_at", sa.Double(), nullable=True))
    op.add_column("job", sa.Column("limited_by", sa.String(40), nullable=True))
    op.create_index("ix_job_limited_by", "job", ["limited_by", "state"], sqlite_where=COUNTED, postgresql_where=COUNTED)
    op.create_table(
        "user_account",
        sa.Column("id", sa.String(40), nullable=False),
        sa.Column("name", sa.String(64), nullable=False),
        sa.Column("password_hash", sa.String(255), nullable=False),
        sa.Column("role", sa.String(16), nullable=False),
        sa.Column("tenant_id", sa.String(40), nullable=False),
        sa.Column("created_at", sa.Double(), nullable=False),
        sa.Column("disabled_at", sa.Double(), nullable=True),
        sa.Column("last_sign_in_at", sa.Double(), nullable=True),
        sa.PrimaryKeyConstraint("id", name="pk_user_account"),
        sa.UniqueConstraint("name", name="uq_user_account_name"),
    )
    op.create_table(
        "web_session",
        sa.Column("token_hash", sa.String(64), nullable=False),
        sa.Column("user_id", sa.String(40), nullable=True),
        sa.Column("key_id", sa.String(40), nullable=True),
        sa.Column("created_at", sa.Double(), nullable=False),
        sa.Column("seen_at", sa.Double(), nullable=False),
        sa.PrimaryKeyConstraint("token_hash", name="pk_web_session"),
    )
    op.create_index("ix_web_session_user_id", "web_session", ["user_id"])
    op.create_index("ix_web_session_seen_at", "web_session", ["seen_at"])


def downgrade() -> None:
    op.drop_table("web_session")
    op.drop_table("user_account")
    op.drop_index("ix_job_limited_by", "job")
    op.drop_column("job", "limited_by")
    op.drop_column("api_key", "expires_at")
    op.drop_column("api_key", "account")
    op.drop_column("api_key", "limits")
