"""What a peak took is given back when it is over."""

from __future__ import annotations

import psutil
import pytest
import torch

from worker.memory import malloc_trim


def test_freed_memory_leaves_the_process(monkeypatch: pytest.MonkeyPatch) -> None:
    trimmer = malloc_trim.HeapTrimmer()
    trimmer.trim_if_due(busy=False)
    process = psutil.Process()
    # smaller than the C library's mmap threshold, and enough to grow the heap; one that stays holds the end of the heap
    pieces = [torch.zeros(16 * 1024) for _ in range(2000)]
    last = torch.zeros(16 * 1024)
    peak = process.memory_info().rss
    del pieces
    monkeypatch.setattr(malloc_trim, "EVERY_S", 0.0)
    assert not trimmer.trim_if_due(busy=False), "nothing was made since"
    trimmer.note_allocation()
    assert not trimmer.trim_if_due(busy=True), "not so soon while there is work"
    kept = process.memory_info().rss
    assert trimmer.trim_if_due(busy=False)
    assert peak - process.memory_info().rss > 100 * 2**20
    assert peak - kept < 100 * 2**20, "it would have left by itself"
    assert last.sum() == 0
