"""The page on the REST API: its snippets, as they stand and in their order, against a running farm."""

from __future__ import annotations

import json
import re
import subprocess
from pathlib import Path

from imagefarm.settings import PROJECT_ROOT
from tests.e2e.up import Up, clean_environment

PAGE = (PROJECT_ROOT / "docs" / "api.md").read_text("utf-8")
SUBMIT, ERRORS, LIMITS, TENANT, LISTS, EVENTS = re.findall(r"^```sh\n(.*?)^```$", PAGE, re.MULTILINE | re.DOTALL)


def test_every_snippet(farm: Up, tmp_path: Path) -> None:
    def run(script: str) -> str:
        words = ["bash", "-euo", "pipefail", "-c", script]
        done = subprocess.run(words, cwd=tmp_path, env=clean_environment(FARM=farm.url), capture_output=True, text=True)
        assert done.returncode == 0, done.stdout + done.stderr
        return done.stdout

    run(SUBMIT)
    first, again = (json.loads((tmp_path / name).read_text()) for name in ("first.json", "again.json"))
    assert (first["state"], first["id"]) == ("succeeded", again["id"])
    refusal = json.loads(run(ERRORS))
    assert (refusal["status"], {error["field"] for error in refusal["errors"]}) == (422, {"steps", "colour"})
    limits, _, headers = run(LIMITS).partition("}RateLimit")
    told = json.loads(limits + "}")
    assert told["tenant"]["images_per_day"]["used"] >= 1
    assert re.search(r'Policy: "requests";q=30000;w=60\s+RateLimit: "requests";r=\d+;t=\d+', headers)
    assert json.loads(run(TENANT))["limits"] == {"queued": 50000}
    pages = [json.loads(line) for line in run(LISTS).splitlines()]
    assert pages[-1]["next_cursor"] is None
    assert first["id"] in {item["id"] for page in pages for item in page["items"]}
    events = run(EVENTS)
    assert events.index("event: job\n") < events.index("event: job.succeeded\n")
