"""The request body of a batch's finals."""

from __future__ import annotations

from typing import Annotated

from pydantic import Field

from api.http.schemas import Body
from imagefarm.imaging.channels import MAX_CHANNELS, Channel, ChannelName, presets, resolve
from imagefarm.recipe import Side, Steps, Upscale
from imagefarm.settings import Settings
from imagefarm.text import Text
from scheduler.batches.review.finals import FinalsOptions
from scheduler.batches.table.delivery_target import DeliveryTarget


class FinalsBody(Body):
    """The values in which finals differ from their drafts. Fields that are left out stay as in the drafts."""

    width: Side
    height: Side
    steps: Steps | None = None
    upscale: Upscale | None = None
    name: Annotated[Text, Field(min_length=1, max_length=255)] | None = Field(None, description="Name of the new batch")
    channels: Annotated[list[ChannelName | Channel], Field(max_length=MAX_CHANNELS)] | None = Field(
        None, description="Channels of each image; left out: those of the drafts"
    )
    deliver: DeliveryTarget | None = Field(None, description="The bucket and folder for the files when the batch is done")

    def options(self, settings: Settings) -> FinalsOptions:
        """Convert to the scheduler's options, with resolved channels. Raises InvalidRequest for an unknown channel."""
        return FinalsOptions(
            width=self.width,
            height=self.height,
            steps=self.steps,
            upscale=None if self.upscale is None else self.upscale.model_dump(mode="json"),
            name=self.name,
            deliver=self.deliver,
            channels=None if self.channels is None else resolve(self.channels, presets(settings.channels_file)),
        )
