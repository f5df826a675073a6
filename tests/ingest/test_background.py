from __future__ import annotations

import asyncio
import sqlite3
from collections.abc import AsyncIterator
from pathlib import Path

import psutil
import pytest
from ingesting import Place, place, with_ingest

from headrace.config.options import Config
from headrace.errors import BadRequest, Overloaded, StorageError, UnknownItem
from headrace.ingest import jobs as jobs_module
from headrace.ingest.journal import Journal
from headrace.ingest.outcomes import Job, JobState, Upload, document_id
from headrace.ingest.uploads import safe_name, sources


@pytest.fixture
async def here(fast: Config, tmp_path: Path) -> AsyncIterator[Place]:
    async with place(with_ingest(fast, batch_texts=4), tmp_path / "in") as made:
        yield made


def slow(config: Config) -> Config:
    """The same with an embedder that takes 50 ms a batch."""
    model = config.models["echo-embedder"].model_copy(update={"source": "delay=0.05"})
    return config.model_copy(update={"models": {**config.models, "echo-embedder": model}})


def upload(folder: Path, name: str, text: str) -> Upload:
    path = folder / f"received-{abs(hash(name))}"
    path.write_text(text, encoding="utf-8")
    return Upload(name, path)


async def ended(here: Place, job: Job) -> Job:
    while not job.state.ended:
        await asyncio.sleep(0.01)
        job = await here.jobs.get(job.id)
    return job


async def begun(here: Place, job: Job) -> None:
    """Wait until some of its chunks are embedded."""
    while job.progress.chunks_done == 0:
        await asyncio.sleep(0.01)
        job = await here.jobs.get(job.id)


MANY = "\n\n".join(f"# Part {i}\n\nWheel {i} turns." for i in range(100))


async def test_uploads_become_documents_and_their_files_go(here: Place) -> None:
    async with here.jobs as jobs:
        files = [
            upload(here.folder, "章程/甲.md", "# 甲\n\n磨渠。"),
            upload(here.folder, "甲.md", "Other words."),
            upload(here.folder, "broken.pdf", "%PDF-1.7 nothing"),
        ]
        job = await jobs.submit("default", files, labels=["hr"])
        assert job.state is JobState.QUEUED
        job = await ended(here, job)
        assert job.state is JobState.DONE
        assert job.report is not None
        assert (job.report.added, job.report.skipped) == (2, 1)
        assert {file.source for file in job.report.files} == set(job.paths)
    document = here.index.document(document_id("upload:章程/甲.md"))
    assert document is not None
    assert document.parsed.text == "# 甲\n\n磨渠。"
    assert document.labels == ("hr",)
    assert not any(file.path.exists() for file in files)
    assert not list((here.config.data_dir / "uploads").iterdir())


async def test_the_same_name_again_replaces(here: Place) -> None:
    async with here.jobs as jobs:
        for text in ("First.", "Second."):
            job = await jobs.submit("default", [upload(here.folder, "a.md", text)])
            await ended(here, job)
    assert here.stored() == {"upload:a.md": "Second."}


async def test_a_running_job_can_be_watched_and_cancelled_and_resumed(
    fast: Config, tmp_path: Path
) -> None:
    async with place(with_ingest(slow(fast), batch_texts=4), tmp_path / "in") as here, here.jobs:
        job = await here.jobs.submit("default", [upload(here.folder, "a.md", MANY)])
        await begun(here, job)
        (listed,) = await here.jobs.list("default")
        assert listed.state is JobState.RUNNING
        assert await here.jobs.list("other") == []
        job = await here.jobs.cancel(job.id)
        assert job.state is JobState.CANCELLED
        assert here.stored() == {}
        assert (await here.jobs.cancel(job.id)).state is JobState.CANCELLED
        sent = len(here.models.texts)
        job = await ended(here, await here.jobs.resume(job.id))
        assert job.state is JobState.DONE
        assert set(here.stored()) == {"upload:a.md"}
        assert len(here.models.texts) - sent < 100  # what was staged is not embedded again
        with pytest.raises(BadRequest, match="nothing to resume"):
            await here.jobs.resume(job.id)


async def test_leaving_interrupts_and_a_new_process_resumes(fast: Config, tmp_path: Path) -> None:
    config = with_ingest(slow(fast), batch_texts=4)
    before = set(psutil.Process().children())
    async with place(config, tmp_path / "in") as here:
        async with here.jobs as jobs:
            first = await jobs.submit("default", [upload(here.folder, "a.md", MANY)])
            second = await jobs.submit("default", [upload(here.folder, "b.md", "B.")])
            await begun(here, first)
        assert set(psutil.Process().children()) <= before
    async with place(config, tmp_path / "in") as here, here.jobs as jobs:
        states = {job.id: job.state for job in await jobs.list()}
        assert states == {first.id: JobState.INTERRUPTED, second.id: JobState.INTERRUPTED}
        for job in (first, second):
            assert (await ended(here, await jobs.resume(job.id))).state is JobState.DONE
        assert set(here.stored()) == {"upload:a.md", "upload:b.md"}


async def test_a_queued_job_can_be_cancelled(fast: Config, tmp_path: Path) -> None:
    async with place(with_ingest(slow(fast), batch_texts=4), tmp_path / "in") as here, here.jobs:
        first = await here.jobs.submit("default", [upload(here.folder, "a.md", MANY)])
        second = await here.jobs.submit("default", [upload(here.folder, "b.md", "B.")])
        assert (await here.jobs.cancel(second.id)).state is JobState.CANCELLED
        assert (await ended(here, first)).state is JobState.DONE
        assert set(here.stored()) == {"upload:a.md"}


async def test_too_many_waiting_jobs_are_refused(
    here: Place, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(jobs_module, "MAX_QUEUED", 0)
    async with here.jobs as jobs:
        file = upload(here.folder, "a.md", "A.")
        with pytest.raises(Overloaded):
            await jobs.submit("default", [file])
        assert file.path.exists()


async def test_unknown_jobs_and_bad_uploads_are_refused(here: Place) -> None:
    async with here.jobs as jobs:
        with pytest.raises(UnknownItem, match="nope"):
            await jobs.get("nope")
        with pytest.raises(BadRequest, match="no file"):
            await jobs.submit("default", [])
        with pytest.raises(BadRequest, match="collection"):
            await jobs.submit("../x", [upload(here.folder, "a.md", "A.")])


@pytest.mark.parametrize(
    ("given", "name"),
    [
        ("a.md", "a.md"),
        ("../../etc/passwd", "etc/passwd"),
        ("C:\\texts\\甲.md", "C:/texts/甲.md"),
        ("/abs.md", "abs.md"),
        ("e\u0301.md", "\u00e9.md"),
    ],
)
def test_names_of_uploads_stay_below_their_folder(given: str, name: str) -> None:
    assert safe_name(given) == name


@pytest.mark.parametrize("given", ["", "..", "a\x00.md", "a\n.md", "/", "x" * 300])
def test_impossible_names_are_refused(given: str) -> None:
    with pytest.raises(BadRequest):
        safe_name(given)


def test_two_uploads_of_one_name_are_refused() -> None:
    with pytest.raises(BadRequest, match=r"a\.md"):
        sources([Upload("a.md", Path("1")), Upload("./a.md", Path("2"))])


def test_jobs_of_a_dead_process_are_interrupted(tmp_path: Path) -> None:
    path = tmp_path / "jobs.sqlite"
    journal = Journal(path)
    for name in ("dead", "mine"):
        journal.add(Job(id=name, collection="default", state=JobState.RUNNING, paths=("/x",)))
    journal.close()
    with sqlite3.connect(path) as db:
        db.execute("UPDATE jobs SET born = born - 1000 WHERE id = 'dead'")
    db.close()
    states = {job.id: job.state for job in journal.list()}
    assert states == {"dead": JobState.INTERRUPTED, "mine": JobState.RUNNING}
    journal.close()


async def test_old_jobs_are_forgotten(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("headrace.ingest.journal.KEPT_JOBS", 3)
    journal = Journal(tmp_path / "jobs.sqlite")
    for number in range(6):
        journal.add(Job(id=str(number), collection="a", state=JobState.DONE, paths=()))
    assert [job.id for job in journal.list()] == ["5", "4", "3"]
    journal.close()


async def test_a_journal_that_cannot_be_used_refuses_jobs_only(
    fast: Config, tmp_path: Path
) -> None:
    (tmp_path / "data" / "jobs.sqlite").mkdir(parents=True)
    async with place(fast, tmp_path / "in") as here, here.jobs as jobs:
        with pytest.raises(StorageError, match=r"jobs\.sqlite"):
            await jobs.submit("default", [upload(here.folder, "a.md", "A.")])
