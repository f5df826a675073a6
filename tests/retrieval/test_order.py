"""A fitted ranker in a search: it orders, it is reported, and it opens no door."""

from __future__ import annotations

from collections.abc import AsyncIterator

import numpy as np
import pytest
from msgspec.structs import replace

from headrace.config.answering import RetrievalOptions
from headrace.config.model_options import ModelOptions
from headrace.engines.base import ModelSpec
from headrace.retrieval.base import NewChunk, chunk_key
from headrace.retrieval.collections import Collections
from headrace.retrieval.embedded import EmbeddedIndex
from headrace.retrieval.ensemble import Linear
from headrace.retrieval.order import candidates, fused
from headrace.retrieval.past import PastQuestions
from headrace.retrieval.ranker import FILE, FORMAT, Fitted
from headrace.retrieval.search import search
from headrace.serving.local import LocalModels
from headrace.types import ALL_ACCESS, Chunk, Document, Filter, Parsed, Role, Span

OPTIONS = RetrievalOptions()
OWNER = Filter(access=ALL_ACCESS)
TEXTS = [f"passage about rent {'and ' * n}more" for n in range(6)]


@pytest.fixture
async def models() -> AsyncIterator[LocalModels]:
    roles = {"embed": Role.EMBEDDER, "rank": Role.RERANKER}
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
    """Two documents: `long` of five chunks, and a secret one."""
    info = await models.info("embed")
    index = collections.create("laws", "embed", info)
    vectors = await models.embed("embed", TEXTS, "passage")
    for name, numbers in (("long", range(5)), ("secret", range(5, 6))):
        position, chunks = 0, []
        for n in numbers:
            span = Span(position, position + len(TEXTS[n]))
            key = chunk_key(info.fingerprint, f"{n}")
            chunks.append(NewChunk(Chunk(span, (f"part {n}",)), key, vectors[n]))
            position = span.end
        text = "".join(TEXTS[n] for n in numbers)
        parsed = Parsed(text, "text/plain", name)
        label = "secret" if name == "secret" else "public"
        document = Document(name, f"{name}.md", "0" * 64, parsed, "plain", labels=(label,))
        index.upsert(document, chunks)
    return index


async def fitted(models: LocalModels, **changes: object) -> Fitted:
    info = await models.info("embed")
    made = Fitted(
        format=FORMAT,
        embedder=info.fingerprint,
        features=("length",),
        ranker=Linear((1.0,)),
    )
    return replace(made, **changes)


async def test_the_ranker_orders_and_is_named(filled: EmbeddedIndex, models: LocalModels) -> None:
    plain = await search(filled, models, "embed", "rent", options=OPTIONS, where=OWNER, k=6)
    assert plain.ranker == ""
    filled.ranker.write(await fitted(models))
    found = await search(
        filled, models, "embed", "rent", options=OPTIONS, where=OWNER, k=6, stages=True
    )
    assert [len(hit.text) for hit in found.hits] == sorted(map(len, TEXTS), reverse=True)
    assert all(hit.score == hit.scores["ranked"] for hit in found.hits)
    assert found.stages["ranked"] == tuple(hit.chunk_id for hit in found.hits)
    assert len(found.ranker) == 12
    off = OPTIONS.model_copy(update={"ranker": "off"})
    without = await search(filled, models, "embed", "rent", options=off, where=OWNER, k=6)
    assert (without.hits, without.ranker) == (plain.hits, "")


async def test_who_may_not_read_a_document_finds_nothing_of_it(
    filled: EmbeddedIndex, models: LocalModels
) -> None:
    filled.ranker.write(await fitted(models))
    found = await search(filled, models, "embed", "rent", options=OPTIONS, where=Filter(), k=6)
    assert {hit.document_id for hit in found.hits} == {"long"}
    filled.delete(["long"])
    found = await search(filled, models, "embed", "rent", options=OPTIONS, where=Filter(), k=6)
    assert found.hits == ()


async def test_what_is_deleted_between_search_and_ranking_is_left_out(
    filled: EmbeddedIndex, models: LocalModels
) -> None:
    snapshot = filled.snapshot()
    [vector] = await models.embed("embed", ["rent"], "query")
    near = snapshot.search_dense(vector, 10, OWNER)
    joined = fused(snapshot, near, [], "rent", OPTIONS)
    assert len(joined) == 6
    filled.delete(["secret"])
    pool = candidates(filled, snapshot, joined, [])
    assert sorted(pool.ids.tolist()) == [1, 2, 3, 4, 5]
    assert set(pool.documents.tolist()) == {1}
    assert np.allclose(np.linalg.norm(pool.vectors, axis=1), 1, atol=1e-3)


async def test_a_refused_file_changes_nothing_and_is_told(
    filled: EmbeddedIndex, models: LocalModels
) -> None:
    plain = await search(filled, models, "embed", "rent", options=OPTIONS, where=OWNER, k=6)
    (filled.folder / FILE).write_bytes(b'{"format": 99')
    found = await search(filled, models, "embed", "rent", options=OPTIONS, where=OWNER, k=6)
    assert found.hits == plain.hits
    [why] = found.skipped
    assert why.startswith("rank: the fitted ranker is refused")


async def test_a_question_that_names_a_provision_is_ordered_by_fusion(
    filled: EmbeddedIndex, models: LocalModels
) -> None:
    filled.ranker.write(await fitted(models))
    found = await search(filled, models, "embed", "第44条 rent", options=OPTIONS, where=OWNER, k=6)
    assert found.hits
    assert all("ranked" not in hit.scores for hit in found.hits)


async def test_a_reranker_has_the_last_word_unless_the_ranker_knows_it(
    filled: EmbeddedIndex, models: LocalModels
) -> None:
    async def order(last: str) -> list[int]:
        found = await search(
            filled, models, "embed", "rent", options=OPTIONS, where=OWNER, k=6, reranker="rank"
        )
        assert all(hit.score == hit.scores[last] for hit in found.hits)
        return [len(hit.text) for hit in found.hits]

    plain = await order("rerank")
    filled.ranker.write(await fitted(models))
    assert sorted(await order("rerank")) == sorted(plain)
    shortest_first = Linear((-1.0, 0.0))
    filled.ranker.write(await fitted(models, reranker="rank", reranked=shortest_first))
    assert await order("ranked") == sorted(map(len, TEXTS))
    filled.ranker.write(await fitted(models, reranker="another", reranked=shortest_first))
    await order("rerank")


async def test_fitted_weights_replace_the_configured_ones(
    filled: EmbeddedIndex, models: LocalModels
) -> None:
    filled.ranker.write(await fitted(models, features=(), ranker=None, depth=2, dense_weight=1.0))
    found = await search(
        filled, models, "embed", "rent", options=OPTIONS, where=OWNER, k=1, stages=True
    )
    assert len(found.stages["dense"]) == len(found.stages["lexical"]) == 2
    assert found.hits[0].chunk_id == found.stages["dense"][0]
    assert found.ranker


async def test_what_answered_a_question_like_it_is_brought_in_for_who_may_read_it(
    filled: EmbeddedIndex, models: LocalModels
) -> None:
    """One candidate a list, so only a past question leads to the secret passage (chunk 6)."""
    texts = ["who may raise the rent", "cats", "dogs", "birds"]
    vectors = await models.embed("embed", texts, "query")
    keys = filled.keys([1, 2, 6])
    past = PastQuestions(
        dimensions=vectors.shape[1],
        vectors=vectors.astype("<f2").tobytes(),
        passages=((keys[6],), (keys[1],), (keys[2], b"of another index"), ()),
    )
    options = {"features": ("alike_passage",), "depth": 1, "past": past}
    filled.ranker.write(await fitted(models, **options))

    async def found(where: Filter) -> list[int]:
        hits = await search(filled, models, "embed", texts[0], options=OPTIONS, where=where, k=3)
        return [hit.chunk_id for hit in hits.hits]

    assert (await found(OWNER))[0] == 6
    assert 6 not in await found(Filter())
    assert 6 not in await found(Filter(access=ALL_ACCESS, documents=("long",)))
    filled.delete(["secret"])
    assert 6 not in await found(OWNER)
    assert await found(OWNER)


async def test_past_questions_of_another_size_are_refused(
    filled: EmbeddedIndex, models: LocalModels
) -> None:
    past = PastQuestions(dimensions=2, vectors=b"\0" * 4, passages=((b"x",),))
    filled.ranker.write(await fitted(models, past=past))
    found = await search(filled, models, "embed", "rent", options=OPTIONS, where=OWNER, k=6)
    assert found.hits
    [why] = found.skipped
    assert "its past questions have 2 dimensions" in why
