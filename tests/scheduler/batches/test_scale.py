"""A large table: the memory of its ingestion is that of a chunk."""

from __future__ import annotations

import tracemalloc
from collections.abc import Iterator
from typing import BinaryIO, cast

from sqlalchemy import func, select

from imagefarm.store.migrate import DEFAULT_TENANT
from imagefarm.store.models import Job
from scheduler.assets.named_images import NamedImages
from scheduler.batches.create import create_batch
from scheduler.batches.table.csv_rows import read_csv
from scheduler.batches.table.options import BatchOptions
from scheduler.batches.table.table_plan import Submitter, plan_table
from tests.scheduler.batches.conftest import BulkFarm

SMALL, LARGE = 4_000, 12_000


class Endless:
    """A table that is made while it is read, so that the test itself holds none of it."""

    def __init__(self, rows: int) -> None:
        self._lines = self._make(rows)

    def _make(self, rows: int) -> Iterator[bytes]:
        yield b"sku,name,color,note\n"
        for n in range(rows):
            yield f"SKU-{n},mug number {n},{('red', 'blue')[n % 2]},{'words ' * 20}\n".encode()

    def read(self, size: int = -1) -> bytes:
        data = b""
        while len(data) < size - 400 and (line := next(self._lines, b"")):
            data += line
        return data


def test_memory_is_bounded_by_a_chunk(quick_farm: BulkFarm) -> None:
    options = BatchOptions(template="a {{ color }} {{ name }} on white", labels=["color"])
    named_images = NamedImages(quick_farm.store, quick_farm.settings, tenant_id=DEFAULT_TENANT)
    submitter = Submitter(
        catalogue=quick_farm.catalogue, tenant_id=DEFAULT_TENANT, limits={}, costs={}, named_images=named_images
    )

    def run(rows: int) -> int:
        plan = plan_table(read_csv(cast("BinaryIO", Endless(rows)), max_rows=rows), options, submitter, max_jobs=rows)
        try:
            create_batch(quick_farm.store, plan, options, quick_farm.settings, tenant_id=DEFAULT_TENANT)
        finally:
            plan.close()
        return plan.accepted

    run(100)  # warm the caches
    tracemalloc.start()
    run(SMALL)
    _, small = tracemalloc.get_traced_memory()
    tracemalloc.reset_peak()
    run(LARGE)
    _, large = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert large < 40e6
    assert large < small + 4e6  # the register of names alone grows with the table
    with quick_farm.store.read() as session:
        assert session.scalar(select(func.count()).select_from(Job)) == 100 + SMALL + LARGE
