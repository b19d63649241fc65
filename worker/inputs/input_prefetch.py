"""Input prefetch: decodes the photos of claimed jobs in another thread, so that the render thread does not wait for them."""

from __future__ import annotations

from concurrent.futures import Future, ThreadPoolExecutor

from imagefarm.output_store import OutputStore
from imagefarm.store import Store
from scheduler.queue.claim import ClaimedJob
from worker.inputs.input_images import NOTHING, Inputs, load_inputs


class InputPrefetcher:
    """The inputs of jobs that are claimed but not running. One thread must call `begin`, `take` and `forget`."""

    def __init__(self, store: Store, outputs: OutputStore) -> None:
        self._store = store
        self._outputs = outputs
        self._loading: dict[tuple[str, int], Future[Inputs]] = {}
        self._thread = ThreadPoolExecutor(1, thread_name_prefix="inputs")

    def begin(self, job: ClaimedJob) -> None:
        """Start to read a job's inputs, if it has any."""
        if job.recipe.assets:
            key = (job.id, job.attempt)
            self._loading[key] = self._thread.submit(load_inputs, self._store, self._outputs, job.recipe, job.tenant_id)

    def ready(self, job: ClaimedJob) -> bool:
        """Whether `take` would return at once."""
        loading = self._loading.get((job.id, job.attempt))
        return loading is None or loading.done()

    def take(self, job: ClaimedJob) -> Inputs:
        """Return a job's inputs; waits for them. Raises the errors of reading: RenderError, OSError, SQLAlchemyError."""
        loading = self._loading.pop((job.id, job.attempt), None)
        return NOTHING if loading is None else loading.result()

    def forget(self, job: ClaimedJob) -> None:
        """Discard the inputs of a job that will not run here."""
        loading = self._loading.pop((job.id, job.attempt), None)
        if loading is not None:
            loading.cancel()

    def close(self) -> None:
        """End the thread and cancel pending reads."""
        self._thread.shutdown(wait=True, cancel_futures=True)
