"""The one interface through which everything above talks to models."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, Coroutine, Sequence
from typing import Any, Protocol, TypeVar

from headrace.engines.base import ModelInfo, Passage, Vectors
from headrace.types import USER, Call, Delta, EmbedKind, GenerateParams, Message

A = TypeVar("A")
B = TypeVar("B")


async def together(*works: Coroutine[Any, Any, A]) -> list[A]:
    """All at once; their results in order. If one fails, or the caller is cancelled, the others are
    cancelled too and have ended; with `asyncio.gather` they would go on for nobody, and whoever
    cancelled would not know his own cancellation again. The first failure is raised as it is:
    callers know the errors, not that several things ran side by side."""
    try:
        async with asyncio.TaskGroup() as group:
            tasks = [group.create_task(work) for work in works]
            # Waited for in here: Python 3.11 cancels a caller that waits at the group's end too,
            # and never takes that back, so his next timeout would not know its own cancellation.
            return [await task for task in tasks]
    except BaseExceptionGroup as failures:
        raise failures.exceptions[0] from failures


async def both(first: Coroutine[Any, Any, A], second: Coroutine[Any, Any, B]) -> tuple[A, B]:
    """Two things of different types; see `together`."""
    found: list[Any] = await together(first, second)
    return found[0], found[1]


class Models(Protocol):
    """Models by name. Every call raises `UnknownModel`, `Overloaded` (a queue is full),
    `ModelFailed` (the worker died or the engine failed) or `BadRequest`; cancelling the call
    cancels the work. A model is loaded when first used. What is not done at `call.deadline` raises
    `DeadlineExceeded`, the load included; of a stream, the deadline is for its start."""

    def names(self) -> Sequence[str]: ...

    async def info(self, model: str, *, call: Call = USER) -> ModelInfo: ...

    def generate(
        self,
        model: str,
        messages: Sequence[Message],
        params: GenerateParams,
        *,
        call: Call = USER,
    ) -> AsyncGenerator[Delta, None]: ...

    async def embed(
        self,
        model: str,
        texts: Sequence[str],
        kind: EmbedKind,
        *,
        call: Call = USER,
    ) -> Vectors: ...

    async def score(
        self,
        model: str,
        query: str,
        passages: Sequence[Passage],
        *,
        call: Call = USER,
    ) -> Vectors: ...

    async def compress(
        self, model: str, texts: Sequence[str], *, call: Call = USER
    ) -> list[bytes]: ...

    async def count(self, model: str, texts: Sequence[str], *, call: Call = USER) -> list[int]: ...


class WrappedModels:
    """Implements `Models` by others, to which it passes everything on; a subclass overrides what it
    is there for."""

    def __init__(self, models: Models) -> None:
        self._models = models

    def names(self) -> Sequence[str]:
        return self._models.names()

    async def info(self, model: str, *, call: Call = USER) -> ModelInfo:
        return await self._models.info(model, call=call)

    def generate(
        self,
        model: str,
        messages: Sequence[Message],
        params: GenerateParams,
        *,
        call: Call = USER,
    ) -> AsyncGenerator[Delta, None]:
        return self._models.generate(model, messages, params, call=call)

    async def embed(
        self, model: str, texts: Sequence[str], kind: EmbedKind, *, call: Call = USER
    ) -> Vectors:
        return await self._models.embed(model, texts, kind, call=call)

    async def score(
        self, model: str, query: str, passages: Sequence[Passage], *, call: Call = USER
    ) -> Vectors:
        return await self._models.score(model, query, passages, call=call)

    async def compress(self, model: str, texts: Sequence[str], *, call: Call = USER) -> list[bytes]:
        return await self._models.compress(model, texts, call=call)

    async def count(self, model: str, texts: Sequence[str], *, call: Call = USER) -> list[int]:
        return await self._models.count(model, texts, call=call)
