"""Another embedder for a collection: nothing is lost, nothing is mixed, nothing is done twice."""

from __future__ import annotations

import asyncio
import subprocess
import sys
import time
from collections.abc import AsyncIterator
from pathlib import Path

import numpy as np
import pytest
from ingesting import Place, place, with_ingest, write

from headrace.config.model_options import ModelOptions
from headrace.config.options import CollectionOptions, Config
from headrace.errors import Busy, ConfigError, ModelFailed, StorageError, UnknownCollection
from headrace.ingest.reembed import Reembedded, reembed
from headrace.retrieval import derived
from headrace.retrieval.base import embedding_text
from headrace.retrieval.collections import Collections
from headrace.retrieval.embedded import EmbeddedIndex
from headrace.retrieval.rows import Embedder, read_chunks, read_vectors
from headrace.retrieval.search import search
from headrace.types import ALL_ACCESS, Filter, Role, SearchResult

OWNER = Filter(access=ALL_ACCESS)


def embedder(source: str) -> ModelOptions:
    return ModelOptions(role=Role.EMBEDDER, engine="echo", source=source)


def two_embedders(config: Config, delay: str = "") -> Config:
    """`echo-embedder` of 64 dimensions and `small` of 32; batches of four texts."""
    small = f"delay={delay},dimensions=32" if delay else "dimensions=32"
    models = {**config.models, "small": embedder(small)}
    return with_ingest(config.model_copy(update={"models": models}), batch_texts=4)


@pytest.fixture
async def here(fast: Config, tmp_path: Path) -> AsyncIterator[Place]:
    async with place(two_embedders(fast), tmp_path / "in") as made:
        texts = {f"f{i}": f"# Wheel {i}\n\nWheel {i} turns.\n\n# Same\n\nAll." for i in range(20)}
        write(made.folder, **texts)
        await made.ingest()
        made.models.texts.clear()
        yield made


async def change(here: Place, to: str = "small", **more: object) -> Reembedded:
    return await reembed(
        here.collections,
        here.models,
        "default",
        to,
        batch_texts=4,
        **more,  # type: ignore[arg-type]
    )


async def find(here: Place, model: str, index: EmbeddedIndex | None = None) -> SearchResult:
    return await search(
        index or here.index,
        here.models,
        model,
        "wheel 7 turns",
        options=here.config.retrieval,
        where=OWNER,
        k=5,
    )


def stored(index: EmbeddedIndex) -> tuple[Embedder, np.ndarray, list[str]]:
    """The embedder, and every chunk's vector and embedded text."""
    held = index.embedder()
    with index.reading() as db:
        _, vectors = read_vectors(db, 0, 1 << 40, held.dimensions)
        texts = [embedding_text(c.path, c.text) for c in read_chunks(db, 0, 1 << 40)]
    return held, vectors, texts


async def check(here: Place, model: str) -> None:
    """All vectors are the model's, no others are kept, and searches find with them."""
    held, vectors, texts = stored(here.index)
    info = await here.models.info(model)
    assert held == Embedder(model, info.fingerprint, info.dimensions)
    fresh = await here.models.embed(model, texts, "passage")
    np.testing.assert_allclose(vectors, fresh, atol=1e-3)
    assert count(here.index, "vectors") == len(set(texts))
    assert here.collections.verify("default").differences == ()
    assert len((await find(here, model)).hits) == 5


async def test_vectors_embedder_and_dimensions_change_together(here: Place) -> None:
    before = await find(here, "echo-embedder")
    with pytest.raises(ConfigError, match="headrace collections rebuild default --embed"):
        await find(here, "small")
    here.models.texts.clear()
    seen: list[tuple[int, int]] = []
    done = await change(here, progress=lambda done, total: seen.append((done, total)))
    assert (done.before, done.embedder, done.dimensions) == ("echo-embedder", "small", 32)
    assert done.chunks == here.index.info().chunks == 40
    assert done.embedded == len(here.models.texts) == len(set(here.models.texts))
    assert seen[-1] == (40, 40)
    assert seen == sorted(seen)
    await check(here, "small")
    after = await find(here, "small")
    assert after.hits[0].text == before.hits[0].text == "Wheel 7 turns."
    assert after.generation > before.generation
    with pytest.raises(ConfigError, match="'small'"):
        await find(here, "echo-embedder")


async def test_ingestion_goes_on_with_the_new_embedder(here: Place) -> None:
    await change(here)
    with pytest.raises(ConfigError, match="--embed"):
        await here.ingest()
    defaults = here.config.defaults.model_copy(update={"embedder": "small"})
    async with place(here.config.model_copy(update={"defaults": defaults}), here.folder) as now:
        assert (await now.ingest()).unchanged == 20
        write(now.folder, f3="# Wheel 3\n\nWheel 3 stands still.")
        report = await now.ingest()
        assert (report.replaced, report.unchanged, report.embedded) == (1, 19, 1)
        await check(now, "small")


async def test_a_refused_passage_leaves_all_as_it_was(here: Place) -> None:
    before = await find(here, "echo-embedder")
    here.models.poison = "Wheel 4 turns"
    with pytest.raises(ModelFailed, match=r"f4\.md.*choked"):
        await change(here)
    assert (await find(here, "echo-embedder")).hits == before.hits
    here.models.poison = "\0never"
    done = await change(here)
    assert done.embedded == 1
    await check(here, "small")


async def test_back_and_forth_and_to_the_same(here: Place) -> None:
    await change(here)
    await change(here, "echo-embedder")
    await check(here, "echo-embedder")
    done = await change(here, "echo-embedder")
    assert done.embedded == 0
    await check(here, "echo-embedder")


async def test_who_may_not(here: Place) -> None:
    with pytest.raises(UnknownCollection):
        await reembed(here.collections, here.models, "nope", "small", batch_texts=4)
    other = Collections(here.collections.folder)
    with other.writer("default"), pytest.raises(Busy):
        await change(here)
    other.close()


async def test_a_missing_vector_changes_nothing(here: Place) -> None:
    before = stored(here.index)
    with pytest.raises(StorageError, match="not every chunk has a vector"):
        here.index.change_embedder(Embedder("small", "echo-1:32", 32))
    after = stored(here.index)
    assert after[0] == before[0]
    np.testing.assert_array_equal(after[1], before[1])
    assert here.collections.verify("default").ok


async def test_an_empty_collection_changes_too(here: Place) -> None:
    here.index.delete([info.id for info in here.index.documents()])
    assert (await change(here)).chunks == 0
    assert here.index.embedder().name == "small"


_READ = """
import asyncio, sys
from headrace.serving.catalogue import model_specs
from headrace.config.options import Config
from headrace.errors import ConfigError
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
        line = []
        for model in ("echo-embedder", "small"):
            try:
                found = await search(index, models, model, "f7 Wheel 7 turns.", **more)
            except ConfigError:
                line.append("refused")
            else:
                best = max(hit.scores.get("dense", -1.0) for hit in found.hits)
                line.append(f"{len(found.hits)}:{best:.1f}")
        print(*line, flush=True)

asyncio.run(main())
"""


async def test_a_reading_process_sees_the_old_or_the_new(
    here: Place, monkeypatch: pytest.MonkeyPatch
) -> None:
    """With FAISS files on both sides. The passage asked for has a cosine of 1 with the vectors of
    the same embedder only."""
    monkeypatch.setattr(derived, "FLAT_ROWS", 10)
    here.collections.rebuild("default")
    old, new = "40:1.0 refused\n", "refused 40:1.0\n"
    command = [sys.executable, "-c", _READ, here.config.model_dump_json()]
    reader = await asyncio.create_subprocess_exec(*command, stdout=subprocess.PIPE)
    assert reader.stdout is not None
    lines = [await reader.stdout.readline()]
    changing = asyncio.create_task(change(here))
    while lines[-1] not in (b"", new.encode()) and not (changing.done() and changing.exception()):
        lines.append(await reader.stdout.readline())
    await changing
    lines += [await reader.stdout.readline() for _ in range(3)]
    reader.kill()
    await reader.communicate()
    seen = [line.decode() for line in lines]
    assert seen[0] == old
    assert seen[-1] == new
    # Two searches make a line, so the switch may fall between them.
    between = {"40:1.0 40:1.0\n", "refused refused\n"}
    assert set(seen) <= {old, new} | between
    assert sum(line in between for line in seen) <= 1


async def test_a_chunker_setting_takes_effect_at_the_next_ingestion(here: Place) -> None:
    plain = {"default": CollectionOptions(chunker="plain")}
    config = here.config.model_copy(update={"collections": plain})
    async with place(config, here.folder) as now:
        assert {info.chunker for info in now.index.documents()} == {"headings"}
        assert (await now.ingest()).replaced == 20
        assert {info.chunker for info in now.index.documents()} == {"plain"}
        assert (await now.ingest()).unchanged == 20


_CHANGE = """
import asyncio, sys
from headrace.serving.catalogue import model_specs
from headrace.config.options import Config
from headrace.ingest.reembed import reembed
from headrace.retrieval.collections import Collections
from headrace.serving.local import LocalModels

async def main():
    config = Config.model_validate_json(sys.argv[1])
    collections = Collections(config.data_dir / "collections")
    models = LocalModels(model_specs(config))
    tell = lambda done, total: print(done, flush=True)
    await reembed(collections, models, "default", "small", batch_texts=4, progress=tell)

asyncio.run(main())
"""


def killed_after(config: Config, chunks: int, seconds: float = 0.0) -> None:
    """Start a change, and kill it when that many chunks are done and some time has passed."""
    command = [sys.executable, "-c", _CHANGE, config.model_dump_json()]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        next(line for line in process.stdout if int(line) >= chunks)
        time.sleep(seconds)
        process.kill()


def count(index: EmbeddedIndex, what: str) -> int:
    with index.reading() as db:
        return int(db.execute(f"SELECT count(*) FROM {what}").fetchone()[0])


@pytest.mark.slow
async def test_killed_in_the_middle(fast: Config, tmp_path: Path) -> None:
    """Killed again and again, each run goes on where the last one was; searches with the old
    embedder go on until the switch."""
    config = two_embedders(fast, "0.05")
    async with place(config, tmp_path / "in") as here:
        write(here.folder, **{f"f{i}": f"# Wheel {i}\n\nWheel {i} turns." for i in range(60)})
        await here.ingest()
        staged = 0
        for _ in range(3):
            await asyncio.to_thread(killed_after, config, staged + 8)
            assert (await find(here, "echo-embedder")).hits[0].text == "Wheel 7 turns."
            assert staged < count(here.index, "vectors") - 60 < 60
            staged = count(here.index, "vectors") - 60
        done = await change(here)
        assert done.embedded == 60 - staged
        await check(here, "small")


@pytest.mark.slow
async def test_killed_during_the_switch(fast: Config, tmp_path: Path) -> None:
    """Everything is staged, so the process is killed somewhere in the switch or after it: what
    another process then finds is all old or all new."""
    async with place(two_embedders(fast), tmp_path / "in") as here:
        texts = "\n\n".join(f"# Part {i}\n\nWheel {i} turns." for i in range(1500))
        write(here.folder, long=texts)
        await here.ingest()
        for delay in (0.0, 0.02, 0.05, 0.1, 0.2, 0.4):
            await asyncio.to_thread(killed_after, here.config, count(here.index, "chunks"), delay)
            held, vectors, embedded = stored(here.index)
            fresh = await here.models.embed(held.name, embedded, "passage")
            np.testing.assert_allclose(vectors, fresh, atol=1e-3)
            assert here.collections.verify("default").differences == ()
            assert len((await find(here, held.name)).hits) == 5
        await change(here)
        await check(here, "small")
