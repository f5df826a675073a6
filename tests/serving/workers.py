"""What tests of worker processes share."""

from __future__ import annotations

import asyncio
import tempfile
from collections.abc import Callable
from pathlib import Path

import psutil

from headrace.engines.base import ModelSpec
from headrace.types import Role

PATIENCE = 30.0


def spec(source: str = "", **options: object) -> ModelSpec:
    return ModelSpec("echo", Role.GENERATOR, "echo", source, "", dict(options))


async def until(condition: Callable[[], object]) -> None:
    async with asyncio.timeout(PATIENCE):
        while not condition():  # noqa: ASYNC110 - other processes set no event
            await asyncio.sleep(0.01)


def children() -> set[psutil.Process]:
    return set(psutil.Process().children())


def folders() -> set[Path]:
    return set(Path(tempfile.gettempdir()).glob("headrace-*"))
