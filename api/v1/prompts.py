"""Prompts: kinds of pictures as presets, and the enhancer's suggestions."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import AfterValidator, Field

from api.http.context import AppContext
from api.http.routes import Caller, Routes, Scope
from api.http.schemas import Body, Query, ResponseModel
from imagefarm.errors import FieldError, InvalidRequest
from imagefarm.model_entry import ModelEntry
from imagefarm.prompts.enhance import Suggestion, enhance
from imagefarm.prompts.kinds import Kind, kinds
from imagefarm.recipe import ModelName, Prompt
from imagefarm.text import NotBool, check_text

routes = Routes(tag="prompts")

KindName = Annotated[str, Field(min_length=1, max_length=40), AfterValidator(check_text)]
MAX_VARIANT = 99


class EnhanceRequest(Body):
    """A prompt to enhance."""

    prompt: Prompt
    kind: KindName | None = Field(None, description="One of `GET /api/v1/prompts/kinds`; guessed from the prompt if left out")
    variant: Annotated[int, Field(ge=0, le=MAX_VARIANT), NotBool] = Field(0, description="Another number gives other words")


class AdditionResponse(ResponseModel):
    """A phrase to add, and its topic."""

    slot: Literal["setting", "light", "camera", "finish"]
    text: str


class EnhanceResponse(ResponseModel):
    """The suggestion. It begins with the unchanged prompt."""

    prompt: str
    enhanced: str = Field(description="The prompt with every addition")
    additions: list[AdditionResponse]
    negative_prompt: str = Field(description="Things that a picture of this kind must not show")
    kind: str
    language: Literal["en", "zh"]


class KindQuery(Query):
    """The model for which to compute steps and guidance."""

    model: ModelName | None = None


class KindResponse(ResponseModel):
    """A kind of picture, with its steps, guidance and negative prompt for the model."""

    name: str
    title: dict[Literal["en", "zh"], str]
    steps: int
    guidance: float
    negative_prompt: dict[Literal["en", "zh"], str]


class KindList(ResponseModel):
    """All kinds of pictures."""

    items: list[KindResponse]
    next_cursor: None = None


@routes.post("/api/v1/prompts/enhance", scope=Scope.SUBMIT, response=EnhanceResponse)
def enhance_prompt(app_context: AppContext, caller: Caller, body: EnhanceRequest) -> EnhanceResponse:
    """Suggest additions to a prompt.

    It adds light, setting, camera and finish for product photography, in the prompt's language, English or Chinese. The
    suggestion is rule-based: the same prompt, kind and variant give the same result. No job is submitted and nothing is stored.
    """
    if body.kind is not None and body.kind not in kinds():
        raise InvalidRequest([FieldError(field="kind", detail="is not a kind", remedy="use one of " + ", ".join(kinds()))])
    return _response(enhance(body.prompt, kind=body.kind, variant=body.variant))


@routes.get("/api/v1/prompts/kinds", scope=Scope.READ, response=KindList, errors=(422,))
def list_kinds(app_context: AppContext, caller: Caller, query: KindQuery) -> KindList:
    """List kinds of pictures, with the steps and guidance for a model."""
    entry = app_context.catalogue.get(query.model or app_context.catalogue.default)
    return KindList(items=[_kind_response(kind, entry) for kind in kinds().values()])


def _response(found: Suggestion) -> EnhanceResponse:
    return EnhanceResponse(
        prompt=found.prompt,
        enhanced=found.enhanced,
        additions=[AdditionResponse(slot=addition.slot, text=addition.text) for addition in found.additions],
        negative_prompt=found.negative_prompt,
        kind=found.kind,
        language=found.language,
    )


def _kind_response(kind: Kind, entry: ModelEntry) -> KindResponse:
    return KindResponse(
        name=kind.name,
        title={"en": kind.title, "zh": kind.title_zh},
        steps=kind.steps_for(entry),
        guidance=kind.guidance_for(entry),
        negative_prompt={"en": kind.negative, "zh": kind.negative_zh},
    )
