"""The API over a real database and a real Redis, with a worker's part played through the scheduler's own functions."""

from __future__ import annotations

import hashlib
import re
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np
from flask import Flask
from flask.testing import FlaskClient
from werkzeug.test import TestResponse

from api.http.context import AppContext, app_context_of
from imagefarm.auth import Scope, create_key
from imagefarm.imaging.encode import encode_picture
from imagefarm.imaging.formats import extension
from imagefarm.imaging.metadata import text_chunks
from imagefarm.imaging.png import pixel_sha256
from imagefarm.output_store import image_key
from scheduler.queue import finish
from scheduler.queue.claim import ClaimedJob
from tests.small_farm import SmallFarm

JSON = "application/json"


@dataclass
class FarmApi:
    """What the tests of the API act on."""

    app: Flask
    keeps_cookies = False
    """A program keeps none, a browser does."""

    @cached_property
    def app_context(self) -> AppContext:
        return app_context_of(self.app)

    @cached_property
    def http(self) -> FlaskClient:
        return self.app.test_client(use_cookies=self.keeps_cookies)

    @cached_property
    def inside(self) -> SmallFarm:
        """The same farm from inside: claims and finishes as a worker does."""
        return SmallFarm(self.app_context.store, self.app_context.catalogue, self.app_context.settings, serves=["demo"])

    def submit(self, prompt: str = "a red mug", *, headers: dict[str, str] | None = None, **fields: Any) -> dict[str, Any]:
        response = self.http.post("/api/v1/jobs", json={"prompt": prompt, **fields}, headers=headers)
        assert response.status_code in {200, 202}, response.text
        return response.get_json()

    def get(self, path: str, **arguments: Any) -> Any:
        response = self.http.get(path, **arguments)
        assert response.status_code == 200, response.text
        return response.get_json()

    def key(self, tenant: str, *scopes: Scope) -> dict[str, str]:
        """The header of a new key."""
        made = create_key(self.app_context.store, name="test", scopes=scopes or (Scope.SUBMIT, Scope.READ), tenant=tenant)
        return {"Authorization": f"Bearer {made.key}"}

    def claim(self, job_id: str, owner: str = "worker_1") -> ClaimedJob:
        """Claim jobs until this one is claimed; jobs claimed before it are finished."""
        while True:
            jobs = self.inside.claim(owner, images=1)
            assert jobs, f"{job_id} cannot be claimed"
            if jobs[0].id == job_id:
                return jobs[0]
            self.render(jobs[0])

    def render(self, job: ClaimedJob) -> list[str]:
        """Write real pictures and commit them, as a worker does; return the images' ids."""
        images = []
        for index in range(job.count):
            seed = job.recipe.seed_of(index)
            pixels = np.random.default_rng(seed).integers(0, 255, (64, 64, 3), np.uint8)
            recipe, texts = job.recipe, text_chunks(job.id, index, job.recipe, seed, "d" * 64)
            data = encode_picture(pixels, texts, recipe.format, recipe.quality)
            key = image_key(job.id, index, job.attempt, extension(recipe.format))
            self.app_context.outputs.write(key, data)
            images.append(
                finish.FinishedImage(
                    index=index,
                    seed=seed,
                    storage_key=key,
                    format=recipe.format,
                    width=64,
                    height=64,
                    bytes=len(data),
                    sha256=hashlib.sha256(data).hexdigest(),
                    pixel_sha256=pixel_sha256(64, 64, pixels.tobytes()),
                    ms=1.0,
                    audit={"device": "cpu"},
                )
            )
        return finish.succeed(self.app_context.store, job, images, actual_s=0.1)

    def rendered(self, prompt: str = "a red mug", *, headers: dict[str, str] | None = None, **fields: Any) -> dict[str, Any]:
        """A job that has succeeded."""
        job_id = self.submit(prompt, headers=headers, **fields)["id"]
        self.render(self.claim(job_id))
        return self.get(f"/api/v1/jobs/{job_id}", headers=headers)


def problem(response: TestResponse, status: int) -> dict[str, Any]:
    """The problem that a response carries, checked for its form."""
    assert response.status_code == status, response.text
    assert response.mimetype == "application/problem+json"
    body = response.get_json()
    assert body["status"] == status
    assert body["type"].startswith("/problems/")
    assert body["title"]
    assert body["detail"]
    for error in body.get("errors", []):
        assert not re.search(r"constrained-|function-|literal\[", error["field"]), error  # of pydantic, no field
    assert body["instance"] == f"urn:imagefarm:{response.headers['X-Request-ID']}"
    return body
