"""`Models` over engines in this very process: for tests and tools, without a worker.

The server itself uses `headrace.serving.pool`, whose engines live in processes of their own.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, Mapping, Sequence

from headrace.engines.base import Engine, ModelInfo, ModelSpec, Passage, Vectors, pairs
from headrace.engines.registry import create
from headrace.errors import UnknownModel
from headrace.types import USER, Call, Delta, EmbedKind, GenerateParams, Message


class LocalModels:
    """Loads each model when it is first used. Implements `headrace.serving.models.Models`."""

    def __init__(self, specs: Mapping[str, ModelSpec]) -> None:
        self._specs = dict(specs)
        self._loaded: dict[str, tuple[Engine, ModelInfo]] = {}
        self._locks = {name: asyncio.Lock() for name in specs}

    def names(self) -> Sequence[str]:
        return sorted(self._specs)

    async def _engine(self, model: str) -> tuple[Engine, ModelInfo]:
        if model not in self._specs:
            raise UnknownModel(model, self._specs)
        async with self._locks[model]:
            if model not in self._loaded:
                spec = self._specs[model]
                engine = create(spec.engine)
                info = await asyncio.to_thread(engine.load, spec)
                self._loaded[model] = (engine, info)
        return self._loaded[model]

    async def info(self, model: str, *, call: Call = USER) -> ModelInfo:
        return (await self._engine(model))[1]

    async def generate(
        self,
        model: str,
        messages: Sequence[Message],
        params: GenerateParams,
        *,
        call: Call = USER,
    ) -> AsyncGenerator[Delta, None]:
        engine, _ = await self._engine(model)
        async for delta in engine.generate(messages, params):
            yield delta

    async def embed(
        self,
        model: str,
        texts: Sequence[str],
        kind: EmbedKind,
        *,
        call: Call = USER,
    ) -> Vectors:
        engine, _ = await self._engine(model)
        return await asyncio.to_thread(engine.embed, texts, kind)

    async def score(
        self,
        model: str,
        query: str,
        passages: Sequence[Passage],
        *,
        call: Call = USER,
    ) -> Vectors:
        engine, _ = await self._engine(model)
        return await asyncio.to_thread(engine.score, pairs(query, passages))

    async def compress(self, model: str, texts: Sequence[str], *, call: Call = USER) -> list[bytes]:
        engine, _ = await self._engine(model)
        return await asyncio.to_thread(engine.compress, texts)

    async def count(self, model: str, texts: Sequence[str], *, call: Call = USER) -> list[int]:
        engine, _ = await self._engine(model)
        return await asyncio.to_thread(engine.count, texts)

    async def close(self) -> None:
        for engine, _ in self._loaded.values():
            await asyncio.to_thread(engine.unload)
        self._loaded.clear()
