"""A server that takes what is sent and never answers costs a moment, not a thread."""

from __future__ import annotations

import threading
import time

import pytest
from sqlalchemy import make_url, text

from imagefarm.store import Store, pg_timeout
from tests.faults.half_open import Proxy


def test_a_silent_connection_is_taken_for_lost_and_the_work_done_on_a_new_one(
    postgresql_uri: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(pg_timeout, "RESPONSE_TIMEOUT_S", 0.5)
    direct = make_url(postgresql_uri)
    proxy = Proxy(f"{direct.query['host']}/.s.PGSQL.5432")
    store = Store(direct.set(host="127.0.0.1", port=proxy.port, query={}).render_as_string(hide_password=False), pool_size=2)
    answers: list[int] = []

    def work() -> None:
        answers.append(store.run_with_retry(lambda session: session.scalar(text("SELECT 1")) or 0))

    work()
    with store.write() as session:  # silent in the middle of a transaction, too
        session.scalar(text("SELECT 1"))
        assert proxy.silence() == 1
        asked = time.monotonic()
        with pytest.raises(Exception, match="no response"):
            session.scalar(text("SELECT 2"))
        assert time.monotonic() - asked >= 0.5
        session.rollback()
    thread = threading.Thread(target=work, daemon=True)
    thread.start()
    thread.join(10)
    assert answers == [1, 1]
    store.close()
    proxy.close()
