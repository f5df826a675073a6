"""Default models are loaded when the server starts, so that its first question need not wait."""

from __future__ import annotations

import asyncio
import contextlib
import logging
from collections.abc import AsyncGenerator, Sequence

from headrace.errors import HeadraceError
from headrace.serving.models import Models

log = logging.getLogger(__name__)

FIRST_RETRY_SECONDS = 5.0
LAST_RETRY_SECONDS = 300.0


class Warmup:
    """Loads models one after the other, and those that failed again: after 5 s, then after twice
    as long each time, up to every 5 minutes. A failure never ends it."""

    def __init__(
        self, models: Models, names: Sequence[str], first_retry: float = FIRST_RETRY_SECONDS
    ) -> None:
        self._models = models
        self._names = tuple(dict.fromkeys(names))
        self._first_retry = first_retry
        self.failures: dict[str, str] = {}
        """Why a model could not be loaded when last tried, by its name."""

    async def run(self) -> None:
        """Returns when every model has been loaded."""
        waiting, delay = list(self._names), self._first_retry
        while waiting := [name for name in waiting if not await self._load(name)]:
            await asyncio.sleep(delay)
            delay = min(2 * delay, LAST_RETRY_SECONDS)

    async def _load(self, name: str) -> bool:
        try:
            await self._models.info(name)
        except HeadraceError as error:
            log.warning("model %r could not be loaded: %s", name, error.message)
            self.failures[name] = error.message
            return False
        self.failures.pop(name, None)
        return True

    @contextlib.asynccontextmanager
    async def in_background(self) -> AsyncGenerator[None]:
        """Runs for as long as the body does at most."""
        task = asyncio.create_task(self.run(), name="warmup")
        try:
            yield
        finally:
            task.cancel()
            with contextlib.suppress(asyncio.CancelledError):
                await task
