"""`search` over a real index with real (echo) models."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator

import pytest

from headrace.config.answering import RetrievalOptions
from headrace.config.model_options import ModelOptions
from headrace.engines.base import ModelInfo, ModelSpec, Vectors
from headrace.errors import BadRequest, ConfigError, Overloaded, UnknownCollection
from headrace.retrieval.base import NewChunk, chunk_key, embedding_text
from headrace.retrieval.collections import Collections
from headrace.retrieval.embedded import EmbeddedIndex
from headrace.retrieval.search import search, search_many
from headrace.serving.local import LocalModels
from headrace.types import ALL_ACCESS, Chunk, Document, Filter, Parsed, Role, Span

OPTIONS = RetrievalOptions()
OWNER = Filter(access=ALL_ACCESS)
TEXTS = {
    "rent": "The rent is due on the first day of the month.",
    "noise": "Quiet hours begin at ten in the evening.",
    "law": "第四十四条 租赁合同应当采用书面形式。",
    "copy": "The rent is due on the first day of the month.",
}


@pytest.fixture
async def models() -> AsyncIterator[LocalModels]:
    roles = {"embed": Role.EMBEDDER, "embed2": Role.EMBEDDER, "rank": Role.RERANKER}
    made = LocalModels(
        {
            name: ModelSpec(
                name, role, "echo", "", "", ModelOptions(role=role, engine="echo").model_dump()
            )
            for name, role in roles.items()
        }
    )
    yield made
    await made.close()


@pytest.fixture
async def filled(collections: Collections, models: LocalModels) -> EmbeddedIndex:
    info = await models.info("embed")
    index = collections.create("laws", "embed", info)
    for name, text in TEXTS.items():
        path = ("copied",) if name in ("rent", "copy") else (name,)
        embedded = embedding_text(path, text)
        [vector] = await models.embed("embed", [embedded], "passage")
        chunk = Chunk(Span(0, len(text)), path)
        labels = ("secret",) if name == "noise" else ("public",)
        document = Document(
            name, f"{name}.md", "0" * 64, Parsed(text, "text/plain", name), "plain", labels=labels
        )
        new = NewChunk(chunk, chunk_key(info.fingerprint, embedded), vector)
        await asyncio.to_thread(index.upsert, document, [new])
    return index


async def test_hits_carry_the_score_of_every_stage(
    filled: EmbeddedIndex, models: LocalModels
) -> None:
    result = await search(filled, models, "embed", "第44条 合同", options=OPTIONS, where=OWNER, k=3)
    best = result.hits[0]
    assert best.document_id == "law"
    assert {"dense", "lexical", "fused"} == best.scores.keys()
    assert best.score == best.scores["fused"]
    assert result.generation == filled.generation() == 4
    assert {"snapshot", "embed", "dense", "lexical", "fuse", "fetch", "total"} == set(
        result.timings
    )


async def test_copies_are_shown_once(filled: EmbeddedIndex, models: LocalModels) -> None:
    result = await search(
        filled, models, "embed", "When is the rent due?", options=OPTIONS, where=OWNER, k=4
    )
    assert len(result.hits) == 3
    assert result.hits[0].document_id in ("rent", "copy")


async def test_the_filter_holds_through_every_stage(
    filled: EmbeddedIndex, models: LocalModels
) -> None:
    result = await search(
        filled,
        models,
        "embed",
        "quiet hours",
        options=OPTIONS,
        where=Filter(),
        k=5,
        reranker="rank",
    )
    assert "noise" not in {hit.document_id for hit in result.hits}
    assert result.hits


async def test_the_reranker_has_the_last_word(filled: EmbeddedIndex, models: LocalModels) -> None:
    result = await search(
        filled, models, "embed", "quiet hours", options=OPTIONS, where=OWNER, k=3, reranker="rank"
    )
    scores = [hit.score for hit in result.hits]
    assert scores == sorted(scores, reverse=True)
    assert all(hit.score == hit.scores["rerank"] for hit in result.hits)
    assert "rerank" in result.timings


async def test_every_stage_shows_its_whole_list(filled: EmbeddedIndex, models: LocalModels) -> None:
    """Asking for the lists changes nothing else."""
    arguments = (filled, models, "embed", ["rent month", "第44条"])
    plain = await search_many(*arguments, options=OPTIONS, where=OWNER, k=1, reranker="rank")
    shown = await search_many(
        *arguments, options=OPTIONS, where=OWNER, k=1, reranker="rank", stages=True
    )
    assert [one.hits for one in shown] == [one.hits for one in plain]
    assert [one.stages for one in plain] == [{}, {}]
    for result in shown:
        assert list(result.stages) == ["dense", "lexical", "fused", "rerank"]
        assert len(result.stages["dense"]) == len(TEXTS)
        assert set(result.stages["fused"]) == set(result.stages["dense"])
        assert len(result.stages["rerank"]) == len(TEXTS) - 1, "the copy is left out"
        assert result.stages["rerank"][0] == result.hits[0].chunk_id
    assert len(shown[1].stages["lexical"]) == 1
    (alone,) = await search_many(
        filled, models, "embed", ["rent month"], options=OPTIONS, where=OWNER, k=1, stages=True
    )
    assert alone.stages == {k: v for k, v in shown[0].stages.items() if k != "rerank"}


async def test_an_empty_query_is_refused(filled: EmbeddedIndex, models: LocalModels) -> None:
    with pytest.raises(BadRequest, match="empty"):
        await search(filled, models, "embed", " \n", options=OPTIONS, where=OWNER, k=3)


async def test_another_embedder_is_refused(
    filled: EmbeddedIndex, models: LocalModels, collections: Collections
) -> None:
    other = ModelInfo("embed", Role.EMBEDDER, "echo", "another fingerprint", 8)
    index = collections.create("other", "embed", other)
    with pytest.raises(ConfigError, match="headrace collections reindex other"):
        await search(index, models, "embed", "rent", options=OPTIONS, where=OWNER, k=3)


class FullModels(LocalModels):
    """A queue that is full."""

    async def embed(self, *arguments: object, **options: object) -> Vectors:
        raise Overloaded("full")


async def test_what_a_model_raises_arrives_as_it_was(
    filled: EmbeddedIndex, models: LocalModels
) -> None:
    full = FullModels(models._specs)
    with pytest.raises(Overloaded):
        await search(filled, full, "embed", "rent", options=OPTIONS, where=OWNER, k=3)
    await full.close()


async def test_searching_what_was_deleted(
    collections: Collections, filled: EmbeddedIndex, models: LocalModels
) -> None:
    other = Collections(collections.folder)
    other.delete("laws")
    other.close()
    with pytest.raises(UnknownCollection, match="any more"):
        await search(filled, models, "embed", "rent", options=OPTIONS, where=OWNER, k=3)


async def test_reading_what_was_deleted_here(
    collections: Collections, filled: EmbeddedIndex, models: LocalModels
) -> None:
    collections.delete("laws")
    with pytest.raises(UnknownCollection, match="any more"):
        await search(filled, models, "embed", "rent", options=OPTIONS, where=OWNER, k=3)
    with pytest.raises(UnknownCollection, match="any more"):
        filled.document("rent")


async def test_many_at_once_while_it_is_written(filled: EmbeddedIndex, models: LocalModels) -> None:
    """Readers never fail, whatever a writer does beside them."""
    document = filled.document("rent")
    assert document is not None
    stored = filled.vectors([chunk_key(filled.embedder().fingerprint, f"copied {TEXTS['rent']}")])
    [(key, vector)] = stored.items()
    chunk = NewChunk(Chunk(Span(0, len(TEXTS["rent"])), ("copied",)), key, vector)

    def write() -> None:
        for _ in range(20):
            filled.upsert(document, [chunk])
            filled.delete(["noise"])

    async def read() -> None:
        for _ in range(10):
            found = await search(filled, models, "embed", "rent", options=OPTIONS, where=OWNER, k=2)
            assert found.hits

    async with asyncio.TaskGroup() as group:
        group.create_task(asyncio.to_thread(write))
        for _ in range(4):
            group.create_task(read())


async def test_several_queries_at_once_find_what_each_finds_alone(
    filled: EmbeddedIndex, models: LocalModels
) -> None:
    queries = ["第44条 合同", "quiet hours", "when is the rent due"]
    for reranker in (None, "rank"):
        together = await search_many(
            filled, models, "embed", queries, options=OPTIONS, where=OWNER, k=2, reranker=reranker
        )
        for query, found in zip(queries, together, strict=True):
            alone = await search(
                filled, models, "embed", query, options=OPTIONS, where=OWNER, k=2, reranker=reranker
            )
            assert found.hits == alone.hits
    with pytest.raises(BadRequest):
        await search_many(filled, models, "embed", ["rent", " "], options=OPTIONS, where=OWNER, k=2)
