"""Live events follow a commit, and only a commit."""

from __future__ import annotations

import pytest

from imagefarm.store import Store
from imagefarm.store.audit import append


def test_the_listener_hears_of_commits_only(store: Store) -> None:
    heard: list[dict[str, object]] = []
    store.listener = heard.extend
    with store.write() as session:
        append(session, "a", "job_1", "tenant_default", {"n": 1})
        assert heard == []
    assert heard == [{"kind": "a", "subject": "job_1", "tenant_id": "tenant_default", "data": {"n": 1}}]
    with pytest.raises(ValueError, match="no"):
        _write_and_fail(store)
    assert len(heard) == 1


def _write_and_fail(store: Store) -> None:
    with store.write() as session:
        append(session, "b", "job_2", None, {})
        raise ValueError("no")
