"""The prompt routes: a suggestion in the prompt's language, presets for a model, refusals by name."""

from tests.api.farm_api import FarmApi, problem


def test_a_prompt_is_enhanced_and_kept(api: FarmApi) -> None:
    answer = api.http.post("/api/v1/prompts/enhance", json={"prompt": "一枚金戒指"}).get_json()
    assert (answer["kind"], answer["language"], len(answer["additions"])) == ("jewellery", "zh", 4)
    assert answer["enhanced"].startswith("一枚金戒指，")
    assert answer["prompt"] == "一枚金戒指"


def test_kinds_follow_the_model(api: FarmApi) -> None:
    items = {item["name"]: item for item in api.get("/api/v1/prompts/kinds?model=z-image")["items"]}
    assert (items["packshot"]["steps"], items["packshot"]["guidance"]) == (30, 4.0)
    assert items["jewellery"]["steps"] == 45
    assert api.get("/api/v1/prompts/kinds")["items"][0]["guidance"] == 0


def test_what_is_wrong_is_named(api: FarmApi) -> None:
    for body, field in (
        ({"prompt": " "}, "prompt"),
        ({"prompt": "x", "kind": "moon"}, "kind"),
        ({"prompt": "x", "variant": 100}, "variant"),
    ):
        errors = problem(api.http.post("/api/v1/prompts/enhance", json=body), 422)["errors"]
        assert [error["field"] for error in errors] == [field]
    problem(api.http.get("/api/v1/prompts/kinds?model=moon"), 422)


def test_a_job_s_pictures_come_as_one_zip(api: FarmApi) -> None:
    import io
    import zipfile

    job = api.rendered("zipped", count=3)
    response = api.http.get(f"/api/v1/jobs/{job['id']}/archive.zip")
    assert response.mimetype == "application/zip"
    names = sorted(zipfile.ZipFile(io.BytesIO(response.data)).namelist())
    assert len(names) == 4
    assert "manifest.csv" in names
    assert api.http.get("/api/v1/jobs/job_00000000000000000000000000/archive.zip").status_code == 404
