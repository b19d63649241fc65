"""The Python client: `from imagefarm import Client`."""

from imagefarm.client.answers import Batch, BatchImage, BulkResult, Finding, Image, Job, JobList, Model, Queue, Worker
from imagefarm.client.client import Client
from imagefarm.client.errors import (
    ClientError,
    FarmBusy,
    FarmUnreachable,
    JobFailed,
    KeyRefused,
    NotThere,
    RequestRefused,
    WaitedTooLong,
)

__all__ = [
    "Batch",
    "BatchImage",
    "BulkResult",
    "Client",
    "ClientError",
    "FarmBusy",
    "FarmUnreachable",
    "Finding",
    "Image",
    "Job",
    "JobFailed",
    "JobList",
    "KeyRefused",
    "Model",
    "NotThere",
    "Queue",
    "RequestRefused",
    "WaitedTooLong",
    "Worker",
]
