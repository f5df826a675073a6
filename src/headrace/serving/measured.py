"""`Models` that count what passes through them: calls, seconds, tokens, by model."""

from __future__ import annotations

import asyncio
import contextlib
import time
from collections.abc import AsyncGenerator, Iterator, Sequence

from headrace.engines.base import Passage, Vectors
from headrace.errors import HeadraceError
from headrace.serving.models import Models, WrappedModels
from headrace.telemetry import Metrics
from headrace.types import USER, Call, Delta, EmbedKind, GenerateParams, Message


class MeasuredModels(WrappedModels):
    def __init__(self, models: Models, metrics: Metrics) -> None:
        super().__init__(models)
        self._metrics = metrics

    @contextlib.contextmanager
    def _call(self, model: str, verb: str) -> Iterator[None]:
        if model not in self._models.names():  # a caller's invention must not become a label
            yield
            return
        pending = self._metrics.model_pending.labels(model)
        outcome, began = "failed", time.perf_counter()
        pending.inc()
        try:
            yield
            outcome = "ok"
        except HeadraceError as error:
            outcome = error.code
            raise
        except (asyncio.CancelledError, GeneratorExit):
            outcome = "cancelled"
            raise
        finally:
            pending.dec()
            seconds = time.perf_counter() - began
            self._metrics.model_seconds.labels(model, verb, outcome).observe(seconds)

    async def generate(
        self,
        model: str,
        messages: Sequence[Message],
        params: GenerateParams,
        *,
        call: Call = USER,
    ) -> AsyncGenerator[Delta, None]:
        with self._call(model, "generate"):
            generated = super().generate(model, messages, params, call=call)
            async with contextlib.aclosing(generated) as deltas:
                async for delta in deltas:
                    if delta.usage is not None:
                        read, written = delta.usage.prompt_tokens, delta.usage.completion_tokens
                        self._metrics.tokens.labels(model, "in").inc(read)
                        self._metrics.tokens.labels(model, "out").inc(written)
                    yield delta

    async def embed(
        self,
        model: str,
        texts: Sequence[str],
        kind: EmbedKind,
        *,
        call: Call = USER,
    ) -> Vectors:
        with self._call(model, "embed"):
            return await super().embed(model, texts, kind, call=call)

    async def score(
        self,
        model: str,
        query: str,
        passages: Sequence[Passage],
        *,
        call: Call = USER,
    ) -> Vectors:
        with self._call(model, "score"):
            return await super().score(model, query, passages, call=call)

    async def compress(self, model: str, texts: Sequence[str], *, call: Call = USER) -> list[bytes]:
        with self._call(model, "compress"):
            return await super().compress(model, texts, call=call)
