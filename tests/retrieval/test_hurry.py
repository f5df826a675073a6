"""The question's vector, if it comes in time."""

from __future__ import annotations

import asyncio
import time
from typing import Any

import numpy as np
import pytest

from headrace.errors import ModelFailed
from headrace.retrieval.hurry import SHARE, Embedded, embedded
from headrace.serving.paces import ENOUGH, Paces
from headrace.types import USER, Call


class Embedder:
    """Takes `seconds`, or fails."""

    def __init__(self, seconds: float = 0.0, error: Exception | None = None) -> None:
        self.seconds, self.error = seconds, error
        self.deadlines: list[float | None] = []

    async def info(self, model: str, *, call: Call) -> Any:
        self.deadlines.append(call.deadline)
        return model

    async def embed(self, model: str, texts: list[str], kind: str, *, call: Call) -> Any:
        self.deadlines.append(call.deadline)
        await asyncio.sleep(self.seconds)
        if self.error is not None:
            raise self.error
        return np.ones((len(texts), 2), np.float32)


async def ask(models: Embedder, seconds: float | None, paces: Paces | None = None) -> Embedded:
    call = USER if seconds is None else Call(deadline=time.monotonic() + seconds)
    return await embedded(models, "e", ["a", "b"], call, paces or Paces())  # type: ignore[arg-type]


async def test_without_a_deadline_it_is_waited_for() -> None:
    models = Embedder(0.05)
    found = await ask(models, None)
    assert found.vectors is not None
    assert found.vectors.shape == (2, 2)
    assert found.info is not None
    assert not found.skipped
    assert models.deadlines == [None, None], "for what the model is, and for the vectors"


async def test_it_has_its_share_of_the_time() -> None:
    models = Embedder()
    began = time.monotonic()
    found = await ask(models, 100)
    assert found.vectors is not None
    (end,) = set(models.deadlines)
    assert end is not None
    assert 100 * SHARE - 10 < end - began < 100 * SHARE + 10


async def test_what_does_not_come_is_given_up_and_remembered() -> None:
    paces = Paces()
    found = await ask(Embedder(60), 0.2, paces)
    assert found.vectors is None
    assert "words alone" in found.skipped[0]
    assert paces.usual("e") is None
    assert (paces.usual("embed e", 2) or 0) >= 0.15


async def test_an_embedder_that_is_usually_too_slow_is_not_asked() -> None:
    paces = Paces()
    for _ in range(ENOUGH + 1):
        paces.note("embed e", 5.0, 2)
    models = Embedder()
    found = await ask(models, 1.0, paces)
    assert found.vectors is None
    assert "takes 5000 ms" in found.skipped[0]
    assert not models.deadlines
    assert (await ask(models, 100, paces)).vectors is not None


async def test_other_failures_are_failures() -> None:
    with pytest.raises(ModelFailed):
        await ask(Embedder(error=ModelFailed("gone")), 10)
