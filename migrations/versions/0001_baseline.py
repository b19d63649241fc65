"""The tables of imagefarm

What they and their columns are for, `imagefarm/store/models.py` says. The rows that every farm begins with are written by
`imagefarm.store.migrate`.

The indexes of a table stay in this order: where two would serve a statement equally well, SQLite's choice depends on which was
made first.

Revision: 0001, after
"""

import sqlalchemy as sa
from alembic import op

revision = "0001"
down_revision = None
branch_labels = None
depends_on = None


def upgrade() -> None:
    # tenants, keys, users

    op.create_table(
        "tenant",
        sa.Column("id", sa.String(40), nullable=False),
        sa.Column("name", sa.String(255), nullable=False),
        sa.Column("weight", sa.Double(), nullable=False),
        sa.Column("limits", sa.JSON(), nullable=False),
        sa.Column("created_at", sa.Double(), nullable=False),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_tenant")),
    )
    op.create_index(op.f("ix_tenant_name"), "tenant", ["name"], unique=True)

    op.create_table(
        "api_key",
        sa.Column("id", sa.String(40), nullable=False),
        sa.Column("tenant_id", sa.String(40), nullable=False),
        sa.Column("name", sa.String(255), nullable=False),
        sa.Column("prefix", sa.String(16), nullable=False),
        sa.Column("hash", sa.String(64), nullable=False),
        sa.Column("scopes", sa.JSON(), nullable=False),
        sa.Column("limits", sa.JSON(), server_default="{}", nullable=False),
        sa.Column("quota_id", sa.String(40), nullable=True),
        sa.Column("created_at", sa.Double(), nullable=False),
        sa.Column("expires_at", sa.Double(), nullable=True),
        sa.Column("revoked_at", sa.Double(), nullable=True),
        sa.Column("last_used_at", sa.Double(), nullable=True),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_api_key")),
        sa.UniqueConstraint("prefix", name=op.f("uq_api_key_prefix")),
    )
    op.create_index(op.f("ix_api_key_tenant_id"), "api_key", ["tenant_id"])

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
        sa.PrimaryKeyConstraint("id", name=op.f("pk_user_account")),
        sa.UniqueConstraint("name", name=op.f("uq_user_account_name")),
    )

    op.create_table(
        "web_session",
        sa.Column("token_hash", sa.String(64), nullable=False),
        sa.Column("user_id", sa.String(40), nullable=True),
        sa.Column("key_id", sa.String(40), nullable=True),
        sa.Column("created_at", sa.Double(), nullable=False),
        sa.Column("seen_at", sa.Double(), nullable=False),
        sa.PrimaryKeyConstraint("token_hash", name=op.f("pk_web_session")),
    )
    op.create_index(op.f("ix_web_session_user_id"), "web_session", ["user_id"])
    op.create_index(op.f("ix_web_session_seen_at"), "web_session", ["seen_at"])

    op.create_table(
        "usage",
        sa.Column("tenant_id", sa.String(40), nullable=False),
        sa.Column("day", sa.Integer(), nullable=False),
        sa.Column("images", sa.Integer(), nullable=False),
        sa.Column("gpu_s", sa.Double(), nullable=False),
        sa.PrimaryKeyConstraint("tenant_id", "day", name=op.f("pk_usage")),
    )

    op.create_table(
        "idempotency",
        sa.Column("tenant_id", sa.String(40), nullable=False),
        sa.Column("key", sa.String(255), nullable=False),
        sa.Column("body_sha256", sa.String(64), nullable=False),
        sa.Column("status", sa.Integer(), nullable=True),
        sa.Column("response", sa.Text(), nullable=True),
        sa.Column("created_at", sa.Double(), nullable=False),
        sa.PrimaryKeyConstraint("tenant_id", "key", name=op.f("pk_idempotency")),
    )

    # models and workers

    op.create_table(
        "model",
        sa.Column("name", sa.String(64), nullable=False),
        sa.Column("state", sa.String(16), nullable=False),
        sa.Column("reason", sa.Text(), nullable=False),
        sa.Column("digest", sa.String(64), nullable=False),
        sa.Column("facts", sa.JSON(), nullable=False),
        sa.Column("cost_s", sa.Double(), nullable=True),
        sa.Column("load_s", sa.Double(), nullable=True),
        sa.Column("micro_batch_limits", sa.JSON(), nullable=False),
        sa.Column("updated_at", sa.Double(), nullable=False),
        sa.PrimaryKeyConstraint("name", name=op.f("pk_model")),
    )

    op.create_table(
        "worker",
        sa.Column("id", sa.String(40), nullable=False),
        sa.Column("name", sa.String(255), nullable=False),
        sa.Column("host", sa.String(255), nullable=False),
        sa.Column("pid", sa.Integer(), nullable=False),
        sa.Column("state", sa.String(16), nullable=False),
        sa.Column("desired_state", sa.String(16), nullable=False),
        sa.Column("device", sa.String(255), nullable=False),
        sa.Column("version", sa.String(255), nullable=False),
        sa.Column("serves", sa.JSON(), nullable=False),
        sa.Column("resident", sa.JSON(), nullable=False),
        sa.Column("facts", sa.JSON(), nullable=False),
        sa.Column("load", sa.JSON(), nullable=False),
        sa.Column("pending_commands", sa.JSON(), server_default="[]", nullable=False),
        sa.Column("reason", sa.Text(), nullable=False),
        sa.Column("started_at", sa.Double(), nullable=False),
        sa.Column("heartbeat_at", sa.Double(), nullable=False),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_worker")),
    )
    op.create_index(op.f("ix_worker_state"), "worker", ["state"])

    # batches and jobs

    op.create_table(
        "batch",
        sa.Column("id", sa.String(40), nullable=False),
        sa.Column("tenant_id", sa.String(40), nullable=False),
        sa.Column("name", sa.String(255), nullable=False),
        sa.Column("state", sa.String(16), nullable=False),
        sa.Column("template", sa.Text(), nullable=False),
        sa.Column("options", sa.JSON(), nullable=False),
        sa.Column("rows", sa.Integer(), nullable=False),
        sa.Column("accepted", sa.Integer(), nullable=False),
        sa.Column("rejected", sa.Integer(), nullable=False),
        sa.Column("errors", sa.JSON(), nullable=False),
        sa.Column("drafts", sa.String(40), nullable=True),
        sa.Column("created_at", sa.Double(), nullable=False),
        sa.Column("finished_at", sa.Double(), nullable=True),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_batch")),
    )
    op.create_index("ix_batch_tenant_id_id", "batch", ["tenant_id", "id"])
    op.create_index(op.f("ix_batch_drafts"), "batch", ["drafts"])

    op.create_table(
        "batch_rows",
        sa.Column("batch_id", sa.String(40), nullable=False),
        sa.Column("first_row", sa.Integer(), nullable=False),
        sa.Column("rows", sa.LargeBinary(), nullable=False),
        sa.PrimaryKeyConstraint("batch_id", "first_row", name=op.f("pk_batch_rows")),
        sa.ForeignKeyConstraint(["batch_id"], ["batch.id"], name=op.f("fk_batch_rows_batch_id")),
    )

    op.create_table(
        "job",
        sa.Column("id", sa.String(40), nullable=False),
        sa.Column("tenant_id", sa.String(40), nullable=False),
        sa.Column("priority_class", sa.String(16), nullable=False),
        sa.Column("rank", sa.Integer(), nullable=False),
        sa.Column("model", sa.String(64), nullable=False),
        sa.Column("compat_key", sa.String(255), nullable=False),
        sa.Column("state", sa.String(16), nullable=False),
        sa.Column("recipe", sa.JSON(), nullable=False),
        sa.Column("recipe_hash", sa.String(64), nullable=False),
        sa.Column("prompt", sa.Text(), nullable=False),
        sa.Column("count", sa.Integer(), nullable=False),
        sa.Column("labels", sa.JSON(), nullable=False),
        sa.Column("custom_id", sa.String(128), nullable=True),
        sa.Column("batch_id", sa.String(40), nullable=True),
        sa.Column("row", sa.Integer(), nullable=True),
        sa.Column("name", sa.String(255), nullable=True),
        sa.Column("reuses", sa.String(40), nullable=True),
        sa.Column("rerolls", sa.Integer(), server_default="0", nullable=False),
        sa.Column("from_image", sa.String(40), nullable=True),
        sa.Column("warnings", sa.JSON(), nullable=False),
        sa.Column("quota_id", sa.String(40), nullable=True),
        sa.Column("cost_s", sa.Double(), nullable=False),
        sa.Column("actual_s", sa.Double(), nullable=True),
        sa.Column("attempt", sa.Integer(), nullable=False),
        sa.Column("crashes", sa.Integer(), nullable=False),
        sa.Column("preview", sa.Boolean(), server_default=sa.false(), nullable=False),
        sa.Column("owner", sa.String(40), nullable=True),
        sa.Column("lease_until", sa.Double(), nullable=True),
        sa.Column("not_before", sa.Double(), nullable=False),
        sa.Column("expires_at", sa.Double(), nullable=True),
        sa.Column("error_code", sa.String(64), nullable=True),
        sa.Column("error_detail", sa.Text(), nullable=True),
        sa.Column("created_at", sa.Double(), nullable=False),
        sa.Column("started_at", sa.Double(), nullable=True),
        sa.Column("finished_at", sa.Double(), nullable=True),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_job")),
        sa.ForeignKeyConstraint(["batch_id"], ["batch.id"], name=op.f("fk_job_batch_id")),
    )
    queued = sa.text("state = 'queued'")
    running = sa.text("state = 'running'")
    may_expire = sa.text("state IN ('queued', 'held') AND expires_at IS NOT NULL")
    reusing = sa.text("reuses IS NOT NULL")
    given = sa.text("custom_id IS NOT NULL")
    counted = sa.text("quota_id IS NOT NULL AND state IN ('held', 'queued', 'running')")
    single = sa.text("batch_id IS NULL")
    op.create_index("ix_job_batch_id_state_id", "job", ["batch_id", "state", "id"])
    op.create_index(
        "ix_job_claim",
        "job",
        ["model", "priority_class", "tenant_id", "rank", "id"],
        sqlite_where=queued,
        postgresql_where=queued,
    )
    op.create_index("ix_job_expires", "job", ["expires_at"], sqlite_where=may_expire, postgresql_where=may_expire)
    op.create_index("ix_job_lease", "job", ["lease_until"], sqlite_where=running, postgresql_where=running)
    op.create_index("ix_job_owner", "job", ["owner"], sqlite_where=running, postgresql_where=running)
    op.create_index("ix_job_recipe_hash", "job", ["recipe_hash"])
    op.create_index("ix_job_state_id", "job", ["state", "id"])
    op.create_index("ix_job_tenant_id_id", "job", ["tenant_id", "id"])
    op.create_index("ix_job_tenant_id_model_id", "job", ["tenant_id", "model", "id"])
    op.create_index("ix_job_tenant_id_state_id", "job", ["tenant_id", "state", "id"])
    op.create_index("ix_job_batch_id_id", "job", ["batch_id", "id"])
    op.create_index("ix_job_reuses", "job", ["reuses"], sqlite_where=reusing, postgresql_where=reusing)
    op.create_index("ix_job_custom_id_id", "job", ["custom_id", "id"], sqlite_where=given, postgresql_where=given)
    op.create_index("ix_job_quota_id", "job", ["quota_id", "state"], sqlite_where=counted, postgresql_where=counted)
    op.create_index("ix_job_single", "job", ["tenant_id", "id"], sqlite_where=single, postgresql_where=single)

    op.create_table(
        "attempt",
        sa.Column("job_id", sa.String(40), nullable=False),
        sa.Column("attempt", sa.Integer(), nullable=False),
        sa.Column("owner", sa.String(40), nullable=False),
        sa.Column("claimed_at", sa.Double(), nullable=False),
        sa.Column("ended_at", sa.Double(), nullable=True),
        sa.Column("outcome", sa.String(32), nullable=True),
        sa.Column("reason", sa.Text(), nullable=True),
        sa.PrimaryKeyConstraint("job_id", "attempt", name=op.f("pk_attempt")),
        sa.ForeignKeyConstraint(["job_id"], ["job.id"], name=op.f("fk_attempt_job_id")),
    )
    trouble = sa.text("outcome IN ('failed', 'retry', 'crashed')")
    succeeded = sa.text("outcome = 'succeeded'")
    op.create_index("ix_attempt_failure", "attempt", ["ended_at"], sqlite_where=trouble, postgresql_where=trouble)
    op.create_index("ix_attempt_owner_job_id", "attempt", ["owner", "job_id"])
    op.create_index("ix_attempt_succeeded", "attempt", ["ended_at"], sqlite_where=succeeded, postgresql_where=succeeded)

    # the pictures that were made

    op.create_table(
        "image",
        sa.Column("id", sa.String(40), nullable=False),
        sa.Column("job_id", sa.String(40), nullable=False),
        sa.Column("tenant_id", sa.String(40), nullable=False),
        sa.Column("index", sa.Integer(), nullable=False),
        sa.Column("seed", sa.String(20), nullable=False),
        sa.Column("storage_key", sa.String(512), nullable=False),
        sa.Column("format", sa.String(8), nullable=False),
        sa.Column("width", sa.Integer(), nullable=False),
        sa.Column("height", sa.Integer(), nullable=False),
        sa.Column("bytes", sa.Integer(), nullable=False),
        sa.Column("sha256", sa.String(64), nullable=False),
        sa.Column("pixel_sha256", sa.String(64), nullable=False),
        sa.Column("ms", sa.Double(), nullable=False),
        sa.Column("audit", sa.JSON(), nullable=False),
        sa.Column("scores", sa.JSON(), nullable=True),
        sa.Column("created_at", sa.Double(), nullable=False),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_image")),
        sa.ForeignKeyConstraint(["job_id"], ["job.id"], name=op.f("fk_image_job_id")),
        sa.UniqueConstraint("job_id", "index", name=op.f("uq_image_job_id_index")),
        sa.UniqueConstraint("storage_key", name=op.f("uq_image_storage_key")),
    )
    op.create_index(op.f("ix_image_pixel_sha256"), "image", ["pixel_sha256"])
    op.create_index(op.f("ix_image_sha256"), "image", ["sha256"])
    op.create_index("ix_image_tenant_id_id", "image", ["tenant_id", "id"])

    op.create_table(
        "image_hash",
        sa.Column("batch_id", sa.String(40), nullable=False),
        sa.Column("row", sa.Integer(), autoincrement=False, nullable=False),
        sa.Column("image_id", sa.String(40), nullable=False),
        sa.Column("dhash", sa.String(16), nullable=False),
        sa.PrimaryKeyConstraint("batch_id", "row", "image_id", name=op.f("pk_image_hash")),
        sa.ForeignKeyConstraint(["image_id"], ["image.id"], name=op.f("fk_image_hash_image_id"), ondelete="CASCADE"),
    )
    op.create_index(op.f("ix_image_hash_image_id"), "image_hash", ["image_id"])

    op.create_table(
        "channel_file",
        sa.Column("image_id", sa.String(40), nullable=False),
        sa.Column("channel", sa.String(32), nullable=False),
        sa.Column("storage_key", sa.String(512), nullable=False),
        sa.Column("format", sa.String(8), nullable=False),
        sa.Column("width", sa.Integer(), nullable=False),
        sa.Column("height", sa.Integer(), nullable=False),
        sa.Column("bytes", sa.Integer(), nullable=False),
        sa.Column("sha256", sa.String(64), nullable=False),
        sa.PrimaryKeyConstraint("image_id", "channel", name=op.f("pk_channel_file")),
        sa.ForeignKeyConstraint(["image_id"], ["image.id"], name=op.f("fk_channel_file_image_id"), ondelete="CASCADE"),
        sa.UniqueConstraint("storage_key", name=op.f("uq_channel_file_storage_key")),
    )

    op.create_table(
        "pick",
        sa.Column("job_id", sa.String(40), nullable=False),
        sa.Column("index", sa.Integer(), autoincrement=False, nullable=False),
        sa.Column("batch_id", sa.String(40), nullable=False),
        sa.Column("pick", sa.String(16), nullable=False),
        sa.Column("replaced_by", sa.String(40), nullable=True),
        sa.Column("at", sa.Double(), nullable=False),
        sa.PrimaryKeyConstraint("job_id", "index", name=op.f("pk_pick")),
        sa.ForeignKeyConstraint(["job_id"], ["job.id"], name=op.f("fk_pick_job_id"), ondelete="CASCADE"),
    )
    op.create_index("ix_pick_batch_id_pick_job_id_index", "pick", ["batch_id", "pick", "job_id", "index"])

    # the pictures that were sent in

    op.create_table(
        "asset",
        sa.Column("id", sa.String(40), nullable=False),
        sa.Column("tenant_id", sa.String(40), nullable=False),
        sa.Column("sha256", sa.String(64), nullable=False),
        sa.Column("storage_key", sa.String(512), nullable=False),
        sa.Column("name", sa.String(255), nullable=False),
        sa.Column("format", sa.String(8), nullable=False),
        sa.Column("width", sa.Integer(), nullable=False),
        sa.Column("height", sa.Integer(), nullable=False),
        sa.Column("bytes", sa.Integer(), nullable=False),
        sa.Column("created_at", sa.Double(), nullable=False),
        sa.Column("used_at", sa.Double(), nullable=True),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_asset")),
        sa.UniqueConstraint("tenant_id", "sha256", name=op.f("uq_asset_tenant_id_sha256")),
    )

    op.create_table(
        "asset_name",
        sa.Column("tenant_id", sa.String(40), nullable=False),
        sa.Column("name", sa.String(255), nullable=False),
        sa.Column("asset_id", sa.String(40), nullable=False),
        sa.PrimaryKeyConstraint("tenant_id", "name", name=op.f("pk_asset_name")),
        sa.ForeignKeyConstraint(["asset_id"], ["asset.id"], name=op.f("fk_asset_name_asset_id"), ondelete="CASCADE"),
    )
    op.create_index(op.f("ix_asset_name_asset_id"), "asset_name", ["asset_id"])

    op.create_table(
        "asset_use",
        sa.Column("asset_id", sa.String(40), nullable=False),
        sa.Column("job_id", sa.String(40), nullable=False),
        sa.PrimaryKeyConstraint("asset_id", "job_id", name=op.f("pk_asset_use")),
        sa.ForeignKeyConstraint(["asset_id"], ["asset.id"], name=op.f("fk_asset_use_asset_id")),
        sa.ForeignKeyConstraint(["job_id"], ["job.id"], name=op.f("fk_asset_use_job_id"), ondelete="CASCADE"),
    )
    op.create_index(op.f("ix_asset_use_job_id"), "asset_use", ["job_id"])

    # fair sharing

    op.create_table(
        "flow_class",
        sa.Column("name", sa.String(16), nullable=False),
        sa.Column("weight", sa.Double(), nullable=False),
        sa.Column("pass", sa.Double(), nullable=False),
        sa.Column("vtime", sa.Double(), nullable=False),
        sa.Column("active", sa.Boolean(), nullable=False),
        sa.PrimaryKeyConstraint("name", name=op.f("pk_flow_class")),
    )

    op.create_table(
        "flow",
        sa.Column("priority_class", sa.String(16), nullable=False),
        sa.Column("tenant_id", sa.String(40), nullable=False),
        sa.Column("weight", sa.Double(), nullable=False),
        sa.Column("pass", sa.Double(), nullable=False),
        sa.Column("active", sa.Boolean(), nullable=False),
        sa.PrimaryKeyConstraint("priority_class", "tenant_id", name=op.f("pk_flow")),
    )
    op.create_index(op.f("ix_flow_active"), "flow", ["active"])

    op.create_table(
        "backlog",
        sa.Column("model", sa.String(64), nullable=False),
        sa.Column("priority_class", sa.String(16), nullable=False),
        sa.Column("tenant_id", sa.String(40), nullable=False),
        sa.Column("queued", sa.Integer(), nullable=False),
        sa.Column("running", sa.Integer(), nullable=False),
        sa.PrimaryKeyConstraint("model", "priority_class", "tenant_id", name=op.f("pk_backlog")),
    )

    # the audit, the sweep and the charts

    op.create_table(
        "event",
        sa.Column("id", sa.Integer(), autoincrement=True, nullable=False),
        sa.Column("at", sa.Double(), nullable=False),
        sa.Column("kind", sa.String(40), nullable=False),
        sa.Column("subject", sa.String(64), nullable=False),
        sa.Column("tenant_id", sa.String(40), nullable=True),
        sa.Column("data", sa.JSON(), nullable=False),
        sa.Column("seq", sa.Integer(), nullable=True),
        sa.Column("hash", sa.String(64), nullable=True),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_event")),
        sa.UniqueConstraint("seq", name=op.f("uq_event_seq")),
        sqlite_autoincrement=True,
    )
    unsealed = sa.text("seq IS NULL")
    op.create_index("ix_event_subject_id", "event", ["subject", "id"])
    op.create_index("ix_event_unsealed", "event", ["id"], sqlite_where=unsealed, postgresql_where=unsealed)

    op.create_table(
        "sweep_state",
        sa.Column("id", sa.Integer(), nullable=False),
        sa.Column("last_at", sa.Double(), nullable=False),
        sa.Column("reap_after", sa.Double(), nullable=False),
        sa.Column("enqueued_seq", sa.Integer(), server_default="0", nullable=False),
        sa.Column("drift", sa.Integer(), nullable=False),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_sweep_state")),
    )

    op.create_table(
        "rollup",
        sa.Column("step", sa.Integer(), autoincrement=False, nullable=False),
        sa.Column("at", sa.Integer(), autoincrement=False, nullable=False),
        sa.Column("images", sa.Integer(), nullable=False),
        sa.Column("failures", sa.Integer(), nullable=False),
        sa.Column("loads", sa.Integer(), nullable=False),
        sa.Column("gpu_s", sa.Double(), nullable=False),
        sa.Column("wait", sa.JSON(), nullable=False),
        sa.Column("render", sa.JSON(), nullable=False),
        sa.Column("counted", sa.Boolean(), nullable=False),
        sa.PrimaryKeyConstraint("step", "at", name=op.f("pk_rollup")),
    )

    # webhooks and deliveries

    op.create_table(
        "webhook",
        sa.Column("id", sa.String(40), nullable=False),
        sa.Column("tenant_id", sa.String(40), nullable=False),
        sa.Column("url", sa.String(2048), nullable=False),
        sa.Column("secret", sa.String(255), nullable=False),
        sa.Column("kinds", sa.JSON(), nullable=False),
        sa.Column("subject", sa.String(40), nullable=True),
        sa.Column("created_at", sa.Double(), nullable=False),
        sa.Column("disabled_at", sa.Double(), nullable=True),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_webhook")),
    )
    op.create_index(op.f("ix_webhook_tenant_id"), "webhook", ["tenant_id"])

    waiting = sa.text("state = 'waiting'")
    op.create_table(
        "webhook_delivery",
        sa.Column("id", sa.String(40), nullable=False),
        sa.Column("webhook_id", sa.String(40), nullable=False),
        sa.Column("tenant_id", sa.String(40), nullable=False),
        sa.Column("kind", sa.String(40), nullable=False),
        sa.Column("body", sa.Text(), nullable=False),
        sa.Column("state", sa.String(16), nullable=False),
        sa.Column("tries", sa.Integer(), nullable=False),
        sa.Column("next_at", sa.Double(), nullable=False),
        sa.Column("status", sa.Integer(), nullable=True),
        sa.Column("error", sa.Text(), nullable=True),
        sa.Column("created_at", sa.Double(), nullable=False),
        sa.Column("finished_at", sa.Double(), nullable=True),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_webhook_delivery")),
    )
    op.create_index("ix_webhook_delivery_due", "webhook_delivery", ["next_at"], sqlite_where=waiting, postgresql_where=waiting)
    op.create_index(op.f("ix_webhook_delivery_webhook_id"), "webhook_delivery", ["webhook_id"])

    op.create_table(
        "batch_delivery",
        sa.Column("batch_id", sa.String(40), nullable=False),
        sa.Column("tenant_id", sa.String(40), nullable=False),
        sa.Column("bucket", sa.String(64), nullable=False),
        sa.Column("prefix", sa.String(255), nullable=False),
        sa.Column("state", sa.String(16), nullable=False),
        sa.Column("files", sa.Integer(), nullable=False),
        sa.Column("sent", sa.Integer(), nullable=False),
        sa.Column("bytes", sa.BigInteger(), nullable=False),
        sa.Column("tries", sa.Integer(), nullable=False),
        sa.Column("next_at", sa.Double(), nullable=False),
        sa.Column("error", sa.Text(), nullable=True),
        sa.Column("finished_at", sa.Double(), nullable=True),
        sa.PrimaryKeyConstraint("batch_id", name=op.f("pk_batch_delivery")),
        sa.ForeignKeyConstraint(["batch_id"], ["batch.id"], name=op.f("fk_batch_delivery_batch_id"), ondelete="CASCADE"),
    )
    op.create_index("ix_batch_delivery_due", "batch_delivery", ["next_at"], sqlite_where=waiting, postgresql_where=waiting)


def downgrade() -> None:
    # a table takes its indexes with it; those that point at others go first
    op.drop_table("batch_delivery")
    op.drop_table("webhook_delivery")
    op.drop_table("webhook")
    op.drop_table("rollup")
    op.drop_table("sweep_state")
    op.drop_table("event")
    op.drop_table("backlog")
    op.drop_table("flow")
    op.drop_table("flow_class")
    op.drop_table("asset_use")
    op.drop_table("asset_name")
    op.drop_table("asset")
    op.drop_table("pick")
    op.drop_table("channel_file")
    op.drop_table("image_hash")
    op.drop_table("image")
    op.drop_table("attempt")
    op.drop_table("job")
    op.drop_table("batch_rows")
    op.drop_table("batch")
    op.drop_table("worker")
    op.drop_table("model")
    op.drop_table("idempotency")
    op.drop_table("usage")
    op.drop_table("web_session")
    op.drop_table("user_account")
    op.drop_table("api_key")
    op.drop_table("tenant")
