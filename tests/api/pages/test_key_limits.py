"""The limits of a key hold for what its bearer sends by a form, as they do for REST."""

from __future__ import annotations

from imagefarm.auth import Scope, create_key
from tests.api.pages.conftest import Site

TABLE = "sku,prompt\nA-1,a red mug\n"


def test_every_form_that_submits_counts_against_the_key(site: Site) -> None:
    scopes = (Scope.SUBMIT, Scope.READ)
    made = create_key(site.app_context.store, name="forms", tenant="forms", scopes=scopes, limits={"images_per_day": 2})
    headers = {"Authorization": f"Bearer {made.key}", "Accept": "text/html"}
    launch = {"act": "launch", "name": "one row", "table": TABLE, "model": "demo"}
    first = site.http.post("/studio", data={"prompt": "a cup", "model": "demo"}, headers=headers)
    assert first.status_code == 303
    job_id = first.headers["Location"].rpartition("job=")[2].partition("&")[0]
    assert site.http.post("/batches", data=launch, headers=headers).status_code == 303
    site.render(site.claim(job_id))
    for path, form in (
        ("/studio", {"prompt": "another cup", "model": "demo"}),
        ("/studio", {"again": job_id, "as": "upscale"}),
        ("/batches", launch),
        (f"/jobs/{job_id}/replay", {}),
    ):
        refused = site.http.post(path, data=form, headers=headers)
        assert (refused.status_code, "this key may ask for 2 pictures a day" in refused.text) == (429, True), path
