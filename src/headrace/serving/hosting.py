"""The host of the models, put together: the workers, and who answers for them.

Apart from the application, because a host that runs no application needs none of its libraries.
"""

from __future__ import annotations

import contextlib
from collections.abc import AsyncIterator
from dataclasses import dataclass

from headrace.config.options import Config
from headrace.config.origin import Origin
from headrace.serving.control import Control, LocalControl
from headrace.serving.models import Models
from headrace.serving.operate import answer_operators
from headrace.serving.pool import Pool
from headrace.serving.sessions import install
from headrace.serving.settings_owner import owning
from headrace.serving.survey import Surveyor
from headrace.telemetry import Metrics


@dataclass(frozen=True)
class Host:
    """What an application has of the host of the models, be that another process or this one."""

    models: Models
    control: Control
    metrics: Metrics


@dataclass(frozen=True)
class LocalHost(Host):
    """The host itself."""

    control: LocalControl
    surveyor: Surveyor


@contextlib.asynccontextmanager
async def model_host(config: Config, origin: Origin | None = None) -> AsyncIterator[LocalHost]:
    """The models' workers, and who answers for them. Leaving it ends every worker.

    A server says where `config` came from, and follows what changes there; its bulk work has
    workers of its own, so that people hardly notice it. A single command, which nobody else uses,
    needs neither."""
    metrics = Metrics()
    control = LocalControl()
    async with contextlib.AsyncExitStack() as stack:
        pool = await stack.enter_async_context(Pool(config, twins=origin is not None))
        surveyor = Surveyor(metrics, pool.states, pool.devices)
        surveyor.register(control)
        if origin is not None:
            answer_operators(control, pool)
            owner = owning(origin, config, control, pool.configure)
            settings = await stack.enter_async_context(owner)
            await stack.enter_async_context(
                install(control, lambda: settings.config.server.sessions)
            )
        yield LocalHost(pool, control, metrics, surveyor)
