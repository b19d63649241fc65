"""The delivery target of a batch. `scheduler.batches.export.batch_delivery` uploads the files to it."""

from __future__ import annotations

from typing import Annotated

from pydantic import AfterValidator, BaseModel, ConfigDict, Field


def _plain_prefix(prefix: str) -> str:
    prefix = prefix.strip("/")
    if any(part in {"", ".", ".."} for part in prefix.split("/")):
        raise ValueError("is not a plain folder; write it like spring/shop-a")
    return prefix


class DeliveryTarget(BaseModel):
    """Destination of a batch's files when it is done: a bucket that the operator allows, and a folder in it."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    bucket: Annotated[str, Field(pattern=r"^[a-z0-9][a-z0-9-]{0,63}$")]
    prefix: Annotated[str, Field(pattern=r"^[A-Za-z0-9][A-Za-z0-9._/-]{0,199}$"), AfterValidator(_plain_prefix)]
