"""The one interface through which everything above talks to models."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, Coroutine, Sequence
from typing import Any, Protocol, TypeVar

from headrace.engines.base import ModelInfo, Vectors
from headrace.types import USER, Call, Delta, EmbedKind, GenerateParams, Message

A = TypeVar("A")
B = TypeVar("B")


async def both(first: Coroutine[Any, Any, A], second: Coroutine[Any, Any, B]) -> tuple[A, B]:
    """Two calls at once. If one fails, or the caller is cancelled, the other is cancelled too and
    has ended; with `asyncio.gather` it would go on for nobody, and whoever cancelled would not
    know his own cancellation again."""
    try:
        async with asyncio.TaskGroup() as group:
            one, other = group.create_task(first), group.create_task(second)
    except BaseExceptionGroup as failed:  # callers know the errors, not that two things ran at once
        raise failed.exceptions[0] from failed
    return one.result(), other.result()


class Models(Protocol):
    """Models by name. Every call raises `UnknownModel`, `Overloaded` (a queue is full),
    `ModelFailed` (the worker died or the engine failed) or `BadRequest`; cancelling the call
    cancels the work. A model is loaded when first used."""

    def names(self) -> Sequence[str]: ...

    async def info(self, model: str) -> ModelInfo: ...

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
        texts: Sequence[str],
        *,
        call: Call = USER,
    ) -> Vectors: ...

    async def count(self, model: str, texts: Sequence[str]) -> list[int]: ...
