"""The body that asks for the finals of a batch."""

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
    """What finals have instead of what their drafts had; what is left out stays as it was."""

    width: Side
    height: Side
    steps: Steps | None = None
    upscale: Upscale | None = None
    name: Annotated[Text, Field(min_length=1, max_length=255)] | None = Field(None, description="Name of the new batch")
    channels: Annotated[list[ChannelName | Channel], Field(max_length=MAX_CHANNELS)] | None = Field(
        None, description="Forms in which each picture is delivered; left out: those of the drafts"
    )
    deliver: DeliveryTarget | None = Field(None, description="The bucket and folder that its files go to when it is done")

    def options(self, settings: Settings) -> FinalsOptions:
        """As the scheduler takes it, its channels written out. Raises InvalidRequest for a channel that is not known."""
        return FinalsOptions(
            width=self.width,
            height=self.height,
            steps=self.steps,
            upscale=None if self.upscale is None else self.upscale.model_dump(mode="json"),
            name=self.name,
            deliver=self.deliver,
            channels=None if self.channels is None else resolve(self.channels, presets(settings.channels_file)),
        )
