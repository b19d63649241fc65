"""Every page of a site that has something to show on each: found by the routes, so that a new page is tested too."""

from __future__ import annotations

from scheduler.queue import finish
from scheduler.queue.retry import Failure, FailureClass
from tests.api.pages.conftest import Site

TABLE = "sku,product,background\n" + "".join(f"A-{number},a red mug,white background\n" for number in range(5))
NO_PAGE = (".zip", ".csv", ".json", ".webp")
"""Ends of addresses under pages that answer files."""


def seed(site: Site) -> dict[str, str]:
    """Jobs in every state, a batch with successes and a failure, a lane without a worker; values of the routes' parameters."""
    quote = f"/api/v1/batches?name=Spring%20catalogue&template={'{{ product }}, {{ background }}'}"
    batch = site.http.post(quote, data=TABLE, content_type="text/csv").get_json()["id"]
    rows = [item["id"] for item in site.get(f"/api/v1/jobs?batch={batch}")["items"]][::-1]
    for job in rows[:3]:
        site.render(site.claim(job))
    finish.fail(
        site.app_context.store,
        site.claim(rows[3]),
        Failure(FailureClass.INPUT, "bad_prompt", "names nothing"),
        site.app_context.settings,
    )
    done = site.rendered("a green bottle", count=2)
    site.submit("waits for weights", model="sdxl")
    cancelled = site.submit("not wanted any more")["id"]
    site.http.post(f"/api/v1/jobs/{cancelled}/cancel")
    site.submit("is being rendered")
    site.inside.claim("worker_1", images=1)
    return {"job_id": done["id"], "batch_id": batch, "image_id": done["images"][0]["id"], "worker_id": "worker_1"}


def addresses(site: Site, values: dict[str, str]) -> list[str]:
    """The address of every page, `/docs` included."""
    found = ["/docs"]
    for rule in site.app.url_map.iter_rules():
        if not rule.endpoint.startswith("pages_") or "GET" not in (rule.methods or ()) or rule.rule.endswith(NO_PAGE):
            continue
        missing = rule.arguments - values.keys()
        assert not missing, f"{rule.rule}: give tests/api/pages/every_page.py a value for {', '.join(missing)}"
        path = rule.rule
        for name in rule.arguments:
            path = path.replace(f"<{name}>", values[name])
        found.append(path)
    return sorted(found)
