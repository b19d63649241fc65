"""`/live?at=PAGE`: the stream of an open page. It carries the page itself, again after each change."""

from __future__ import annotations

from functools import partial

from flask import Flask, Response, current_app, request

from api.http.sse import stream
from api.pages.live.page_push import PagePublisher
from api.pages.registry import Pages
from imagefarm.auth import Scope

pages = Pages("live")
KEY = "imagefarm.pages.publisher"


def init_app(app: Flask) -> None:
    """Attach the open pages to the application."""
    app.extensions[KEY] = PagePublisher(app)


@pages.get("/live", scope=Scope.READ)
def live_stream() -> Response:
    """Open the stream of a page. Events: `page` with its title and live part, `job.progress` with the steps of its jobs,
    `changed`
    when the page should be fetched, `away` and `back` when Redis is lost and found, `beat` as a heartbeat.
    """
    publisher: PagePublisher = current_app.extensions[KEY]
    connection, texts = publisher.connect(request.args.get("at", ""))
    return stream(texts, partial(publisher.disconnect, connection))
