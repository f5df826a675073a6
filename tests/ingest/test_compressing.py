"""Passages kept as a reranker compresses them: made once, gone with their documents, and found."""

from __future__ import annotations

from collections.abc import AsyncIterator, Sequence
from pathlib import Path

import pytest
from ingesting import Place, place, write

from headrace.config.model_options import ModelOptions
from headrace.config.options import CollectionOptions, Config
from headrace.errors import BadRequest, UnknownCollection
from headrace.ingest import compressing
from headrace.ingest.compressing import Compressed, compress
from headrace.retrieval import compressed
from headrace.retrieval.rows import Embedder, last_chunk_id
from headrace.retrieval.search import search
from headrace.types import ALL_ACCESS, Filter, Role, SearchResult

OWNER = Filter(access=ALL_ACCESS)


def with_reranker(config: Config, **options: object) -> Config:
    """The echo engine's rerankers compress."""
    ranker = ModelOptions(role=Role.RERANKER, engine="echo")
    collection = CollectionOptions(reranker="rank", **options)  # type: ignore[arg-type]
    return config.model_copy(
        update={
            "models": {**config.models, "rank": ranker},
            "collections": {"default": collection},
        }
    )


@pytest.fixture
async def here(fast: Config, tmp_path: Path) -> AsyncIterator[Place]:
    async with place(with_reranker(fast), tmp_path / "in") as made:
        write(made.folder, **{f"f{i}": f"# Wheel {i}\n\nWheel {i} turns." for i in range(6)})
        await made.ingest()
        yield made


async def run(here: Place, rerankers: Sequence[str] = ("rank",)) -> Compressed:
    return await compress(here.collections, here.models, "default", rerankers)


async def held(here: Place) -> dict[int, bytes]:
    fingerprint = (await here.models.info("rank")).fingerprint
    with here.index.reading() as db:
        return compressed.read(db, range(last_chunk_id(db) + 1), fingerprint)


async def find(here: Place, query: str = "wheel 3 turns") -> SearchResult:
    return await search(
        here.index,
        here.models,
        here.config.defaults.embedder,
        query,
        options=here.config.retrieval,
        where=OWNER,
        k=3,
        reranker="rank",
    )


async def test_every_passage_is_compressed_once(here: Place) -> None:
    assert await held(here) == {}
    first = await run(here)
    assert (first.passages, first.added, first.reranker) == (6, 6, "rank")
    codes = await held(here)
    assert first.size == sum(map(len, codes.values()))
    assert len(codes) == 6
    assert (await run(here)).added == 0
    write(here.folder, f1="# Wheel 1\n\nWheel 1 stands.", f9="# Wheel 9\n\nWheel 9 is new.")
    await here.ingest()
    assert len(await held(here)) == 5  # what was replaced went in the same transaction
    assert (await run(here)).added == 2


async def test_what_was_stopped_goes_on(here: Place, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(compressing, "STEP", 2)

    def stop(added: int) -> None:
        if added == 4:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        await compress(here.collections, here.models, "default", ["rank"], progress=stop)
    assert len(await held(here)) == 4
    assert (await run(here)).added == 2


async def test_a_deleted_document_leaves_nothing(here: Place) -> None:
    await run(here)
    everything = [info.id for info in here.index.documents()]
    here.index.delete(everything[:5])
    assert len(await held(here)) == 1
    with here.index.reading() as db:
        assert compressed.size(db)[0] == 1


async def test_of_another_reranker_or_embedder_nothing_is_used(here: Place) -> None:
    await run(here)
    with here.index.reading() as db:
        assert compressed.read(db, [1, 2], "another") == {}
    with here.index.connection() as db:
        compressed.prepare(db, "another")
    assert await held(here) == {}
    assert (await run(here)).added == 6
    held_by = here.index.embedder()
    vectors = {}
    for key in (b"x" * 16,):
        vectors[key] = (await here.models.embed("echo-embedder", ["x"], "passage"))[0]
    here.index.stage(vectors)
    here.index.clear_staged()
    assert here.index.embedder() == Embedder(*held_by)
    assert len(await held(here)) == 6


async def test_search_scores_what_is_kept_as_it_scores_texts(here: Place) -> None:
    texts = await find(here)
    await run(here)
    whole = await find(here)
    assert [hit.scores for hit in whole.hits] == [hit.scores for hit in texts.hits]
    write(here.folder, f7="# Wheel 7\n\nWheel 7 turns three times.")
    await here.ingest()
    mixed = await find(here, "wheel 7 turns three times")  # one is not compressed yet
    assert mixed.hits[0].text.endswith("three times.")
    assert mixed.hits[0].scores["rerank"] == 1.0


async def test_ingestion_compresses_where_the_collection_asks(fast: Config, tmp_path: Path) -> None:
    config = with_reranker(fast, compress_passages=True)
    async with place(config, tmp_path / "in") as made:
        write(made.folder, a="# A\n\nOne.", b="# B\n\nTwo.")
        await made.ingest()
        assert len(await held(made)) == 2


async def test_who_cannot_compress_is_told(here: Place) -> None:
    for names in ([], ["echo-embedder"]):
        with pytest.raises(BadRequest, match="late_interaction"):
            await run(here, names)
    with pytest.raises(UnknownCollection):
        await compress(here.collections, here.models, "nothing", ["rank"])
