"""A running application over `echo` engines: in this loop, or behind a real socket."""

from __future__ import annotations

import asyncio
import contextlib
import socket
import threading
from collections.abc import AsyncIterator, Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import httpx
import uvicorn
from still_pool import StillPool

from headrace.config.options import Config
from headrace.config.origin import Origin
from headrace.http.app import create_app
from headrace.http.protocol import Protocol
from headrace.ingest.jobs import Jobs
from headrace.pipeline.services import Services
from headrace.retrieval.collections import Collections
from headrace.serving.catalogue import model_specs
from headrace.serving.control import LocalControl
from headrace.serving.local import LocalModels
from headrace.serving.measured import MeasuredModels
from headrace.serving.models import Models
from headrace.serving.operate import answer_operators
from headrace.serving.sessions import install
from headrace.serving.settings_owner import Owner
from headrace.serving.survey import Surveyor
from headrace.telemetry import Metrics

MARKETS = """# Market rules

## Opening hours

The weekly market opens at six in the morning and closes at noon. Traders must leave by two.

## Dogs

Dogs must be kept on a leash at the market. A fine of 40 francs applies.
"""
SALARIES = """# Salaries

The director of the market earns 9,000 francs a month.
"""

KEYS = {"READER_KEY": "reader-secret", "OWNER_KEY": "owner-secret"}


def write_documents(folder: Path) -> Path:
    folder.mkdir(exist_ok=True)
    (folder / "markets.md").write_text(MARKETS, encoding="utf-8")
    return folder


def write_config(config: Config) -> Origin:
    """A file that says what `config` says (YAML holds JSON), beside its data folder."""
    file = config.data_dir.parent / "headrace.yaml"
    file.write_text(config.model_dump_json(indent=1), encoding="utf-8")
    return Origin(file, environment=KEYS)


async def eventually(condition: Callable[[], object], seconds: float = 20.0) -> None:
    """Wait until something is so that nothing tells of."""
    async with asyncio.timeout(seconds):
        while not condition():  # noqa: ASYNC110
            await asyncio.sleep(0.005)


@contextlib.asynccontextmanager
async def running(
    config: Config, wrap: Callable[[Models], Models] = lambda models: models
) -> AsyncIterator[Services]:
    """Services over the data folder of `config`, with models in this process."""
    folder = config.data_dir / "collections"
    with contextlib.closing(Collections(folder)) as collections:
        models = LocalModels(model_specs(config))
        control = LocalControl()
        sessions = install(control, lambda: config.server.sessions)
        async with sessions, Jobs(config, collections, models) as jobs:
            metrics = Metrics()
            measured = MeasuredModels(wrap(models), metrics)
            pool = StillPool(config)
            Surveyor(metrics, list, pool.devices).register(control)
            answer_operators(control, pool)
            Owner(write_config(config), config, pool.configure).register(control)
            yield Services(config, "test-1", measured, collections, jobs, metrics, control)
        await models.close()


async def fill(config: Config) -> None:
    """Make the collection `town`: a document for all, and one that only `hr` may read."""
    documents = write_documents(config.data_dir.parent / "documents")
    secret = config.data_dir.parent / "salaries.md"
    secret.write_text(SALARIES, encoding="utf-8")
    async with running(config) as services:
        await services.jobs.run("town", [documents])
        await services.jobs.run("town", [secret], labels=["hr"])


@contextlib.asynccontextmanager
async def connect(services: Services, **headers: str) -> AsyncIterator[httpx.AsyncClient]:
    """A client of a new application over these services, without a socket."""
    transport = httpx.ASGITransport(create_app(services, KEYS), raise_app_exceptions=False)
    async with httpx.AsyncClient(
        transport=transport, base_url="http://localhost", headers=headers
    ) as client:
        yield client


@dataclass
class Live:
    """A server on a real socket, in a thread with a loop of its own."""

    url: str
    loop: asyncio.AbstractEventLoop


@contextlib.contextmanager
def live(
    config: Config, wrap: Callable[[Models], Models] = lambda models: models
) -> Iterator[Live]:
    listener = socket.create_server(("127.0.0.1", 0))
    server: uvicorn.Server | None = None
    loop: asyncio.AbstractEventLoop | None = None
    failure: list[BaseException] = []
    ready = threading.Event()

    async def serve() -> None:
        nonlocal server, loop
        loop = asyncio.get_running_loop()
        async with running(config, wrap) as services:
            options = uvicorn.Config(
                create_app(services),
                http=Protocol.bounded(config.server),
                log_config=None,
                lifespan="off",
                timeout_graceful_shutdown=5,
            )
            server = uvicorn.Server(options)
            ready.set()
            await server.serve(sockets=[listener])

    def run() -> None:
        try:
            asyncio.run(serve())
        except BaseException as error:
            failure.append(error)
            raise
        finally:
            ready.set()

    thread = threading.Thread(target=run)
    thread.start()
    ready.wait()
    try:
        if server is not None and loop is not None:
            yield Live(f"http://127.0.0.1:{listener.getsockname()[1]}", loop)
        else:
            raise failure[0]
    finally:
        if server is not None:
            server.should_exit = True
        thread.join()
        listener.close()
