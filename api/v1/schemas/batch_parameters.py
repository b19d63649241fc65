"""The options of a batch besides its table: query parameters, fields of a form, or a JSON object."""

from __future__ import annotations

from typing import Annotated, Any, TypeVar

from pydantic import BaseModel, Field, ValidationError

from api.http import strict_json
from api.http.field_errors import field_errors
from api.http.schemas import Query
from imagefarm.errors import FieldError, InvalidRequest
from imagefarm.recipe import Count, Format, Guidance, ModelName, NegativePrompt, Quality, Seed, Side, Steps
from imagefarm.states import PriorityClass
from imagefarm.text import Label, NotBool, Text
from scheduler.batches.table.file_names import MAX_PATTERN_CHARS
from scheduler.batches.table.options import MAX_CANARY, BatchOptions, OnError
from scheduler.batches.table.seeds import SeedPolicy
from scheduler.batches.table.table_text import CHARSETS
from scheduler.batches.table.template import MAX_TEMPLATE_CHARS

M = TypeVar("M", bound=BaseModel)
DEFAULTS = ("model", "negative_prompt", "width", "height", "steps", "guidance", "sampler", "seed", "count", "format", "quality")


class BatchParameters(Query):
    """A batch without its rows, as query parameters (or as fields of a multipart form)."""

    name: Annotated[Text, Field(min_length=1, max_length=255)] | None = None
    template: Annotated[Text, Field(max_length=MAX_TEMPLATE_CHARS)] | None = Field(
        None, description="The prompt, with `{{ column }}` for each row's values; without it the column `prompt` is used"
    )
    variants: Annotated[Text, Field(max_length=20_000)] | None = Field(
        None, description='JSON: `{"view": ["front", "side"]}` multiplies every row'
    )
    subject: Annotated[Text, Field(max_length=2000)] | None = Field(
        None, description='JSON: options of all images in the column subject, such as `{"shadow": 0.4, "place": {"y": 0.6}}`'
    )
    labels: Annotated[Text, Field(max_length=2100)] | None = Field(
        None, description="Columns and variants, separated by commas, that become labels of the jobs"
    )
    seeds: SeedPolicy | None = None
    name_pattern: Annotated[Text, Field(max_length=MAX_PATTERN_CHARS)] | None = Field(
        None, description="File names, like `{sku}-{view}-{n}`"
    )
    on_error: OnError | None = None
    canary: Annotated[int, Field(ge=0, le=MAX_CANARY), NotBool] | None = None
    dry_run: bool | None = None
    reuse: bool | None = Field(None, description="Reuse existing images of an identical recipe")
    update_of: Annotated[Text, Field(min_length=1, max_length=255)] | None = Field(
        None, description="Id or name of an earlier batch of this table: only rows that changed since are rendered"
    )
    gate: Annotated[Text, Field(max_length=4000)] | None = Field(
        None, description='JSON: `{"sharpness": {"at_least": 20, "otherwise": "reroll"}}`; see docs/catalogue.md'
    )
    channels: Annotated[Text, Field(max_length=8000)] | None = Field(
        None, description="Names of channels, separated by commas; or a JSON list of names and channel definitions"
    )
    deliver: Annotated[Text, Field(max_length=500)] | None = Field(
        None, description='JSON: `{"bucket": "shop", "prefix": "spring"}`; the operator configures the buckets'
    )
    priority: PriorityClass | None = None
    expires_in: Annotated[float, Field(gt=0, le=30 * 86400, allow_inf_nan=False)] | None = None
    delimiter: Annotated[Text, Field(max_length=10)] | None = Field(
        None, description="Of a CSV table: a comma, `;`, a tab or `|`"
    )
    charset: Annotated[Text, Field(max_length=20)] | None = Field(
        None, description=f"Of a table that is not UTF-8: {', '.join(CHARSETS[1:])} ..."
    )
    column_map: Annotated[Text, Field(max_length=20_000)] | None = Field(
        None, description='JSON: `{"Article": "sku"}`, the meaning of columns with other names; `-` leaves a column out'
    )
    model: ModelName | None = None
    negative_prompt: NegativePrompt | None = None
    width: Side | None = None
    height: Side | None = None
    steps: Steps | None = None
    guidance: Guidance | None = None
    sampler: Label | None = None
    seed: Seed | None = None
    count: Count | None = None
    format: Format | None = None
    quality: Quality | None = None


class BatchBody(BatchOptions):
    """A batch as one JSON object, for small tables. Send larger ones as CSV or JSON Lines."""

    rows: list[Any]


def make_options(parameters: BatchParameters, body: BatchBody | None = None) -> BatchOptions:
    """The options of a batch. Query parameters override the body. Raises InvalidRequest."""
    given: dict[str, Any] = body.model_dump(exclude={"rows"}, exclude_unset=True) if body else {}
    sent = parameters.model_dump(exclude_none=True)
    defaults = {name: sent.pop(name) for name in DEFAULTS if name in sent}
    if "subject" in sent:
        defaults["subject"] = _json_parameter("subject", sent.pop("subject"))
    if defaults:
        given["defaults"] = {**given.get("defaults", {}), **defaults}
    if "variants" in sent:
        sent["variants"] = _json_parameter("variants", sent["variants"])
    for name in ("gate", "deliver", "column_map"):
        if name in sent:
            sent[name] = _json_parameter(name, sent[name])
    if "labels" in sent:
        sent["labels"] = _names(sent["labels"])
    if "channels" in sent:
        text = sent["channels"]
        sent["channels"] = _json_parameter("channels", text) if text.lstrip().startswith("[") else _names(text)
    return validated(BatchOptions, given | sent)


def _names(text: str) -> list[str]:
    return [name.strip() for name in text.split(",") if name.strip()]


def _json_parameter(name: str, text: str) -> Any:
    try:
        return strict_json.parse(text.encode())
    except InvalidRequest as error:
        first = error.errors[0]
        detail = first.detail if first.field == "body" else f"{first.field}: {first.detail}"
        raise InvalidRequest([FieldError(field=name, detail=detail, remedy=first.remedy)]) from None


def validated(model: type[M], value: Any) -> M:
    """Validate the value as that model. Raises InvalidRequest."""
    try:
        return model.model_validate(value)
    except ValidationError as error:
        raise InvalidRequest(field_errors(error, model, whole="body")) from None
