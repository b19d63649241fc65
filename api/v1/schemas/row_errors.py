"""Errors of the rows of a table, or of the files of a ZIP, as JSON."""

from __future__ import annotations

from collections.abc import Iterable

from api.http.schemas import ResponseModel
from imagefarm.errors import FieldError
from scheduler.batches.create import error_json


class RowError(ResponseModel):
    """An error of a row: the row, the field, the problem and the remedy."""

    row: int | None
    field: str
    detail: str
    remedy: str


def row_errors(errors: Iterable[FieldError]) -> list[RowError]:
    """Convert errors of rows to JSON."""
    return [RowError.model_validate(error_json(error)) for error in errors]
