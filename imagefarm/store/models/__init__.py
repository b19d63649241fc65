"""The tables of the store, one module per subject. Importing this package registers all of them in `Base.metadata`."""

from imagefarm.store.models.accounts import ApiKey, Tenant, Usage, UserAccount, WebSession
from imagefarm.store.models.assets import Asset, AssetName, AssetUse
from imagefarm.store.models.base import Base
from imagefarm.store.models.batches import Batch, BatchDelivery, BatchRows, ImageHash, Pick
from imagefarm.store.models.jobs import IS_FAILURE, Attempt, ChannelFile, Image, Job
from imagefarm.store.models.queue import Backlog, Flow, FlowClass
from imagefarm.store.models.records import Event, Idempotency, Rollup, SweepState
from imagefarm.store.models.webhooks import Webhook, WebhookDelivery
from imagefarm.store.models.workers import Model, Worker

__all__ = [
    "IS_FAILURE",
    "ApiKey",
    "Asset",
    "AssetName",
    "AssetUse",
    "Attempt",
    "Backlog",
    "Base",
    "Batch",
    "BatchDelivery",
    "BatchRows",
    "ChannelFile",
    "Event",
    "Flow",
    "FlowClass",
    "Idempotency",
    "Image",
    "ImageHash",
    "Job",
    "Model",
    "Pick",
    "Rollup",
    "SweepState",
    "Tenant",
    "Usage",
    "UserAccount",
    "WebSession",
    "Webhook",
    "WebhookDelivery",
    "Worker",
]
