"""`/live?at=PAGE`: the stream that every open page follows; it carries the page itself, anew after each change."""

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
    """Keep the open pages of this process."""
    app.extensions[KEY] = PagePublisher(app)


@pages.get("/live", scope=Scope.READ)
def live_stream() -> Response:
    """Follow a page. `page` carries its title and the part that changes, `job.progress` the steps of the jobs that it shows,
    `changed` that it is to be fetched, `away` and `back` that Redis is lost and found,
    `beat` that the stream is alive.
    """
    publisher: PagePublisher = current_app.extensions[KEY]
    connection, texts = publisher.connect(request.args.get("at", ""))
    return stream(texts, partial(publisher.disconnect, connection))
