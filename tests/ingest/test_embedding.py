from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from pathlib import Path

import pytest
from ingesting import Place, place

from headrace.config.options import Config
from headrace.engines.base import Vectors
from headrace.errors import ModelFailed, Overloaded
from headrace.ingest.embedding import IN_FLIGHT, Embedding
from headrace.retrieval.base import chunk_key
from headrace.types import BULK, USER, Call, EmbedKind


@pytest.fixture
async def here(fast: Config, tmp_path: Path) -> AsyncIterator[Place]:
    async with place(fast, tmp_path / "in") as made:
        info = await made.models.info("echo-embedder")
        made.collections.create("default", "echo-embedder", info)
        yield made


def keyed(*texts: str) -> dict[bytes, str]:
    return {chunk_key("f", text): text for text in texts}


@asynccontextmanager
async def running(here: Place, batch_texts: int = 4) -> AsyncIterator[Embedding]:
    embedding = Embedding(
        here.models,
        "echo-embedder",
        here.index,
        batch_texts=batch_texts,
        on_batch=lambda texts: None,
    )
    async with asyncio.TaskGroup() as group:
        group.create_task(embedding.run())
        yield embedding
        embedding.close()


async def test_each_text_gets_its_own_vector_and_is_staged(here: Place) -> None:
    texts = keyed(*(f"word {'x' * (i % 7)} {i}" for i in range(50)))
    async with running(here) as embedding:
        embedding.hurry()
        vectors = await embedding.vectors(texts)
    alone = await here.models.embed("echo-embedder", list(texts.values()), "passage")
    for (key, _), vector in zip(texts.items(), alone, strict=True):
        assert vectors[key] == pytest.approx(vector)
    assert set(here.index.vectors(list(texts))) == set(texts)


async def test_a_text_of_many_documents_is_embedded_once(here: Place) -> None:
    async with running(here) as embedding:
        many: list[Mapping[bytes, object]] = await asyncio.gather(
            *(embedding.vectors(keyed("shared", f"own {i}")) for i in range(20))
        )
    assert len(many) == 20
    assert sorted(here.models.texts) == sorted(["shared", *(f"own {i}" for i in range(20))])


async def test_batches_are_bounded_alike_and_few_at_a_time(
    here: Place, monkeypatch: pytest.MonkeyPatch
) -> None:
    batches: list[list[int]] = []
    now = most = 0

    async def embed(model: str, texts: list[str], kind: EmbedKind, *, call: Call = USER) -> Vectors:
        nonlocal now, most
        assert call is BULK
        now += 1
        most = max(most, now)
        batches.append([len(text) for text in texts])
        await asyncio.sleep(0.001)
        now -= 1
        return await type(here.models).embed(here.models, model, texts, kind)

    monkeypatch.setattr(here.models, "embed", embed)
    texts = keyed(*(f"{i:03} " + "x" * (i * 37 % 200) for i in range(200)))
    async with running(here, batch_texts=10) as embedding:
        embedding.hurry()
        await embedding.vectors(texts)
    assert len(batches) == 20
    assert all(len(batch) == 10 for batch in batches)
    assert most == IN_FLIGHT
    spread = [max(batch) - min(batch) for batch in batches]
    assert sorted(spread)[10] <= 20  # of 200


async def test_a_full_queue_is_waited_for(here: Place, monkeypatch: pytest.MonkeyPatch) -> None:
    refusals = iter([True, True, False])

    async def embed(model: str, texts: list[str], kind: EmbedKind, *, call: Call = USER) -> Vectors:
        if next(refusals):
            raise Overloaded("full", retry_after=0.001)
        return await type(here.models).embed(here.models, model, texts, kind)

    monkeypatch.setattr(here.models, "embed", embed)
    async with running(here) as embedding:
        assert len(await embedding.vectors(keyed("a"))) == 1


async def test_only_who_wanted_the_bad_text_learns_of_it(here: Place) -> None:
    here.models.poison = "bad"
    async with running(here) as embedding:
        good, bad = await asyncio.gather(
            embedding.vectors(keyed("one", "two", "three")),
            embedding.vectors(keyed("four", "bad")),
            return_exceptions=True,
        )
    assert isinstance(good, dict)
    assert isinstance(bad, ModelFailed)
