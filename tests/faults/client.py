"""A client that keeps its own list of what the farm has promised it: the ids of its 2xx answers."""

from __future__ import annotations

import threading
import time
import uuid
from collections.abc import Iterable
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, field
from typing import Any

import httpx

ANSWER_TIMEOUT_S = 90.0


@dataclass
class Promises:
    """Accepted submits: jobs with their number of images, batches with their number of jobs."""

    jobs: dict[str, int] = field(default_factory=dict)
    batches: dict[str, int] = field(default_factory=dict)
    refused: list[str] = field(default_factory=list)
    """Final refusals, and refusals of requests whose retries timed out."""
    must_fail: dict[str, str] = field(default_factory=dict)
    """Jobs that must fail, with the error code."""
    may_cancel: set[str] = field(default_factory=set)
    """Jobs with a cancel request."""
    judged: set[str] = field(default_factory=set)
    """Jobs that an earlier verdict has counted; they are checked again."""


class Client:
    """Submits like a careful program: each request has an Idempotency-Key and is repeated until it gets a response."""

    def __init__(self, url: str, promises: Promises | None = None) -> None:
        self.promises = promises or Promises()
        self.outages: list[tuple[float, float]] = []
        """Spans (monotonic) from the start of a request that failed to its answer."""
        self._http = httpx.Client(base_url=url, timeout=10, trust_env=False)
        self._threads = ThreadPoolExecutor(4, thread_name_prefix="client")
        self._asked: list[Future[Any]] = []
        self._lock = threading.Lock()

    def submit(self, requests: Iterable[dict[str, Any]], *, every_s: float = 0.0) -> None:
        """Begin to submit these jobs, one request each, `every_s` seconds apart."""
        now = time.monotonic()
        self._asked += [
            self._threads.submit(self._submit_job, request, now + number * every_s) for number, request in enumerate(requests)
        ]

    def submit_now(self, request: dict[str, Any]) -> str:
        """Submit one job and return its id; "" if it was refused."""
        return self._submit_job(request, 0.0)

    def cancel(self, job_id: str) -> int:
        """Ask for a job's end; return the answer's status. 409: it had ended by itself."""
        self.promises.may_cancel.add(job_id)
        return self._http.post(f"/api/v1/jobs/{job_id}/cancel").status_code

    def cancel_all(self, wanted: dict[str, Any]) -> int:
        """Cancel all that match, as a careful program does: look, ask with that number, repeat until answered; without a key,
        for asking again does no harm. Return how many the last answer says were changed.
        """
        path = "/api/v1/jobs/cancel"
        looked = self._post(path, key=False, json=wanted)
        answer = self._post(path, key=False, json=wanted | {"expected": (looked or {}).get("matched", 0)})
        return int((answer or {}).get("changed", 0))

    def submit_table(self, prompts: list[str]) -> None:
        """Begin to submit these prompts as one batch."""
        table = "name\n" + "".join(f"{prompt}\n" for prompt in prompts)
        self._asked.append(self._threads.submit(self._submit_batch, table, len(prompts)))

    def wait(self) -> None:
        """Wait until every request is answered."""
        for future in self._asked:
            future.result()
        self._asked.clear()

    def failed_s(self) -> float:
        """Seconds in which some request was failing."""
        total, end = 0.0, 0.0
        for since, until in sorted(self.outages):
            total += max(0.0, until - max(since, end))
            end = max(end, until)
        return total

    def close(self) -> None:
        self._threads.shutdown(cancel_futures=True)
        self._http.close()

    def _submit_job(self, request: dict[str, Any], at: float) -> str:
        time.sleep(max(0.0, at - time.monotonic()))
        answer = self._post("/api/v1/jobs", json=request)
        if answer is None:
            return ""
        with self._lock:
            self.promises.jobs[answer["id"]] = answer["count"]
        return str(answer["id"])

    def _submit_batch(self, table: str, rows: int) -> None:
        answer = self._post(
            "/api/v1/batches?model=demo&template=a%20%7B%7B%20name%20%7D%7D",
            content=table,
            headers={"Content-Type": "text/csv"},
        )
        if answer is not None:
            with self._lock:
                self.promises.batches[answer["id"]] = rows

    def _post(self, path: str, *, headers: dict[str, str] | None = None, key: bool = True, **body: Any) -> dict[str, Any] | None:
        """Post until there is an answer; None if it was no."""
        headers = {**({"Idempotency-Key": str(uuid.uuid4())} if key else {}), **(headers or {})}
        began = time.monotonic()
        failed_since: float | None = None
        trouble = ""
        while time.monotonic() - began < ANSWER_TIMEOUT_S:
            asked = time.monotonic()
            try:
                response = self._http.post(path, headers=headers, **body)
            except httpx.TransportError as error:
                trouble = repr(error)
            else:
                if response.is_success:
                    if failed_since is not None:
                        self.outages.append((failed_since, time.monotonic()))
                    return dict(response.json())
                trouble = f"{response.status_code} {response.text[:300]}"
                if response.status_code < 500 and response.status_code not in (409, 429):
                    break
            failed_since = asked if failed_since is None else failed_since
            time.sleep(0.2)
        self.promises.refused.append(trouble)
        return None
