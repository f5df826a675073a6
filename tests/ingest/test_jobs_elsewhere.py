"""Jobs of several processes over one data folder."""

from __future__ import annotations

import asyncio
import subprocess
import sys
from collections.abc import AsyncIterator
from pathlib import Path

import psutil
import pytest
from ingesting import Place, place, with_ingest, write

from headrace.config.options import Config
from headrace.errors import BadRequest
from headrace.ingest import jobs as jobs_module
from headrace.ingest.jobs import Jobs
from headrace.ingest.outcomes import Job, JobState, Upload

PATIENCE = 30.0
MANY = "\n\n".join(f"# Part {i}\n\nWheel {i} turns {i * 7} times a minute." for i in range(80))

# Another server process: takes an upload, says so, and works until it is killed or told to end.
OTHER = """
import asyncio, sys
from pathlib import Path
from headrace.config.options import Config
from headrace.ingest.jobs import Jobs
from headrace.ingest.outcomes import Upload
from headrace.retrieval.collections import Collections
from headrace.serving.catalogue import model_specs
from headrace.serving.local import LocalModels

async def main():
    config = Config.model_validate_json(sys.argv[1])
    collections = Collections(config.data_dir / "collections")
    async with Jobs(config, collections, LocalModels(model_specs(config))) as jobs:
        for path in sys.argv[2:]:
            job = await jobs.submit("default", [Upload(Path(path).name, Path(path))])
            print(job.id, flush=True)
        await asyncio.to_thread(sys.stdin.read)

asyncio.run(main())
"""


@pytest.fixture
async def here(fast: Config, tmp_path: Path) -> AsyncIterator[Place]:
    models = dict(fast.models)
    models["echo-embedder"] = models["echo-embedder"].model_copy(update={"source": "delay=0.5"})
    config = with_ingest(fast.model_copy(update={"models": models}), batch_texts=4)
    async with place(config, tmp_path / "in") as made:
        yield made


def elsewhere(here: Place, *texts: str) -> subprocess.Popen[str]:
    """A process that takes these texts as uploads, one job each."""
    paths = [here.folder / f"{number}.md" for number in range(len(texts))]
    for path, text in zip(paths, texts, strict=True):
        path.write_text(text, encoding="utf-8")
    return subprocess.Popen(
        [sys.executable, "-c", OTHER, here.config.model_dump_json(), *map(str, paths)],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    )


async def line(process: subprocess.Popen[str]) -> str:
    assert process.stdout is not None
    return (await asyncio.to_thread(process.stdout.readline)).strip()


async def reaches(jobs: Jobs, job_id: str, *states: JobState) -> Job:
    async with asyncio.timeout(PATIENCE):
        while True:
            job = await jobs.get(job_id)
            if job.state in states:
                return job
            await asyncio.sleep(0.02)


@pytest.mark.slow
async def test_any_process_cancels_a_job_that_runs_or_waits_in_another(here: Place) -> None:
    with elsewhere(here, MANY, "Short.") as other:
        async with here.jobs as jobs:
            first, second = await line(other), await line(other)
            await reaches(jobs, first, JobState.RUNNING)
            cancelled = await jobs.cancel(second)
            assert cancelled.state is JobState.CANCELLED
            assert (await jobs.cancel(first)).state is JobState.CANCELLED
            resumed = await jobs.resume(first)  # here; the word of before is forgotten
            done = await reaches(jobs, resumed.id, JobState.DONE, JobState.CANCELLED)
            assert done.state is JobState.DONE
        other.communicate("", timeout=PATIENCE)


@pytest.mark.slow
async def test_a_job_of_a_killed_process_is_interrupted_and_resumed_here(here: Place) -> None:
    with elsewhere(here, MANY) as other:
        job = await line(other)
        async with here.jobs as jobs:
            await reaches(jobs, job, JobState.RUNNING)
            family = psutil.Process(other.pid).children(recursive=True)
            other.kill()
            other.wait(PATIENCE)
            found = await reaches(jobs, job, JobState.INTERRUPTED, JobState.DONE)
            assert found.state is JobState.INTERRUPTED
            assert "ended before it did" in found.error
            psutil.wait_procs(family, timeout=PATIENCE)
            await jobs.resume(job)
            assert (await reaches(jobs, job, JobState.DONE)).report is not None
        other.communicate()


@pytest.mark.slow
async def test_a_job_waits_for_another_writer_of_its_collection(here: Place) -> None:
    write(here.folder, a="First.")
    await here.ingest()
    file = here.folder / "new.md"
    file.write_text("Second.", encoding="utf-8")
    async with here.jobs as jobs:
        with here.collections.writer("default"):
            job = await jobs.submit("default", [Upload("new.md", file)])
            await reaches(jobs, job.id, JobState.RUNNING)
            await asyncio.sleep(0.5)
            assert (await jobs.get(job.id)).state is JobState.RUNNING
        assert (await reaches(jobs, job.id, JobState.DONE, JobState.FAILED)).state is JobState.DONE
    assert here.stored()["upload:new.md"] == "Second."


async def test_a_process_that_does_not_listen_is_told_of(
    here: Place, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(jobs_module, "_ELSEWHERE_SECONDS", 0.3)
    write(here.folder, a=MANY)
    running = asyncio.create_task(here.ingest())  # as the command line runs it
    listed: list[Job] = []
    async with asyncio.timeout(PATIENCE):
        while not listed:
            await asyncio.sleep(0.02)
            listed = await here.jobs.list()
    with pytest.raises(BadRequest, match="another process"):
        await here.jobs.cancel(listed[0].id)
    assert await asyncio.to_thread(here.jobs._journal.cancellations) == set()
    running.cancel()
    await asyncio.wait([running])
