"""Identifiers: form and order."""

from __future__ import annotations

from imagefarm.ids import is_id, new_id


def test_ids_increase_also_within_a_millisecond() -> None:
    ids = [new_id("job") for _ in range(5000)]
    assert ids == sorted(set(ids))
    assert all(is_id(one, "job") for one in ids)


def test_what_is_not_an_id() -> None:
    good = new_id("job")
    for bad in ("", "job_", good[:-1], good + "0", good.lower(), good.replace("job", "img"), "job_" + "I" * 26, good + "\n"):
        assert not is_id(bad, "job")
