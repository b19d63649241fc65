"""`/live?at=PAGE`: the stream that every open page follows; it carries the page itself, anew after each change."""

from __future__ import annotations

from functools import partial

from flask import Blueprint, Flask, Response, current_app, request

from api.http.auth import authenticate, require
from api.http.context import current_app_context
from api.http.sse import stream
from api.pages.live.page_push import PagePublisher
from imagefarm.auth import Scope

pages = Blueprint("live", __name__)
KEY = "imagefarm.pages.publisher"


def init_app(app: Flask) -> None:
    """Keep the open pages of this process."""
    app.extensions[KEY] = PagePublisher(app)


@pages.get("/live")
def live_stream() -> Response:
    """Follow a page. `page` carries its title and the part that changes, `job.progress` the steps of the jobs that it shows,
    `changed` that it is to be fetched, `away` and `back` that Redis is lost and found.
    """
    require(authenticate(current_app_context()), Scope.READ)
    publisher: PagePublisher = current_app.extensions[KEY]
    connection, texts = publisher.connect(request.args.get("at", ""))
    return stream(texts, partial(publisher.disconnect, connection))
