"""The tables. Times are seconds since 1970 (UTC) on the database's clock; seeds are exact decimal text."""

from __future__ import annotations

from typing import Any

from sqlalchemy import (
    JSON,
    BigInteger,
    Boolean,
    ColumnElement,
    Double,
    ForeignKey,
    Index,
    Integer,
    LargeBinary,
    MetaData,
    String,
    Text,
    UniqueConstraint,
    false,
    literal_column,
    text,
)
from sqlalchemy.orm import DeclarativeBase, Mapped, mapped_column

NAMING = {
    "ix": "ix_%(table_name)s_%(column_0_N_name)s",
    "uq": "uq_%(table_name)s_%(column_0_N_name)s",
    "pk": "pk_%(table_name)s",
    "fk": "fk_%(table_name)s_%(column_0_N_name)s",
}
ID = String(40)
"""An id: a prefix and a ULID."""
HASH = String(64)
"""A SHA-256 in hexadecimal."""


class Base(DeclarativeBase):
    metadata = MetaData(naming_convention=NAMING)
    type_annotation_map = {  # noqa: RUF012 - read by SQLAlchemy as a class attribute
        float: Double(),
        str: String(255),
        bool: Boolean(),
        dict[str, Any]: JSON(),
        list[Any]: JSON(),
    }


class Tenant(Base):
    """A tenant. `limits` may narrow the farm's: queued, running, images_per_day, pixels, steps."""

    __tablename__ = "tenant"
    id: Mapped[str] = mapped_column(ID, primary_key=True)
    name: Mapped[str] = mapped_column(index=True, unique=True)
    weight: Mapped[float] = mapped_column(default=1.0)
    limits: Mapped[dict[str, Any]] = mapped_column(default=dict)
    created_at: Mapped[float]


class ApiKey(Base):
    """A tenant's API key: a prefix to find it by, and the hash of the whole key. The key itself is never stored."""

    __tablename__ = "api_key"
    id: Mapped[str] = mapped_column(ID, primary_key=True)
    tenant_id: Mapped[str] = mapped_column(ID, index=True)
    name: Mapped[str]
    prefix: Mapped[str] = mapped_column(String(16), unique=True)
    hash: Mapped[str] = mapped_column(HASH)
    scopes: Mapped[list[Any]]
    limits: Mapped[dict[str, Any]] = mapped_column(default=dict)
    """Limits of this key alone: queued, running, images_per_day, pixels, steps."""
    quota_id: Mapped[str | None] = mapped_column(ID)
    """The id under which the key's limits are counted: that of the key it was rotated from; null: its own."""
    created_at: Mapped[float]
    expires_at: Mapped[float | None]
    revoked_at: Mapped[float | None]
    last_used_at: Mapped[float | None]


class UserAccount(Base):
    """A user who signs in with a name and a password."""

    __tablename__ = "user_account"
    id: Mapped[str] = mapped_column(ID, primary_key=True)
    name: Mapped[str] = mapped_column(String(64), unique=True)
    """In lower case."""
    password_hash: Mapped[str]
    """argon2id, with its salt and its costs."""
    role: Mapped[str] = mapped_column(String(16))
    tenant_id: Mapped[str] = mapped_column(ID)
    created_at: Mapped[float]
    disabled_at: Mapped[float | None]
    last_sign_in_at: Mapped[float | None]


class WebSession(Base):
    """A browser session, opened by a user's password or by a key. The cookie's token is stored only as its hash."""

    __tablename__ = "web_session"
    token_hash: Mapped[str] = mapped_column(HASH, primary_key=True)
    user_id: Mapped[str | None] = mapped_column(ID, index=True)
    key_id: Mapped[str | None] = mapped_column(ID)
    created_at: Mapped[float]
    seen_at: Mapped[float] = mapped_column(index=True)


class Usage(Base):
    """Images and GPU-seconds submitted on one day (days since 1970, UTC) by a tenant, or by a key with limits of its own."""

    __tablename__ = "usage"
    tenant_id: Mapped[str] = mapped_column(ID, primary_key=True)
    day: Mapped[int] = mapped_column(Integer, primary_key=True)
    images: Mapped[int] = mapped_column(Integer, default=0)
    gpu_s: Mapped[float] = mapped_column(default=0.0)
    """Predicted GPU-seconds."""


class Model(Base):
    """Facts that the farm learned about a model: whether it loads, its weights' digests, its cost and its micro-batch limits."""

    __tablename__ = "model"
    name: Mapped[str] = mapped_column(String(64), primary_key=True)
    state: Mapped[str] = mapped_column(String(16), default="unknown")
    """unknown, ready, missing or invalid"""
    reason: Mapped[str] = mapped_column(Text, default="")
    digest: Mapped[str] = mapped_column(HASH, default="")
    facts: Mapped[dict[str, Any]] = mapped_column(default=dict)
    """Revision, hashes by file, parameters, bytes, load seconds."""
    cost_s: Mapped[float | None]
    """Learned GPU-seconds of one default image; null until measured."""
    load_s: Mapped[float | None]
    """Learned seconds of one load, which is the cost of a model swap."""
    micro_batch_limits: Mapped[dict[str, Any]] = mapped_column(default=dict)
    """Learned images per micro-batch, by shape."""
    updated_at: Mapped[float]


class Batch(Base):
    """A bulk submission: its jobs are rows x template x variants."""

    __tablename__ = "batch"
    id: Mapped[str] = mapped_column(ID, primary_key=True)
    tenant_id: Mapped[str] = mapped_column(ID)
    name: Mapped[str]
    state: Mapped[str] = mapped_column(String(16))
    template: Mapped[str] = mapped_column(Text, default="")
    options: Mapped[dict[str, Any]] = mapped_column(default=dict)
    """Defaults, variants, seeds, name_pattern, canary, gate, channels, labels."""
    rows: Mapped[int] = mapped_column(Integer, default=0)
    accepted: Mapped[int] = mapped_column(Integer, default=0)
    rejected: Mapped[int] = mapped_column(Integer, default=0)
    errors: Mapped[list[Any]] = mapped_column(default=list)
    """The first errors: row, field, detail, remedy."""
    drafts: Mapped[str | None] = mapped_column(ID, index=True)
    """The batch whose approved images this one renders as finals."""
    created_at: Mapped[float]
    finished_at: Mapped[float | None]

    __table_args__ = (Index("ix_batch_tenant_id_id", "tenant_id", "id"),)


class BatchRows(Base):
    """A chunk of a batch's input rows, compressed. It serves the list of failed rows and the comparison with an updated table."""

    __tablename__ = "batch_rows"
    batch_id: Mapped[str] = mapped_column(ID, ForeignKey("batch.id"), primary_key=True)
    first_row: Mapped[int] = mapped_column(Integer, primary_key=True)
    rows: Mapped[bytes] = mapped_column(LargeBinary)
    """zlib over a JSON list of [number, cells, errors or null]."""


class Job(Base):
    """One recipe submitted by one tenant, with its state, attempt and lease. Only `scheduler.queue.transition` changes it."""

    __tablename__ = "job"
    id: Mapped[str] = mapped_column(ID, primary_key=True)
    tenant_id: Mapped[str] = mapped_column(ID)
    priority_class: Mapped[str] = mapped_column(String(16))
    rank: Mapped[int] = mapped_column(Integer, default=0)
    """Order within a flow: lower values first; among equal values older jobs first."""
    model: Mapped[str] = mapped_column(String(64))
    compat_key: Mapped[str]
    state: Mapped[str] = mapped_column(String(16))
    recipe: Mapped[dict[str, Any]]
    recipe_hash: Mapped[str] = mapped_column(HASH)
    prompt: Mapped[str] = mapped_column(Text)
    count: Mapped[int] = mapped_column(Integer)
    labels: Mapped[dict[str, Any]] = mapped_column(default=dict)
    custom_id: Mapped[str | None] = mapped_column(String(128))
    batch_id: Mapped[str | None] = mapped_column(ID, ForeignKey("batch.id"))
    row: Mapped[int | None] = mapped_column(Integer)
    """1-based row of the batch's table."""
    name: Mapped[str | None]
    """Stem of the file name in downloads and deliveries, from the batch's name pattern."""
    reuses: Mapped[str | None] = mapped_column(ID)
    """The job with the same recipe whose images this job reuses; null if the job renders its own."""
    rerolls: Mapped[int] = mapped_column(Integer, default=0, server_default="0")
    """How many times the quality gate has re-rolled this image before."""
    from_image: Mapped[str | None] = mapped_column(ID)
    """The image that this job derives from: the image that a re-roll replaces, or the draft of a final."""
    warnings: Mapped[list[Any]] = mapped_column(default=list)
    quota_id: Mapped[str | None] = mapped_column(ID)
    """The quota id of the key that submitted the job, if that key has limits of its own."""
    cost_s: Mapped[float]
    """Predicted GPU-seconds."""
    actual_s: Mapped[float | None]
    attempt: Mapped[int] = mapped_column(Integer, default=0)
    crashes: Mapped[int] = mapped_column(Integer, default=0)
    preview: Mapped[bool] = mapped_column(default=False, server_default=false())
    """Whether previews of the job's images are published with its progress."""
    owner: Mapped[str | None] = mapped_column(ID)
    """The worker incarnation that holds the lease."""
    lease_until: Mapped[float | None]
    not_before: Mapped[float] = mapped_column(default=0.0)
    expires_at: Mapped[float | None]
    error_code: Mapped[str | None] = mapped_column(String(64))
    error_detail: Mapped[str | None] = mapped_column(Text)
    created_at: Mapped[float]
    started_at: Mapped[float | None]
    finished_at: Mapped[float | None]

    __table_args__ = (
        # for the claim: one flow's jobs of one model, best first
        Index(
            "ix_job_claim",
            "model",
            "priority_class",
            "tenant_id",
            "rank",
            "id",
            sqlite_where=text("state = 'queued'"),
            postgresql_where=text("state = 'queued'"),
        ),
        # for leases: the sweep finds expired ones, a worker finds its own
        Index(
            "ix_job_lease",
            "lease_until",
            sqlite_where=text("state = 'running'"),
            postgresql_where=text("state = 'running'"),
        ),
        Index("ix_job_owner", "owner", sqlite_where=text("state = 'running'"), postgresql_where=text("state = 'running'")),
        Index(
            "ix_job_expires",
            "expires_at",
            sqlite_where=text("state IN ('queued', 'held') AND expires_at IS NOT NULL"),
            postgresql_where=text("state IN ('queued', 'held') AND expires_at IS NOT NULL"),
        ),
        Index(
            "ix_job_quota_id",
            "quota_id",
            "state",
            sqlite_where=text("quota_id IS NOT NULL AND state IN ('held', 'queued', 'running')"),
            postgresql_where=text("quota_id IS NOT NULL AND state IN ('held', 'queued', 'running')"),
        ),
        # for the lists
        Index("ix_job_tenant_id_id", "tenant_id", "id"),
        Index(
            "ix_job_single",
            "tenant_id",
            "id",
            sqlite_where=text("batch_id IS NULL"),
            postgresql_where=text("batch_id IS NULL"),
        ),
        Index("ix_job_tenant_id_state_id", "tenant_id", "state", "id"),
        Index("ix_job_state_id", "state", "id"),
        Index("ix_job_tenant_id_model_id", "tenant_id", "model", "id"),
        Index("ix_job_batch_id_state_id", "batch_id", "state", "id"),
        Index("ix_job_batch_id_id", "batch_id", "id"),
        Index("ix_job_recipe_hash", "recipe_hash"),
        Index(
            "ix_job_reuses",
            "reuses",
            sqlite_where=text("reuses IS NOT NULL"),
            postgresql_where=text("reuses IS NOT NULL"),
        ),
        Index(
            "ix_job_custom_id_id",
            "custom_id",
            "id",
            sqlite_where=text("custom_id IS NOT NULL"),
            postgresql_where=text("custom_id IS NOT NULL"),
        ),
    )


class Image(Base):
    """One output image: exactly one row per index of a succeeded job."""

    __tablename__ = "image"
    id: Mapped[str] = mapped_column(ID, primary_key=True)
    job_id: Mapped[str] = mapped_column(ID, ForeignKey("job.id"))
    tenant_id: Mapped[str] = mapped_column(ID)
    index: Mapped[int] = mapped_column(Integer)
    seed: Mapped[str] = mapped_column(String(20))
    """Unsigned 64-bit in decimal: exact in every database."""
    storage_key: Mapped[str] = mapped_column(String(512), unique=True)
    format: Mapped[str] = mapped_column(String(8))
    width: Mapped[int] = mapped_column(Integer)
    height: Mapped[int] = mapped_column(Integer)
    bytes: Mapped[int] = mapped_column(Integer)
    sha256: Mapped[str] = mapped_column(HASH, index=True)
    pixel_sha256: Mapped[str] = mapped_column(HASH, index=True)
    ms: Mapped[float]
    """Milliseconds from claim to stored."""
    audit: Mapped[dict[str, Any]]
    """Inputs of a re-render: weights, versions, device, dtype, step shapes; and timings."""
    scores: Mapped[dict[str, Any] | None]
    """The quality gate's scores and verdict; null without a gate."""
    created_at: Mapped[float]

    __table_args__ = (UniqueConstraint("job_id", "index"), Index("ix_image_tenant_id_id", "tenant_id", "id"))


class ImageHash(Base):
    """64-bit dHash of each image of a batch. The gate compares them to find near-duplicates."""

    __tablename__ = "image_hash"
    batch_id: Mapped[str] = mapped_column(ID, primary_key=True)
    row: Mapped[int] = mapped_column(Integer, primary_key=True, autoincrement=False)
    image_id: Mapped[str] = mapped_column(ID, ForeignKey("image.id", ondelete="CASCADE"), primary_key=True, index=True)
    dhash: Mapped[str] = mapped_column(String(16))


class ChannelFile(Base):
    """A file of an image for one channel."""

    __tablename__ = "channel_file"
    image_id: Mapped[str] = mapped_column(ID, ForeignKey("image.id", ondelete="CASCADE"), primary_key=True)
    channel: Mapped[str] = mapped_column(String(32), primary_key=True)
    storage_key: Mapped[str] = mapped_column(String(512), unique=True)
    format: Mapped[str] = mapped_column(String(8))
    width: Mapped[int] = mapped_column(Integer)
    height: Mapped[int] = mapped_column(Integer)
    bytes: Mapped[int] = mapped_column(Integer)
    sha256: Mapped[str] = mapped_column(HASH)


class Pick(Base):
    """The decision on one image of a batch: image `index` of the job, which may reuse another job's images."""

    __tablename__ = "pick"
    job_id: Mapped[str] = mapped_column(ID, ForeignKey("job.id", ondelete="CASCADE"), primary_key=True)
    index: Mapped[int] = mapped_column(Integer, primary_key=True, autoincrement=False)
    batch_id: Mapped[str] = mapped_column(ID)
    pick: Mapped[str] = mapped_column(String(16))
    """approved, rejected or rerolled. An image without a row is open."""
    replaced_by: Mapped[str | None] = mapped_column(ID)
    """The job that re-rolls the image with another seed."""
    at: Mapped[float]

    __table_args__ = (Index("ix_pick_batch_id_pick_job_id_index", "batch_id", "pick", "job_id", "index"),)


FAILURE_CONDITION = "outcome IN ('failed', 'retry', 'crashed')"
"""Condition of a failed attempt. Every query must use this same text, or SQLite does not use the partial index."""
IS_FAILURE: ColumnElement[bool] = literal_column(f"attempt.{FAILURE_CONDITION}")


class Attempt(Base):
    """One claim of one job by one worker, and how it ended."""

    __tablename__ = "attempt"
    job_id: Mapped[str] = mapped_column(ID, ForeignKey("job.id"), primary_key=True)
    attempt: Mapped[int] = mapped_column(Integer, primary_key=True)
    owner: Mapped[str] = mapped_column(ID)
    claimed_at: Mapped[float]
    ended_at: Mapped[float | None]
    outcome: Mapped[str | None] = mapped_column(String(32))
    """succeeded, failed, retry, crashed, expired, released or cancelled"""
    reason: Mapped[str | None] = mapped_column(Text)

    __table_args__ = (
        # for the lists of a worker's jobs
        Index("ix_attempt_owner_job_id", "owner", "job_id"),
        # for the breaker: recent failures
        Index(
            "ix_attempt_failure",
            "ended_at",
            sqlite_where=text(FAILURE_CONDITION),
            postgresql_where=text(FAILURE_CONDITION),
        ),
        # and recent successes
        Index(
            "ix_attempt_succeeded",
            "ended_at",
            sqlite_where=text("outcome = 'succeeded'"),
            postgresql_where=text("outcome = 'succeeded'"),
        ),
    )


class FlowClass(Base):
    """A priority class in fair sharing. The row `root` holds the virtual time between classes."""

    __tablename__ = "flow_class"
    name: Mapped[str] = mapped_column(String(16), primary_key=True)
    weight: Mapped[float]
    pass_: Mapped[float] = mapped_column("pass", default=0.0)
    vtime: Mapped[float] = mapped_column(default=0.0)
    """Virtual time among the flows of this class (for `root`: among the classes)."""
    active: Mapped[bool] = mapped_column(default=False)
    """Whether the class had work at the last claim. An idle class restarts at the current virtual time."""


class Flow(Base):
    """A flow: a tenant within a priority class, the unit of fair sharing. Virtual time is in GPU-seconds over weight."""

    __tablename__ = "flow"
    priority_class: Mapped[str] = mapped_column(String(16), primary_key=True)
    tenant_id: Mapped[str] = mapped_column(ID, primary_key=True)
    weight: Mapped[float] = mapped_column(default=1.0)
    pass_: Mapped[float] = mapped_column("pass", default=0.0)
    active: Mapped[bool] = mapped_column(default=False, index=True)


class Backlog(Base):
    """Counts of a flow's queued and running jobs on a lane. They change only in the transaction that changes the jobs."""

    __tablename__ = "backlog"
    model: Mapped[str] = mapped_column(String(64), primary_key=True)
    priority_class: Mapped[str] = mapped_column(String(16), primary_key=True)
    tenant_id: Mapped[str] = mapped_column(ID, primary_key=True)
    queued: Mapped[int] = mapped_column(Integer, default=0)
    running: Mapped[int] = mapped_column(Integer, default=0)


class Event(Base):
    """The audit: append-only. The sweep seals new rows into a hash chain in the order in which it finds them."""

    __tablename__ = "event"
    id: Mapped[int] = mapped_column(Integer, primary_key=True, autoincrement=True)
    at: Mapped[float]
    kind: Mapped[str] = mapped_column(String(40))
    subject: Mapped[str] = mapped_column(String(64))
    tenant_id: Mapped[str | None] = mapped_column(ID)
    data: Mapped[dict[str, Any]]
    seq: Mapped[int | None] = mapped_column(Integer, unique=True)
    """Position in the chain, from 1; null until sealed."""
    hash: Mapped[str | None] = mapped_column(HASH)
    """SHA-256 over the previous hash and this row."""

    __table_args__ = (
        Index("ix_event_subject_id", "subject", "id"),
        Index("ix_event_unsealed", "id", sqlite_where=text("seq IS NULL"), postgresql_where=text("seq IS NULL")),
        {"sqlite_autoincrement": True},
    )


class Worker(Base):
    """One worker incarnation: a child process with its pipelines."""

    __tablename__ = "worker"
    id: Mapped[str] = mapped_column(ID, primary_key=True)
    name: Mapped[str]
    host: Mapped[str]
    pid: Mapped[int] = mapped_column(Integer)
    state: Mapped[str] = mapped_column(String(16), index=True)
    desired_state: Mapped[str] = mapped_column(String(16), default="ready")
    """The operator's target state: ready, draining or quarantined."""
    device: Mapped[str]
    version: Mapped[str]
    serves: Mapped[list[Any]]
    resident: Mapped[list[Any]] = mapped_column(default=list)
    facts: Mapped[dict[str, Any]] = mapped_column(default=dict)
    """Memory, library versions, capabilities."""
    load: Mapped[dict[str, Any]] = mapped_column(default=dict)
    """Running images, current jobs and images per minute, as of the last heartbeat."""
    pending_commands: Mapped[list[Any]] = mapped_column(default=list, server_default="[]")
    """Load and unload commands that the worker has not received yet: `{"do": "warm" | "unload", "model": ...}`."""
    reason: Mapped[str] = mapped_column(Text, default="")
    started_at: Mapped[float]
    heartbeat_at: Mapped[float]


class Asset(Base):
    """An uploaded image, stored once per SHA-256 of its bytes."""

    __tablename__ = "asset"
    id: Mapped[str] = mapped_column(ID, primary_key=True)
    tenant_id: Mapped[str] = mapped_column(ID)
    sha256: Mapped[str] = mapped_column(HASH)
    storage_key: Mapped[str] = mapped_column(String(512))
    name: Mapped[str]
    """The name at the first upload. `AssetName` has the current meaning of each name."""
    format: Mapped[str] = mapped_column(String(8))
    width: Mapped[int] = mapped_column(Integer)
    height: Mapped[int] = mapped_column(Integer)
    bytes: Mapped[int] = mapped_column(Integer)
    created_at: Mapped[float]
    used_at: Mapped[float | None]
    """When the same bytes were last uploaded again."""

    __table_args__ = (UniqueConstraint("tenant_id", "sha256"),)


class AssetName(Base):
    """The meaning of a tenant's image name: the asset that was last uploaded under that name."""

    __tablename__ = "asset_name"
    tenant_id: Mapped[str] = mapped_column(ID, primary_key=True)
    name: Mapped[str] = mapped_column(primary_key=True)
    asset_id: Mapped[str] = mapped_column(ID, ForeignKey("asset.id", ondelete="CASCADE"), index=True)


class AssetUse(Base):
    """Pairs of a job and an asset that the job reads. An asset that no job uses is deleted after `asset_retention_s` seconds."""

    __tablename__ = "asset_use"
    asset_id: Mapped[str] = mapped_column(ID, ForeignKey("asset.id"), primary_key=True)
    job_id: Mapped[str] = mapped_column(ID, ForeignKey("job.id", ondelete="CASCADE"), primary_key=True, index=True)


class Webhook(Base):
    """A tenant's webhook: its URL and the secret that signs its messages."""

    __tablename__ = "webhook"
    id: Mapped[str] = mapped_column(ID, primary_key=True)
    tenant_id: Mapped[str] = mapped_column(ID, index=True)
    url: Mapped[str] = mapped_column(String(2048))
    secret: Mapped[str]
    kinds: Mapped[list[Any]]
    subject: Mapped[str | None] = mapped_column(ID)
    """Only events of this job or batch are sent; null sends all events of the tenant."""
    created_at: Mapped[float]
    disabled_at: Mapped[float | None]
    leased_until: Mapped[float] = mapped_column(default=0.0, server_default="0")
    """The sending task's lease on this webhook's messages. In the past, it is the time when the last turn ended."""


class WebhookDelivery(Base):
    """One webhook message and its tries."""

    __tablename__ = "webhook_delivery"
    id: Mapped[str] = mapped_column(ID, primary_key=True)
    webhook_id: Mapped[str] = mapped_column(ID, index=True)
    tenant_id: Mapped[str] = mapped_column(ID)
    kind: Mapped[str] = mapped_column(String(40))
    body: Mapped[str] = mapped_column(Text)
    state: Mapped[str] = mapped_column(String(16))
    """waiting, delivered or dead"""
    tries: Mapped[int] = mapped_column(Integer, default=0)
    next_at: Mapped[float]
    status: Mapped[int | None] = mapped_column(Integer)
    error: Mapped[str | None] = mapped_column(Text)
    created_at: Mapped[float]
    finished_at: Mapped[float | None]

    __table_args__ = (
        Index(
            "ix_webhook_delivery_due",
            "webhook_id",
            "next_at",
            sqlite_where=text("state = 'waiting'"),
            postgresql_where=text("state = 'waiting'"),
        ),
    )


class BatchDelivery(Base):
    """A batch's delivery to a bucket. Only the settings have the bucket's address and credentials."""

    __tablename__ = "batch_delivery"
    batch_id: Mapped[str] = mapped_column(ID, ForeignKey("batch.id", ondelete="CASCADE"), primary_key=True)
    tenant_id: Mapped[str] = mapped_column(ID)
    bucket: Mapped[str] = mapped_column(String(64))
    prefix: Mapped[str]
    state: Mapped[str] = mapped_column(String(16))
    """open, waiting, delivered or failed"""
    files: Mapped[int] = mapped_column(Integer, default=0)
    """Files in the bucket, including the manifest. `sent` counts the files that the last try uploaded."""
    sent: Mapped[int] = mapped_column(Integer, default=0)
    bytes: Mapped[int] = mapped_column(BigInteger, default=0)
    tries: Mapped[int] = mapped_column(Integer, default=0)
    next_at: Mapped[float]
    error: Mapped[str | None] = mapped_column(Text)
    finished_at: Mapped[float | None]

    __table_args__ = (
        Index(
            "ix_batch_delivery_due",
            "next_at",
            sqlite_where=text("state = 'waiting'"),
            postgresql_where=text("state = 'waiting'"),
        ),
    )


class Idempotency(Base):
    """The stored response to a request with an Idempotency-Key."""

    __tablename__ = "idempotency"
    tenant_id: Mapped[str] = mapped_column(ID, primary_key=True)
    key: Mapped[str] = mapped_column(String(255), primary_key=True)
    body_sha256: Mapped[str] = mapped_column(HASH)
    status: Mapped[int | None] = mapped_column(Integer)
    """HTTP status of the stored response; null while the request runs."""
    response: Mapped[str | None] = mapped_column(Text)
    created_at: Mapped[float]


class SweepState(Base):
    """The time of the last sweep, so that the next sweep detects a gap. The table has one row."""

    __tablename__ = "sweep_state"
    id: Mapped[int] = mapped_column(Integer, primary_key=True)
    last_at: Mapped[float]
    reap_after: Mapped[float]
    """Leases are not reaped before this time, because after a gap every lease looks expired."""
    enqueued_seq: Mapped[int] = mapped_column(Integer, default=0)
    """The last event of the chain that was turned into webhook messages."""
    drift: Mapped[int] = mapped_column(Integer, default=0)
    """How many backlog counters have been corrected in total."""


class Rollup(Base):
    """Totals of one minute or one hour, for the charts. `scheduler.metrics.rollup` writes them."""

    __tablename__ = "rollup"
    step: Mapped[int] = mapped_column(Integer, primary_key=True, autoincrement=False)
    """60 or 3600 seconds."""
    at: Mapped[int] = mapped_column(Integer, primary_key=True, autoincrement=False)
    """Start of the period in seconds since 1970, a multiple of its length."""
    images: Mapped[int] = mapped_column(Integer, default=0)
    failures: Mapped[int] = mapped_column(Integer, default=0)
    """Attempts that failed, crashed or were retried."""
    loads: Mapped[int] = mapped_column(Integer, default=0)
    """Number of model loads."""
    gpu_s: Mapped[float] = mapped_column(default=0.0)
    wait: Mapped[dict[str, Any]] = mapped_column(default=dict)
    """Jobs by waiting time: counts per bucket of the histogram."""
    render: Mapped[dict[str, Any]] = mapped_column(default=dict)
    counted: Mapped[bool] = mapped_column(default=False)
    """Whether the sweep has counted this period. A model load creates the row earlier."""
