"""The host of the models, put together: the workers, and who answers for them.

Apart from the application, because a host that runs no application needs none of its libraries.
"""

from __future__ import annotations

import contextlib
from collections.abc import AsyncIterator
from dataclasses import dataclass

from headrace.config.options import Config
from headrace.serving.control import Control, LocalControl
from headrace.serving.models import Models
from headrace.serving.pool import Pool
from headrace.serving.sessions import install
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
async def model_host(config: Config, *, twins: bool = True) -> AsyncIterator[LocalHost]:
    """The models' workers, and who answers for them. Leaving it ends every worker. With `twins`,
    bulk work has workers of its own, so that people hardly notice it; a single command, which
    nobody else uses, needs none."""
    metrics = Metrics()
    control = LocalControl()
    async with Pool(config, twins=twins) as pool, install(control, lambda: config.server.sessions):
        surveyor = Surveyor(metrics, pool.states, pool.devices)
        surveyor.register(control)
        yield LocalHost(pool, control, metrics, surveyor)
