"""What a log must not hold."""

from __future__ import annotations

import logging
from collections.abc import Iterator

import httpx
import pytest

from imagefarm.logs import URL_LOGGERS, configure_logs
from imagefarm.settings import Settings


@pytest.fixture
def root_logger() -> Iterator[None]:
    root = logging.getLogger()
    loggers = {root: root.level} | {logger: logger.level for logger in map(logging.getLogger, URL_LOGGERS)}
    handlers = root.handlers[:]
    yield
    root.handlers[:] = handlers
    for logger, level in loggers.items():
        logger.setLevel(level)


def test_the_url_of_a_request_is_in_no_log(root_logger: None, settings: Settings, capsys: pytest.CaptureFixture[str]) -> None:
    """The HTTP client logs each request with its URL at INFO, and a webhook's URL often holds its secret."""
    configure_logs(settings.model_copy(update={"log_format": "json", "log_level": "info"}), "scheduler")
    logging.getLogger("imagefarm.test").info("something else")
    with httpx.Client(transport=httpx.MockTransport(lambda _: httpx.Response(204))) as client:
        client.post("https://hooks.example/T0/SECRET-PATH?token=SECRET-TOKEN")
    written = capsys.readouterr().err
    assert "something else" in written
    assert "SECRET" not in written
