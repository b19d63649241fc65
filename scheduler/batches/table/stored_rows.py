"""The submitted rows of a batch, stored so that rows that failed can be downloaded and corrected."""

from __future__ import annotations

import json
import zlib
from collections.abc import Iterator
from typing import Any, NamedTuple

from sqlalchemy import insert, select
from sqlalchemy.orm import Session

from imagefarm.store import Store
from imagefarm.store.models import BatchRows


class StoredRow(NamedTuple):
    """A row as read; `errors` are (field, detail) if it was rejected, `change` is its change in an update."""

    number: int
    cells: dict[str, Any]
    errors: list[list[str]] | None
    change: str | None = None


def save_rows(session: Session, batch_id: str, rows: list[list[Any]]) -> None:
    """Store consecutive rows of a batch, compressed, in the caller's transaction."""
    packed = zlib.compress(json.dumps(rows, separators=(",", ":")).encode(), 3)
    session.execute(insert(BatchRows).values(batch_id=batch_id, first_row=rows[0][0], rows=packed))


def load_rows(store: Store, batch_id: str) -> Iterator[list[StoredRow]]:
    """Yield the rows of a batch in order, in chunks; no transaction is open between two yields."""
    after = 0
    while True:
        with store.read() as session:
            found = session.execute(
                select(BatchRows.first_row, BatchRows.rows)
                .where(BatchRows.batch_id == batch_id, BatchRows.first_row > after)
                .order_by(BatchRows.first_row)
                .limit(1)
            ).first()
        if found is None:
            return
        after = found.first_row
        yield [StoredRow(*row) for row in json.loads(zlib.decompress(found.rows))]
