"""The base class of all responses."""

from __future__ import annotations

from pydantic import BaseModel, ConfigDict


class ResponseModel(BaseModel):
    # models are built at first use, so that the command line starts without building fifty of them
    model_config = ConfigDict(extra="allow", defer_build=True)


class RowError(ResponseModel):
    """An error in a row of a table, with its remedy."""

    row: int | None = None
    field: str = ""
    detail: str = ""
    remedy: str = ""
