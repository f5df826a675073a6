"""A worker process per model, started when first used and again after it died.

The simple pool: no placement, no shared batches. What is above sees only
`headrace.serving.models.Models`.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncGenerator, AsyncIterator, Mapping, Sequence
from types import TracebackType

import numpy as np

from headrace.engines.base import ModelInfo, ModelSpec, Vectors
from headrace.errors import Overloaded, UnknownModel
from headrace.serving import wire
from headrace.serving.arbiter_types import Place
from headrace.serving.client import WorkerClient
from headrace.serving.status import DeviceStatus, ModelStatus
from headrace.types import USER, Call, Delta, EmbedKind, GenerateParams, Message

STEP_TEXTS = 32
"""Texts per message to a worker: a query waits for one such step of a bulk job at most."""


class Pool:
    """Implements `headrace.serving.models.Models`. Use as an async context manager: leaving it
    ends every worker."""

    def __init__(self, specs: Mapping[str, ModelSpec]) -> None:
        self._specs = dict(specs)
        self._workers: dict[str, WorkerClient] = {}
        self._starting = {name: asyncio.Lock() for name in specs}
        self._pending = dict.fromkeys(specs, 0)

    async def __aenter__(self) -> Pool:
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        value: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        await asyncio.gather(*(worker.close() for worker in self._workers.values()))
        self._workers.clear()

    def names(self) -> Sequence[str]:
        return sorted(self._specs)

    def pending(self) -> Mapping[str, int]:
        """Requests in progress, by model."""
        return self._pending

    def processes(self) -> Mapping[str, int]:
        """PIDs of the live workers, by model."""
        return {name: worker.pid for name, worker in self._workers.items() if worker.alive}

    def states(self) -> list[ModelStatus]:
        live = self.processes()
        return [
            ModelStatus(
                name=name,
                role=spec.role,
                engine=spec.engine,
                place=Place.SERVING if name in live else Place.GONE,
                seat="cpu" if name in live else "",
                held={},
                active=self._pending[name],
                waiting=0,
                waiting_seconds=0.0,
                workers=(live[name],) if name in live else (),
                restarts=0,
            )
            for name, spec in sorted(self._specs.items())
        ]

    def devices(self) -> list[DeviceStatus]:
        return []

    async def _worker(self, model: str) -> WorkerClient:
        async with self._starting[model]:
            worker = self._workers.get(model)
            if worker is None or not worker.alive:
                if worker is not None:
                    await worker.close()
                worker = await WorkerClient.start(self._specs[model])
                self._workers[model] = worker
            return worker

    @contextlib.asynccontextmanager
    async def _admit(self, model: str) -> AsyncIterator[WorkerClient]:
        if model not in self._specs:
            raise UnknownModel(model, self._specs)
        limit = int(self._specs[model].options.get("max_pending", 512))
        if self._pending[model] >= limit:
            raise Overloaded(f"model {model!r} has {limit} requests waiting; try again later")
        self._pending[model] += 1
        try:
            yield await self._worker(model)
        finally:
            self._pending[model] -= 1

    async def info(self, model: str) -> ModelInfo:
        async with self._admit(model) as worker:
            return worker.info

    async def generate(
        self,
        model: str,
        messages: Sequence[Message],
        params: GenerateParams,
        *,
        call: Call = USER,
    ) -> AsyncGenerator[Delta, None]:
        async with self._admit(model) as worker:
            request = wire.Generate(worker.next_id(), tuple(messages), params)
            async with contextlib.aclosing(worker.stream(request)) as deltas:
                async for delta in deltas:
                    yield delta

    async def embed(
        self,
        model: str,
        texts: Sequence[str],
        kind: EmbedKind,
        *,
        call: Call = USER,
    ) -> Vectors:
        async with self._admit(model) as worker:
            if not texts:
                return np.zeros((0, worker.info.dimensions), np.float32)
            parts = [
                await worker.array(wire.Embed(worker.next_id(), step, kind, call.lane))
                for step in _steps(texts)
            ]
        return parts[0] if len(parts) == 1 else np.concatenate(parts)

    async def score(
        self,
        model: str,
        query: str,
        texts: Sequence[str],
        *,
        call: Call = USER,
    ) -> Vectors:
        async with self._admit(model) as worker:
            parts = [
                await worker.array(wire.Score(worker.next_id(), query, step, call.lane))
                for step in _steps(texts)
            ]
        return np.concatenate(parts) if parts else np.zeros(0, np.float32)

    async def count(self, model: str, texts: Sequence[str]) -> list[int]:
        async with self._admit(model) as worker:
            return await worker.counts(wire.Count(worker.next_id(), tuple(texts)))


def _steps(texts: Sequence[str]) -> list[tuple[str, ...]]:
    return [tuple(texts[i : i + STEP_TEXTS]) for i in range(0, len(texts), STEP_TEXTS)]
