"""Another index for a collection: nothing is lost, nothing is mixed, nothing is done twice."""

from __future__ import annotations

import asyncio
import subprocess
import sys
import time
from collections.abc import AsyncIterator
from contextlib import closing
from pathlib import Path

import numpy as np
import pytest
from ingesting import Place, place, write
from reindexing import (
    CONFIGURED,
    OWNER,
    back,
    change,
    check,
    count,
    find,
    places,
    stored,
    two_embedders,
)

from headrace.config.options import CollectionOptions, Config
from headrace.errors import (
    BadRequest,
    Busy,
    ConfigError,
    ModelFailed,
    StorageError,
    UnknownCollection,
)
from headrace.ingest.outcomes import Progress
from headrace.ingest.reindex import Wanted, forget, kept, reindex
from headrace.ingest.stamps import Cut
from headrace.retrieval import derived
from headrace.retrieval.collections import Collections
from headrace.retrieval.embedded import EmbeddedIndex
from headrace.retrieval.sides import NEXT, PREVIOUS
from headrace.types import Filter


@pytest.fixture
async def here(fast: Config, tmp_path: Path) -> AsyncIterator[Place]:
    async with place(two_embedders(fast), tmp_path / "in") as made:
        texts = {f"f{i}": f"# Wheel {i}\n\nWheel {i} turns.\n\n# Same\n\nAll." for i in range(20)}
        write(made.folder, **texts)
        await made.ingest()
        made.models.texts.clear()
        yield made


async def test_vectors_embedder_and_dimensions_change_together(here: Place) -> None:
    before = await find(here)
    seen: list[Progress] = []
    done = await change(here, progress=seen.append)
    assert (done.before.embedder, done.after.embedder, done.after.dimensions) == (
        *("echo-embedder", "small"),
        32,
    )
    assert done.switched
    assert (done.documents, done.chunks) == (20, 40)
    assert done.embedded == len(set(here.models.texts)) - 1 == 40  # one is the question
    assert max(now.files_done for now in seen) == seen[0].files_total == 20
    await check(here, "small")
    after = await find(here)  # the configuration still names the other one
    assert after.hits[0].text == before.hits[0].text == "Wheel 7 turns."
    assert after.generation > before.generation


async def test_the_chunks_change_and_the_vectors_stay(here: Place) -> None:
    done = await change(here, "echo-embedder", Cut("plain", 32))
    assert {info.chunker for info in here.index.documents()} == {"plain"}
    assert done.chunks == here.index.info().chunks == 20
    await check(here, "echo-embedder")
    assert "All." in (await find(here)).hits[0].text
    assert (await here.ingest()).unchanged == 20


async def test_ingestion_goes_on_as_the_index_is(here: Place) -> None:
    await change(here, "small", Cut("plain", 32))
    assert (await here.ingest()).unchanged == 20
    write(here.folder, f3="# Wheel 3\n\nWheel 3 stands still.\n\n# More\n\nMore.", g="# Gate\n\nG.")
    report = await here.ingest()
    assert (report.replaced, report.added, report.unchanged) == (1, 1, 19)
    assert {info.chunker for info in here.index.documents()} == {"plain"}
    await check(here, "small")
    plain = {"default": CollectionOptions(chunker="headings")}
    config = here.config.model_copy(update={"collections": plain})
    async with place(config, here.folder) as now:  # the configuration is changed after all
        assert (await now.ingest()).replaced == 21
        assert {info.chunker for info in now.index.documents()} == {"headings"}
        await check(now, "small")


async def test_an_embedder_that_is_gone_is_named(here: Place) -> None:
    await change(here)
    models = {name: model for name, model in here.config.models.items() if name != "small"}
    async with place(here.config.model_copy(update={"models": models}), here.folder) as now:
        for work in (find(now), now.ingest()):
            with pytest.raises(ConfigError, match=r"'small'.*headrace collections reindex default"):
                await work


async def test_back_and_forth(here: Place) -> None:
    old = await find(here)
    await change(here, "small", Cut("plain", 32))
    assert kept(here.index)[PREVIOUS].embedder == "echo-embedder"
    here.models.texts.clear()
    done = await back(here)
    assert done.embedded == 0
    assert done.after.embedder == "echo-embedder"
    await check(here, "echo-embedder")
    assert [hit.text for hit in (await find(here)).hits] == [hit.text for hit in old.hits]
    assert (await here.ingest()).unchanged == 20
    assert (await back(here)).after.chunker == "plain"
    await check(here, "small")
    assert await forget(here.collections, "default") == {"previous": 40, "next": 0}
    assert kept(here.index) == {}
    with pytest.raises(BadRequest, match="no earlier index"):
        await back(here)
    _, _, texts = stored(here.index)
    assert count(here.index, "vectors") == len(set(texts))
    await check(here, "small")


async def test_what_changed_since_is_there_after_going_back(here: Place) -> None:
    await change(here)
    write(here.folder, f3="# Gate\n\nThe gate 3 stands open.", new="# New\n\nThe new gate.")
    (here.folder / "f4.md").unlink()
    await here.ingest(prune=True)
    await back(here)
    await check(here, "echo-embedder")
    texts = set(here.stored())
    assert "new.md" in texts
    assert "f4.md" not in texts
    found = await find(here, text="The gate 3 stands open")
    assert found.hits[0].text.endswith("The gate 3 stands open.")
    assert not any("f4.md" in hit.source for hit in (await find(here, text="wheel 4 turns")).hits)


class Meanwhile:
    """Does something when a reindexing has got so far."""

    def __init__(self, here: Place, after: int) -> None:
        self.task: asyncio.Task[object] | None = None
        self._here = here
        self._after = after

    async def work(self) -> None:
        here = self._here
        write(here.folder, f0="# Gate\n\nThe gate opens.", late="# Late\n\nThe late wheel.")
        await here.ingest()
        gone = [d.id for d in here.index.documents() if d.source.endswith(("f1.md", "f19.md"))]
        await asyncio.to_thread(here.index.delete, gone)
        assert len((await find(here)).hits) == 5

    def __call__(self, now: Progress) -> None:
        if now.files_done >= self._after and self.task is None:
            self.task = asyncio.create_task(self.work())


async def test_what_others_write_meanwhile_is_carried_over(fast: Config, tmp_path: Path) -> None:
    """Documents are added, changed and deleted by ordinary means while the new index is made."""
    config = two_embedders(fast, "0.02")
    async with place(config, tmp_path / "in") as here:
        write(here.folder, **{f"f{i}": f"# Wheel {i}\n\nWheel {i} turns." for i in range(20)})
        await here.ingest()
        meanwhile = Meanwhile(here, 4)
        done = await change(here, progress=meanwhile)
        assert meanwhile.task is not None
        await meanwhile.task
        await check(here, "small")
        texts = here.stored()
        assert texts["f0.md"] == "# Gate\n\nThe gate opens."
        assert {"f1.md", "f19.md"}.isdisjoint(texts)
        assert done.switched
        assert here.index.info().documents == 19
        assert (await find(here, text="The late wheel")).hits[0].text == "The late wheel."


async def test_comparing_before_switching(here: Place) -> None:
    seen: list[tuple[str, str]] = []

    async def compare(before: EmbeddedIndex, after: EmbeddedIndex) -> bool:
        old, new = await find(here, before), await find(here, after)
        assert old.hits[0].text == "Wheel 7 turns."
        assert new.hits[0].text == "# Wheel 7\n\nWheel 7 turns.\n\n# Same\n\nAll."
        seen.append((before.embedder().name, after.embedder().name))
        reader = Filter(frozenset({"nobody"}))
        assert after.search_lexical("wheel", 5, reader) == []
        return False

    done = await change(here, "small", Cut("plain", 32), compare=compare)
    assert seen == [("echo-embedder", "small")]
    assert not done.switched
    assert (done.documents, done.chunks) == (20, 20)
    await check(here, "echo-embedder")
    assert kept(here.index)[NEXT].embedder == "small"
    again = await change(here, "small", Cut("plain", 32))
    assert (again.switched, again.embedded) == (True, 0)
    await check(here, "small")


async def test_a_refused_passage_leaves_all_as_it_was(here: Place) -> None:
    before = await find(here)
    here.models.poison = "Wheel 4 turns"
    with pytest.raises(ModelFailed, match=r"f4\.md.*choked"):
        await change(here)
    assert (await find(here)).hits == before.hits
    here.models.poison = "\0never"
    done = await change(here)
    assert done.embedded == 1
    await check(here, "small")


async def test_other_settings_start_afresh(here: Place) -> None:
    here.models.poison = "Wheel 4 turns"
    with pytest.raises(ModelFailed):
        await change(here)
    here.models.poison = "\0never"
    await change(here, "echo-embedder", Cut("plain", 32))
    await check(here, "echo-embedder")
    _, _, texts = stored(here.index)
    await forget(here.collections, "default")
    assert count(here.index, "vectors") == len(set(texts))


async def test_who_may_not(here: Place) -> None:
    with pytest.raises(UnknownCollection):
        await reindex(places(here), "nope", Wanted("small", CONFIGURED, CONFIGURED))
    with pytest.raises(BadRequest, match="no chunker 'odd'"):
        await change(here, cut=Cut("odd", 400))
    errors: list[BaseException] = []

    async def twice(before: EmbeddedIndex, after: EmbeddedIndex) -> bool:
        try:
            await change(here)
        except Busy as error:
            errors.append(error)
        return True

    await change(here, compare=twice)
    assert len(errors) == 1


async def test_a_writer_is_waited_for(here: Place) -> None:
    other = Collections(here.collections.folder)
    with other.writer("default"):
        changing = asyncio.create_task(change(here))
        while len(here.models.texts) < 40:  # noqa: ASYNC110
            await asyncio.sleep(0.01)
        assert (await find(here)).hits
        assert here.index.embedder().name == "echo-embedder"
    other.close()
    assert (await changing).switched
    await check(here, "small")


async def test_a_side_that_is_not_complete_is_not_taken(here: Place) -> None:
    await change(here)
    write(here.folder, more="# More\n\nMore.")
    await here.ingest()
    before = stored(here.index)
    settings = kept(here.index)[PREVIOUS]
    with pytest.raises(StorageError, match="does not hold every document"):
        here.index.exchange(PREVIOUS, settings)
    after = stored(here.index)
    assert after[0] == before[0]
    np.testing.assert_array_equal(after[1], before[1])
    assert here.collections.verify("default").ok


async def test_an_empty_collection_changes_too(here: Place) -> None:
    here.index.delete([info.id for info in here.index.documents()])
    assert (await change(here)).chunks == 0
    assert here.index.embedder().name == "small"


async def test_a_search_that_began_before_the_switch_finds_what_it_saw(here: Place) -> None:
    """Its snapshot is of the old index; the texts are fetched after the switch."""
    old = here.index.snapshot()
    seen = old.search_lexical("wheel 7 turns", 5, OWNER)
    await change(here, "small", Cut("plain", 32))
    hits = here.index.get({found.chunk_id: {"lexical": found.score} for found in seen}, OWNER)
    assert hits[0].text == "Wheel 7 turns."


# Other processes ---------------------------------------------------------------------------------

_READ = """
import asyncio, sys
from headrace.serving.catalogue import model_specs
from headrace.config.options import Config
from headrace.retrieval.collections import Collections
from headrace.retrieval.search import search
from headrace.serving.local import LocalModels
from headrace.types import ALL_ACCESS, Filter

async def main():
    config = Config.model_validate_json(sys.argv[1])
    index = Collections(config.data_dir / "collections").open("default")
    models = LocalModels(model_specs(config))
    more = dict(options=config.retrieval, where=Filter(access=ALL_ACCESS), k=40)
    while True:
        found = await search(index, models, "echo-embedder", "f7 Wheel 7 turns.", **more)
        best = max(found.hits, key=lambda hit: hit.scores.get("dense", -1.0))
        print(len(found.hits), f"{best.scores['dense']:.1f}", best.text, flush=True)

asyncio.run(main())
"""


async def test_a_reading_process_sees_the_old_or_the_new_and_no_gap(
    here: Place, monkeypatch: pytest.MonkeyPatch
) -> None:
    """With FAISS files on both sides. The passage asked for has a cosine of 1 with the vectors of
    the same embedder only; the new index has other vectors, other chunks and fewer of them."""
    monkeypatch.setattr(derived, "FLAT_ROWS", 10)
    here.collections.rebuild("default")
    old = b"40 1.0 Wheel 7 turns.\n"
    command = [sys.executable, "-c", _READ, here.config.model_dump_json()]
    reader = await asyncio.create_subprocess_exec(*command, stdout=subprocess.PIPE)
    assert reader.stdout is not None
    lines = [await reader.stdout.readline()]
    changing = asyncio.create_task(change(here, cut=Cut("headings", 400)))
    while not changing.done():
        lines.append(await reader.stdout.readline())
    await changing
    lines += [await reader.stdout.readline() for _ in range(5)]
    reader.kill()
    await reader.communicate()
    assert set(lines) == {old}  # the vectors are of 32 dimensions now, and as near as before
    assert here.index.embedder().name == "small"


_CHANGE = """
import asyncio, sys
from headrace.serving.catalogue import model_specs
from headrace.config.options import Config
from headrace.ingest.reindex import Places, Wanted, reindex
from headrace.ingest.stamps import Cut
from headrace.retrieval.collections import Collections
from headrace.serving.local import LocalModels

async def main():
    config = Config.model_validate_json(sys.argv[1])
    collections = Collections(config.data_dir / "collections")
    models = LocalModels(model_specs(config))
    tell = lambda now: print(now.files_done, flush=True)
    cut = Cut("auto", 400)
    wanted = Wanted("small", cut, cut)
    await reindex(Places(collections, models, 4), "default", wanted, progress=tell, anew=True)

asyncio.run(main())
"""


def killed_after(config: Config, documents: int, seconds: float = 0.0) -> None:
    """Start a change, and kill it when that many documents are done and some time has passed."""
    command = [sys.executable, "-c", _CHANGE, config.model_dump_json()]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        next(line for line in process.stdout if int(line) >= documents)
        time.sleep(seconds)
        process.kill()


@pytest.mark.slow
async def test_killed_in_the_middle(fast: Config, tmp_path: Path) -> None:
    """Killed again and again, each run goes on where the last one was; searches with the old
    embedder go on until the switch."""
    config = two_embedders(fast, "0.05")
    async with place(config, tmp_path / "in") as here:
        write(here.folder, **{f"f{i}": f"# Wheel {i}\n\nWheel {i} turns." for i in range(60)})
        await here.ingest()
        made = 0
        for _ in range(3):
            await asyncio.to_thread(killed_after, config, made + 8)
            assert (await find(here)).hits[0].text == "Wheel 7 turns."
            assert made < count(here.index, "side_documents") < 60
            made = count(here.index, "side_documents")
        staged = count(here.index, "vectors") - 60
        done = await change(here)
        assert done.embedded == 60 - staged
        await check(here, "small")


@pytest.mark.slow
async def test_killed_during_the_switch(fast: Config, tmp_path: Path) -> None:
    """Everything is there, so the process is killed somewhere in the switch or after it: what
    another process then finds is all old or all new."""
    async with place(two_embedders(fast), tmp_path / "in") as here:
        texts = "\n\n".join(f"# Part {i}\n\nWheel {i} turns." for i in range(1500))
        write(here.folder, long=texts)
        await here.ingest()
        for delay in (0.0, 0.02, 0.05, 0.1, 0.2, 0.4):
            await asyncio.to_thread(killed_after, here.config, 1, delay)
            held, vectors, embedded = stored(here.index)
            fresh = await here.models.embed(held.name, embedded, "passage")
            np.testing.assert_allclose(vectors, fresh, atol=1e-3)
            assert here.collections.verify("default").differences == ()
            assert len((await find(here)).hits) == 5
        await change(here)
        await check(here, "small")
        with closing(here.index.side(PREVIOUS)) as beside:
            assert len((await find(here, beside)).hits) == 5
