from __future__ import annotations

import asyncio
import os
import zipfile
from collections.abc import AsyncIterator
from itertools import pairwise
from pathlib import Path

import pytest
from ingesting import Place, place, with_ingest, write

from headrace.config.options import Config
from headrace.errors import BadRequest, Busy, ModelFailed, StorageError
from headrace.ingest.outcomes import FileOutcome, JobState, Progress, Report, document_id
from headrace.types import ALL_ACCESS, Filter

LONG = "\n\n".join(f"# Part {i}\n\nWheel {i} turns {i * 7} times a minute." for i in range(60))


@pytest.fixture
async def here(fast: Config, tmp_path: Path) -> AsyncIterator[Place]:
    async with place(with_ingest(fast, batch_texts=8), tmp_path / "文件") as made:
        yield made


def locked_pdf() -> bytes:
    """The example's PDF, made to ask for a password that nobody has."""
    examples = Path(__file__).parents[2] / "examples" / "docs"
    key = "00" * 32
    lock = f"/Encrypt << /Filter /Standard /V 1 /R 2 /O <{key}> /U <{key}> /P -44 >>"
    whole = (examples / "handbook-summary.pdf").read_bytes()
    return whole.replace(b"/Root", f"{lock} /ID [<{key}> <{key}>] /Root".encode())


def only(report: Report) -> FileOutcome:
    (outcome,) = report.files
    return outcome


async def test_files_become_documents_that_are_found(here: Place) -> None:
    write(here.folder, 章程="# 水\n\n磨渠每年三月停水清淤。", long=LONG)
    report = await here.ingest()
    assert (report.added, report.skipped, report.unaccounted) == (2, 0, 0)
    assert report.characters == sum(len(text) for text in here.stored().values())
    assert report.embedded == report.chunks == here.index.info().chunks
    source = (here.folder / "章程.md").as_posix()
    document = here.index.document(document_id(source))
    assert document is not None
    assert document.source == source
    found = here.index.get(
        {
            s.chunk_id: {"lexical": s.score}
            for s in here.index.search_lexical("停水清淤", 3, Filter())
        },
        Filter(),
    )
    assert found[0].document_id == document.id
    assert here.collections.verify("default").differences == ()


async def test_unchanged_files_are_skipped_and_cost_no_embedding(here: Place) -> None:
    write(here.folder, a=LONG, b="# B\n\nOther words.")
    await here.ingest()
    here.models.texts.clear()
    generation = here.index.generation()
    report = await here.ingest()
    assert (report.unchanged, report.added, report.files) == (2, 0, ())
    assert here.models.texts == []
    assert here.index.generation() == generation


async def test_a_changed_file_replaces_its_document_and_embeds_only_what_is_new(
    here: Place,
) -> None:
    write(here.folder, a=LONG)
    await here.ingest()
    here.models.texts.clear()
    write(here.folder, a=LONG + "\n\n# Last\n\nThe gate is shut.")
    report = await here.ingest()
    assert report.replaced == 1
    assert 1 <= len(here.models.texts) < 5
    assert "The gate is shut." in here.stored()["a.md"]
    assert here.index.info().documents == 1


async def test_other_settings_store_the_same_file_anew(here: Place) -> None:
    write(here.folder, a=LONG)
    await here.ingest()
    report = await here.jobs.run("default", [here.folder], labels=["hr"], metadata={"year": "2026"})
    assert report.replaced == 1
    assert report.embedded == 0
    (info,) = here.index.documents()
    assert info.labels == ("hr",)
    assert info.metadata["year"] == "2026"
    again = await here.jobs.run("default", [here.folder], labels=["hr"], metadata={"year": "2026"})
    assert again.unchanged == 1


async def test_a_forgotten_label_publishes_nothing(here: Place) -> None:
    write(here.folder, a=LONG)
    await here.jobs.run("default", [here.folder], labels=["hr"], metadata={"year": "2026"})
    assert (await here.ingest()).unchanged == 1
    write(here.folder, a=LONG + "\n\nChanged.", b="Another one.")
    report = await here.ingest()
    assert (report.added, report.replaced) == (1, 1)
    found = {Path(info.source).name: info for info in here.index.documents()}
    assert found["a.md"].labels == ("hr",)
    assert found["a.md"].metadata["year"] == "2026"
    assert found["b.md"].labels == ("public",)
    await here.jobs.run("default", [here.folder], labels=["public"])
    assert {info.labels for info in here.index.documents()} == {("public",)}


async def test_prune_removes_what_is_gone_below_the_paths_only(here: Place) -> None:
    below = here.folder / "below"
    below.mkdir()
    write(here.folder, stays="Stays.", goes="Goes.")
    write(below, goes_too="Goes, too.")
    await here.ingest()
    (here.folder / "goes.md").unlink()
    (below / "goes_too.md").unlink()
    report = await here.ingest(below)
    assert report.removed == 0
    report = await here.ingest(below, prune=True)
    assert report.removed == 1
    assert set(here.stored()) == {"stays.md", "goes.md"}
    report = await here.ingest(prune=True)
    assert only(report).outcome == "removed"
    assert set(here.stored()) == {"stays.md"}
    assert here.index.search_lexical("goes", 5, Filter(access=ALL_ACCESS)) == []


async def test_broken_files_do_not_stop_the_others(here: Place) -> None:
    write(here.folder, a_good="Good.", z_good="Good as well.")
    (here.folder / "empty.txt").touch()
    (here.folder / "binary.bin").write_bytes(os.urandom(4096))
    (here.folder / "broken.pdf").write_bytes(b"%PDF-1.7\n" + os.urandom(500))
    (here.folder / "broken.docx").write_bytes(b"PK\x03\x04" + os.urandom(500))
    (here.folder / "locked.pdf").write_bytes(locked_pdf())
    (here.folder / "blank.md").write_text(" \n\n \t\n")
    with zipfile.ZipFile(here.folder / "bomb.docx", "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("[Content_Types].xml", "<Types/>")
        archive.writestr("word/document.xml", b"<w>" + b" " * (80 << 20))
    (here.folder / "gone.md").symlink_to("nowhere.md")
    os.mkfifo(here.folder / "pipe.md")
    report = await here.ingest()
    assert set(here.stored()) == {"a_good.md", "z_good.md"}
    reasons = {
        outcome.source.rpartition("/")[2]: outcome.reason
        for outcome in report.files
        if outcome.outcome == "skipped"
    }
    assert set(reasons) == {
        *("empty.txt", "binary.bin", "broken.pdf", "broken.docx", "blank.md", "bomb.docx"),
        *("locked.pdf", "pipe.md"),
    }
    assert all(reasons.values())
    assert report.skipped == len(reasons)
    assert "regular file" in reasons["pipe.md"]
    assert "password" in reasons["locked.pdf"]


async def test_a_file_that_became_unreadable_keeps_its_last_version(here: Place) -> None:
    write(here.folder, a="Words.")
    await here.ingest()
    (here.folder / "a.md").write_bytes(b"")
    report = await here.ingest(prune=True)
    assert "the version ingested before stays" in only(report).reason
    assert here.stored() == {"a.md": "Words."}


async def test_a_file_above_the_size_limit_is_named(fast: Config, tmp_path: Path) -> None:
    async with place(with_ingest(fast, max_file_mib=1), tmp_path / "in") as here:
        (here.folder / "large.txt").write_bytes(b"words " * 400_000)
        report = await here.ingest()
        assert "ingest.max_file_mib" in only(report).reason


async def test_one_text_that_the_embedder_refuses_costs_one_document(here: Place) -> None:
    here.models.poison = "Wheel 31 "
    write(here.folder, bad=LONG, good="# Good\n\nNothing is wrong here.", other=LONG[:500])
    report = await here.ingest()
    assert set(here.stored()) == {"good.md", "other.md"}
    (skipped,) = (file for file in report.files if file.outcome == "skipped")
    assert "the engine choked" in skipped.reason


async def test_an_embedder_that_fails_on_all_texts_ends_the_job(here: Place) -> None:
    here.models.poison = ""
    write(here.folder, a=LONG)
    with pytest.raises(ModelFailed, match="choked"):
        await here.ingest()
    (job,) = await here.jobs.list()
    assert job.state is JobState.FAILED
    assert "choked" in job.error
    here.models.poison = "\0never"
    assert (await here.ingest()).added == 1


async def test_cancelling_leaves_the_index_whole_and_a_second_run_completes_it(
    here: Place,
) -> None:
    write(here.folder, **{f"file_{i:03}": f"{LONG}\n\nFile {i}." for i in range(40)})

    def stop(progress: Progress) -> None:
        if progress.files_done == 10:
            running.cancel()

    running = asyncio.create_task(here.jobs.run("default", [here.folder], progress=stop))
    with pytest.raises(asyncio.CancelledError):
        await running
    assert (await here.jobs.list())[0].state is JobState.CANCELLED
    stored = len(here.index.documents())
    assert 10 <= stored < 40
    assert here.collections.verify("default").differences == ()
    report = await here.ingest()
    assert (report.added, report.unchanged) == (40 - stored, stored)
    assert here.collections.verify("default").differences == ()


async def test_progress_reaches_the_end(here: Place) -> None:
    write(here.folder, a=LONG, b="B.")
    seen: list[Progress] = []
    await here.jobs.run("default", [here.folder], progress=seen.append)
    assert seen[-1].files_done == seen[-1].files_total == 2
    assert seen[-1].chunks_done == seen[-1].chunks_total > 2
    assert all(a.chunks_done <= b.chunks_done for a, b in pairwise(seen))


async def test_no_path_is_refused_by_name(here: Place) -> None:
    with pytest.raises(BadRequest, match=r"absent\.md"):
        await here.ingest(here.folder / "absent.md")


async def test_a_second_writer_is_refused(here: Place) -> None:
    write(here.folder, a="Words.")
    await here.ingest()
    with here.collections.writer("default"), pytest.raises(Busy) as caught:
        await here.ingest()
    assert caught.value.pid == os.getpid()


async def test_a_data_folder_that_cannot_be_written_is_named(fast: Config, tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    config = fast.model_copy(update={"data_dir": tmp_path / "file" / "data"})
    async with place(config, tmp_path / "in") as here:
        write(here.folder, a="Words.")
        with pytest.raises(StorageError, match="data"):
            await here.ingest()
