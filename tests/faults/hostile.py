"""Jobs that harm their worker, devices that fail, weights that are broken. Neighbours must not suffer."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any

from sqlalchemy import select

from imagefarm.settings import PROJECT_ROOT
from imagefarm.states import JobState
from imagefarm.store.models import Attempt
from tests.faults.farm import FaultFarm
from tests.faults.run import Fault, Run

DEADLY = ("abort", "segfault", "exit", "memory")
LIMIT_GIB = 1.0


def poison(run: Run) -> None:
    """one job aborts, segfaults, exits or is killed by the kernel for its memory, each time it runs: poison after three deaths"""
    _hostile(run, run.random.choice(DEADLY), "poison")


def aborts(run: Run) -> None:
    """one job aborts its process each time it runs: poison after three deaths"""
    _hostile(run, "abort", "poison", reason="SIGABRT")


def segfaults(run: Run) -> None:
    """one job segfaults each time it runs: poison after three deaths"""
    _hostile(run, "segfault", "poison", reason="SIGSEGV")


def eats_memory(run: Run) -> None:
    """one job allocates memory without end: worker_memory_limit_gib ends its child; poison after three deaths"""
    _hostile(run, "memory", "poison", reason="GiB of memory")


def endless_loop(run: Run) -> None:
    """one job never ends its step: the child exits at its step deadline (here 12 s); poison after three deaths"""
    _hostile(run, "loop", "poison", reason="hung")


def silent_hang(run: Run) -> None:
    """a job's native code hangs and keeps the interpreter's lock: its parent ends the child (here after 6 s), thrice: poison"""
    _hostile(run, "grip", "poison", reason="hung: its liveness counter stopped")


def not_a_number(run: Run) -> None:
    """one job's latents become NaN: it is rendered once more in float32, then fails; no image with NaN succeeds"""
    _hostile(run, "nan", "nan_output")


def out_of_memory(run: Run) -> None:
    """the device runs out of memory when over two images share a pass with a certain job: smaller passes succeed"""
    run.submit(run.jobs - 1)
    run.wait_for_moment()
    run.client.submit_now(run.request(prompt="hostile: oom", count=3))


def device_fails(run: Run) -> None:
    """the device reports an error that only a new process clears"""
    run.farm.lay("device", "raise", after=run.random.randint(0, run.jobs))
    run.submit()
    run.wait_for_point("device")
    run.begin()


def corrupt_weights(run: Run) -> None:
    """a model with truncated files or flipped bytes receives jobs beside a good model"""
    weights = run.farm.folder / "broken" / "transformer" / "diffusion_pytorch_model.safetensors"
    shutil.copy(PROJECT_ROOT / "models/demo/transformer" / weights.name, weights)
    with weights.open("r+b") as file:
        if run.random.random() < 0.5:
            file.truncate(run.random.randrange(8, weights.stat().st_size))
        else:
            file.write(run.random.randbytes(64))  # the header
    run.submit(run.jobs - 3)
    run.begin()
    for _ in range(3):
        job_id = run.client.submit_now(run.request(model="broken"))
        run.client.promises.must_fail[job_id] = "model_invalid"


def _hostile(run: Run, harm: str, error: str, *, reason: str = "") -> None:
    run.notes["harm"] = harm
    run.submit(run.jobs - 1)
    run.wait_for_moment()
    job_id = run.client.submit_now(run.request(prompt=f"hostile: {harm}", priority="interactive", steps=8))
    run.client.promises.must_fail[job_id] = error
    run.farm.wait_until(lambda: run.farm.job(job_id).state == JobState.FAILED, 120, f"the {harm} job has failed")
    run.notes["crashes"] = run.farm.job(job_id).crashes
    with run.farm.store.read() as session:
        reasons = [text or "" for text in session.scalars(select(Attempt.reason).where(Attempt.job_id == job_id))]
    # on a busy machine a lease may expire while memory is allocated
    known = any if harm == "memory" else all
    # a kill from outside is weaker evidence if other workers died shortly before, as in the previous run: it then takes twice as
    # many
    enough = (3, 6) if harm == "memory" and not reason else (3,)
    if not known(reason in text for text in reasons) or (error == "poison" and len(reasons) not in enough):
        run.flaws.append(f"the attempts of the {harm} job ended with {reasons}")


def farm_with_a_broken_model(folder: Path, **settings: Any) -> FaultFarm:
    """A farm whose catalogue has the demo model twice, the second time in a folder that a run may damage."""
    shutil.copytree(PROJECT_ROOT / "models/demo", folder / "broken")
    text = (PROJECT_ROOT / "models.toml").read_text("utf-8")
    demo = text[text.index("[models.demo]") : text.index("[models.z-image-turbo]")]
    good = demo.replace('source = "models/demo"', f'source = "{PROJECT_ROOT / "models/demo"}"')
    broken = demo.replace("[models.demo]", "[models.broken]").replace('source = "models/demo"', f'source = "{folder / "broken"}"')
    (folder / "models.toml").write_text(f'default = "demo"\n{good}\n{broken}', "utf-8")
    return FaultFarm(folder, models_file=folder / "models.toml", worker_models=["demo", "broken"], **settings)


FAULTS = [
    Fault("poison-job", poison),
    Fault("job-aborts", aborts),
    Fault("job-segfaults", segfaults),
    Fault("job-eats-memory", eats_memory, farm={"worker_memory_limit_gib": LIMIT_GIB}),
    Fault("endless-loop", endless_loop, farm={"constants": {"worker.process.step_deadline": {"MAX_STEP_S": 12.0}}}),
    Fault("silent-hang", silent_hang, farm={"lease_s": 12.0, "constants": {"worker.process.liveness": {"STALL_TIMEOUT_S": 6.0}}}),
    Fault("nan-latents", not_a_number, needs_engine=True),
    Fault("out-of-memory", out_of_memory, needs_engine=True),
    Fault("device-error", device_fails, needs_engine=True),
    Fault("corrupt-weights", corrupt_weights, needs_engine=True, build=farm_with_a_broken_model),
]
