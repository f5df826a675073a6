"""Cached answers over HTTP: marked, counted, and only for whom they were made."""

from __future__ import annotations

import asyncio
from dataclasses import replace
from typing import Any

from http_app import connect, eventually
from test_rag_api import OWNER, READER, chat, events, rag

from headrace.config.caching import CacheOptions
from headrace.engines.base import Vectors
from headrace.pipeline.services import Services
from headrace.serving.models import WrappedModels


def caching(services: Services) -> Services:
    cache = CacheOptions(answers="exact")
    return replace(services, config=services.config.model_copy(update={"cache": cache}))


async def test_hits_are_marked_in_every_form(services: Services) -> None:
    async with connect(caching(services)) as client:
        first = (await client.post("/v1/chat/completions", json=chat())).json()
        assert first["choices"][0]["message"]["headrace"]["cached"] is None
        second = (await client.post("/v1/chat/completions", json=chat())).json()
        message = second["choices"][0]["message"]
        assert message["content"] == first["choices"][0]["message"]["content"]
        assert message["headrace"]["cached"]["kind"] == "exact"
        assert second["usage"]["total_tokens"] == 0
        streamed = await client.post("/v1/chat/completions", json=chat(stream=True))
        assert '"kind":"exact"' in streamed.text
        typed = events(await client.post("/api/rag/chat", json=rag()))
        assert typed[0][1]["name"] == "cache"
        assert typed[-1][1]["cached"]["saved_ms"] is not None
        afresh = events(await client.post("/api/rag/chat", json=rag(cache=False)))
        assert afresh[-1][1]["cached"] is None


async def test_what_they_saved_is_told_to_the_admin_alone(keyed: Services) -> None:
    services = caching(keyed)
    async with connect(services, **OWNER) as owner, connect(services, **READER) as reader:
        for _ in range(3):
            await owner.post("/api/rag/chat", json=rag())
        assert (await reader.get("/admin/caches")).status_code == 403
        answers = (await owner.get("/admin/caches")).json()["caches"]["answers"]
        assert (answers["hits"], answers["misses"]) == ({"exact": 2}, 1)
        assert answers["hit_rate"] == 0.6667
        assert answers["entries"] == 1
        assert answers["bytes"] > 0


async def test_a_caller_with_other_rights_gets_an_answer_of_his_own(keyed: Services) -> None:
    services = caching(keyed)
    async with connect(services, **OWNER) as owner, connect(services, **READER) as reader:
        asked = rag(question="What does the director of the market earn?")
        for _ in range(2):
            told = (await owner.post("/api/rag/chat", json=asked)).text
            hidden = (await reader.post("/api/rag/chat", json=asked)).text
        assert '"kind":"exact"' in told
        assert '"kind":"exact"' in hidden
        assert "9,000 francs" in told
        assert "9,000" not in hidden
        narrowed = await owner.post("/api/rag/chat", json=asked | {"access": ["public"]})
        assert "9,000" not in narrowed.text


async def test_a_receipt_counts_the_answers_that_were_cleared(services: Services) -> None:
    async with connect(caching(services)) as client:
        await client.post("/api/rag/chat", json=rag())
        hit = await client.post("/api/rag/chat", json=rag())
        assert '"kind":"exact"' in hit.text
        url = "/api/collections/town/documents"
        entry = (await client.get(url)).json()["documents"][0]
        receipt = (await client.delete(f"{url}/{entry['id']}")).json()
        assert receipt["answers_cleared"] == 1
        after = await client.post("/api/rag/chat", json=rag())
        assert '"refusal":true' in after.text
        assert "six in the morning" not in after.text


class Held(WrappedModels):
    """Embeds nothing before `open`."""

    def __init__(self, inner: Any) -> None:
        super().__init__(inner)
        self.open = asyncio.Event()
        self.asked = 0

    async def embed(self, *arguments: Any, **more: Any) -> Vectors:
        self.asked += 1
        await self.open.wait()
        return await super().embed(*arguments, **more)


async def test_requests_for_the_same_share_a_run_in_every_form(services: Services) -> None:
    """The first of them goes away meanwhile."""
    models = Held(services.models)
    services = replace(caching(services), models=models)

    def waiting() -> int:
        return sum(run._readers for runs in services.runs._runs.values() for run in runs)

    async with connect(services) as client:
        tasks = []
        for path, body in (
            ("/v1/chat/completions", chat()),
            ("/v1/chat/completions", chat()),
            ("/v1/chat/completions", chat(stream=True)),
            ("/api/rag/chat", rag()),
        ):
            tasks.append(asyncio.create_task(client.post(path, json=body)))
            await eventually(lambda: waiting() == len(tasks))
        gone, *others = tasks
        gone.cancel()
        await asyncio.wait([gone])
        await eventually(lambda: waiting() == len(others))
        assert models.asked == 1
        models.open.set()
        whole, streamed, typed = [await task for task in others]
        message = whole.json()["choices"][0]["message"]
        assert message["headrace"]["cached"]["kind"] == "shared"
        assert "six in the morning" in message["content"]
        assert '"kind":"shared"' in streamed.text
        told = events(typed)
        assert told[-1][1]["cached"]["kind"] == "shared"
        text = "".join(data["text"] for name, data in told if name == "delta")
        assert text == message["content"]
        assert len(services.runs) == 0
