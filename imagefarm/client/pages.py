"""Lists of the API: the first page, and the request for the next one."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any, Generic, Protocol, TypeVar, cast

from pydantic import BaseModel

from imagefarm.client.request import Request, get

Item_co = TypeVar("Item_co", covariant=True)
T = TypeVar("T")

PAGE_SIZE = 200


class Page(Protocol[Item_co]):
    """One page of a list; `next_cursor` is None on the last."""

    @property
    def items(self) -> Sequence[Item_co]: ...
    @property
    def next_cursor(self) -> str | None: ...


@dataclass(frozen=True, slots=True)
class _Cut(Generic[T]):
    items: Sequence[T]
    next_cursor: str | None


@dataclass(slots=True, kw_only=True)
class Pages(Generic[T]):
    """The pages of a list at `path` below /api/v1; `limit` is the number of items wanted, None is all."""

    path: str
    kind: type[Page[T]]
    query: Mapping[str, Any] = field(default_factory=dict)
    limit: int | None = None
    page_size: int = PAGE_SIZE

    def after(self, page: Page[T] | None) -> Request | None:
        """The request for the page after `page` (None: for the first); None after the last."""
        if (page is not None and page.next_cursor is None) or (self.limit is not None and self.limit <= 0):
            return None
        size = self.page_size if self.limit is None else min(self.limit, self.page_size)
        first = get(self.path, **self.query, limit=size)
        return first if page is None else replace(first, params={**first.params, "cursor": page.next_cursor})

    def read(self, response: Any) -> Page[T]:
        """A page of the response, cut at the limit."""
        page = cast("Page[T]", cast("type[BaseModel]", self.kind).model_validate(response))
        if self.limit is None:
            return page
        wanted, self.limit = page.items[: self.limit], self.limit - len(page.items)
        return _Cut(wanted, page.next_cursor)
