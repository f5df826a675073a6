"""Every layer is ended while it is busy: whoever was admitted is told, and nothing is left."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator
from pathlib import Path

import pytest
from tests.conformance.harness import RESULT, leaving_nothing, outcome, until
from tests.conformance.subjects import LAYERS, LONG, NARROW, SLOW, TALK, Subject, configured

pytestmark = pytest.mark.slow

# What a request may be told: its model went, the server goes, or (HTTP) the way there is closed.
ENDS = {RESULT, "model_failed", "shutting_down", "overloaded"}


@pytest.fixture(autouse=True)
async def _nothing_left() -> AsyncIterator[None]:
    async with leaving_nothing():
        yield


async def spoken(subject: Subject, text: str) -> None:
    async with contextlib.aclosing(subject.stream(text)) as pieces:
        async for _ in pieces:
            pass


@pytest.mark.parametrize("name", LAYERS)
async def test_shutdown_under_load(name: str, tmp_path: Path) -> None:
    """Streams, texts that are computed, texts that wait, and a model that is being loaded."""
    async with LAYERS[name](configured(tmp_path)) as subject:
        works = [spoken(subject, LONG) for _ in range(3)]
        works += [subject.ask(f"text {n}", model=NARROW) for n in range(6)]  # type: ignore[misc]
        works += [subject.ask(f"text {n}", model=SLOW) for n in range(2)]  # type: ignore[misc]
        tasks = [asyncio.create_task(outcome(work)) for work in works]
        await until(lambda: subject.workers(TALK) and subject.workers(NARROW), "it is busy")
    # Left as by SIGTERM. Whatever has not been told now is told by what the layer left behind.
    async with asyncio.timeout(10):
        found = await asyncio.gather(*tasks)
    assert set(found) <= ENDS
    if name != "answers":  # whose answers are short
        assert "model_failed" in found or "shutting_down" in found


@pytest.mark.parametrize("name", ["pool", "remote"])
async def test_who_comes_too_late_is_told(name: str, tmp_path: Path) -> None:
    async with LAYERS[name](configured(tmp_path)) as subject:
        assert await outcome(subject.ask("x")) == RESULT
    assert await outcome(subject.ask("x")) in ("shutting_down", "model_failed")
    assert await outcome(spoken(subject, "x")) in ("shutting_down", "model_failed")
