"""The one interface through which everything above talks to models."""

from __future__ import annotations

from collections.abc import AsyncGenerator, Sequence
from typing import Protocol

from headrace.engines.base import ModelInfo, Vectors
from headrace.types import USER, Call, Delta, EmbedKind, GenerateParams, Message


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
