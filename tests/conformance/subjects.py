"""The layers under test behind one face: each offers a short request, a stream, and its workers.

`groups` are batchers and workers alone; `pool` adds admission and the arbiter; `remote` is the pool
seen from another process over a socket; `http` the models' API on a port; `answers` the pipeline
from a question to a cited answer, on the same port.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import signal
import socket
from collections.abc import AsyncGenerator, AsyncIterator, Callable
from pathlib import Path
from typing import Any, Protocol

import httpx
import numpy as np
from tests.conformance.harness import BOUND

from headrace.app import application
from headrace.cli.listening import listen
from headrace.cli.server import Server, server_options
from headrace.config.model_options import ModelOptions
from headrace.config.options import Config, ServerOptions
from headrace.config.origin import Origin
from headrace.errors import ModelFailed, by_code
from headrace.http.app import create_app
from headrace.serving.arbiter_types import Place
from headrace.serving.catalogue import model_specs
from headrace.serving.control import LocalControl
from headrace.serving.group import Group
from headrace.serving.host import HostServer
from headrace.serving.hosting import model_host
from headrace.serving.models import Models
from headrace.serving.pool import Pool
from headrace.serving.remote import RemoteHost
from headrace.serving.settings import following
from headrace.types import Call, GenerateParams, Message, Role

POISON, CRASH, HANG = "bane", "boom", "stall"
FAULTS = f"poison={POISON},crash={CRASH},hang={HANG}"
LONG = "word " * 4000
TALK, VECTORS, NARROW, SLOW = "talk", "vectors", "narrow", "slow"
COLLECTION = "town"
FILE = "headrace.yaml"
DOCUMENT = "# Dogs\n\nDogs must be kept on a leash at the weekly market of the town.\n"


def models(role: Role, source: str, **options: Any) -> ModelOptions:
    return ModelOptions(role=role, engine="echo", source=source, **options)


def configured(folder: Path, **more: ModelOptions) -> Config:
    """The models that every layer has: they fail on the words above, and are taken for hung after
    a good second."""
    hung = {"timeout_seconds": 1.2}
    named = {
        TALK: models(Role.GENERATOR, f"delay=0.02,{FAULTS}", context=20_000, **hung),
        VECTORS: models(Role.EMBEDDER, FAULTS, **hung),
        NARROW: models(Role.EMBEDDER, "delay=0.4", max_pending=2),
        SLOW: models(Role.EMBEDDER, "load=0.8"),
        **more,
    }
    return Config(
        data_dir=folder / "data",
        cache_dir=folder / "cache",
        server=ServerOptions(port=0, shutdown_seconds=1.0),
        models=named,
        defaults={"generator": TALK, "embedder": VECTORS, "reranker": None},  # type: ignore[arg-type]
    )


class Subject(Protocol):
    folder: Path

    async def ask(self, *texts: str, model: str = VECTORS, call: Call = Call()) -> object: ...  # noqa: B008

    def stream(self, text: str, *, call: Call = Call()) -> AsyncGenerator[str]: ...  # noqa: B008

    def workers(self, model: str) -> tuple[int, ...]: ...

    async def park(self, model: str) -> None: ...

    async def leave(self, model: str) -> None: ...

    async def configure(self, config: Config) -> None: ...


class OfModels:
    """Anything that is `Models`, over a pool that this process can see."""

    def __init__(self, seen: Models, pool: Pool, folder: Path) -> None:
        self.models = seen
        self.pool = pool
        self.folder = folder

    async def ask(self, *texts: str, model: str = VECTORS, call: Call = Call()) -> object:  # noqa: B008
        return await self.models.embed(model, texts, "query", call=call)

    async def stream(self, text: str, *, call: Call = Call()) -> AsyncGenerator[str]:  # noqa: B008
        params = GenerateParams(max_tokens=10_000)
        stream = self.models.generate(TALK, [Message("user", text)], params, call=call)
        async with contextlib.aclosing(stream) as deltas:
            async for delta in deltas:
                if delta.text:
                    yield delta.text

    def workers(self, model: str) -> tuple[int, ...]:
        return self.pool.processes().get(model, ())

    async def park(self, model: str) -> None:
        await self.pool.order(model, Place.PARKED)

    async def leave(self, model: str) -> None:
        await self.pool.order(model, Place.GONE)

    async def configure(self, config: Config) -> None:
        await self.pool.configure(config)


class OfGroups:
    """Groups alone: what the arbiter does otherwise, bringing a dead one back, is done here."""

    def __init__(self, config: Config) -> None:
        self.folder = config.data_dir.parent
        specs = model_specs(config)
        self._groups = {name: Group(spec, on_death=lambda _: None) for name, spec in specs.items()}
        self._locks = {name: asyncio.Lock() for name in specs}
        self._closed = False

    async def _group(self, name: str) -> Group:
        async with self._locks[name]:
            if self._closed:
                raise ModelFailed("it is closed")
            await self._groups[name].bring("cpu")
            return self._groups[name]

    async def ask(self, *texts: str, model: str = VECTORS, call: Call = Call()) -> object:  # noqa: B008
        return await (await self._group(model)).embed(texts, "query", call)

    async def stream(self, text: str, *, call: Call = Call()) -> AsyncGenerator[str]:  # noqa: B008
        group = await self._group(TALK)
        stream = group.generate([Message("user", text)], GenerateParams(max_tokens=10_000), call)
        async with contextlib.aclosing(stream) as deltas:
            async for delta in deltas:
                if delta.text:
                    yield delta.text

    def workers(self, model: str) -> tuple[int, ...]:
        return self._groups[model].pids()

    async def park(self, model: str) -> None:
        async with self._locks[model]:
            await self._groups[model].park()

    async def leave(self, model: str) -> None:
        async with self._locks[model]:
            await self._groups[model].leave()

    async def configure(self, config: Config) -> None:
        raise NotImplementedError

    async def close(self) -> None:
        self._closed = True
        for group in self._groups.values():
            await group.leave()


class OfHttp(OfModels):
    """The models' API. Every request has a connection of its own."""

    def __init__(self, url: str, pool: Pool, folder: Path) -> None:
        super().__init__(pool, pool, folder)
        self.url = url

    def client(self) -> httpx.AsyncClient:
        return httpx.AsyncClient(base_url=self.url, timeout=BOUND)

    async def post(self, path: str, body: dict[str, Any], call: Call) -> Any:
        async with self.client() as client:
            answer = await client.post(path, json=body, headers=_headers(call))
            _check(answer)
            return answer.json()

    async def lines(self, path: str, body: dict[str, Any], call: Call) -> AsyncGenerator[Any]:
        """The data of a stream's events. Raises what the error event in it says."""
        async with (
            self.client() as client,
            client.stream("POST", path, json=body, headers=_headers(call)) as answer,
        ):
            if answer.is_error:
                await answer.aread()
            _check(answer)
            async for line in answer.aiter_lines():
                data = line.removeprefix("data: ")
                if not line.startswith("data: ") or data == "[DONE]":
                    continue
                event = json.loads(data)
                error = event.get("error") or (event if event.get("type") == "error" else None)
                if error:
                    raise by_code(error["code"], error["message"])
                yield event

    async def ask(self, *texts: str, model: str = VECTORS, call: Call = Call()) -> object:  # noqa: B008
        found = await self.post("/v1/embeddings", {"model": model, "input": list(texts)}, call)
        return np.array([one["embedding"] for one in found["data"]], np.float32)

    async def stream(self, text: str, *, call: Call = Call()) -> AsyncGenerator[str]:  # noqa: B008
        messages = [{"role": "user", "content": text}]
        body = {"model": TALK, "messages": messages, "stream": True, "max_tokens": 10_000}
        async with contextlib.aclosing(self.lines("/v1/chat/completions", body, call)) as events:
            async for event in events:
                for choice in event["choices"]:
                    if choice["delta"].get("content"):
                        yield choice["delta"]["content"]

    async def configure(self, config: Config) -> None:
        """By the file, as people do it; with what comes into force from there."""
        (self.folder / FILE).write_text(config.model_dump_json(), encoding="utf-8")
        async with self.client() as client, asyncio.timeout(BOUND):
            while True:
                shown = (await client.get("/admin/config")).json()["values"]
                if shown["models"] == config.model_dump(mode="json")["models"]:
                    return
                await asyncio.sleep(0.02)


class OfAnswers(OfHttp):
    """The pipeline: a search, and a question answered."""

    async def ask(self, *texts: str, model: str = VECTORS, call: Call = Call()) -> object:  # noqa: B008
        if model != VECTORS:
            return await super().ask(*texts, model=model, call=call)
        path = f"/api/collections/{COLLECTION}/search"
        return [await self.post(path, {"query": text}, call) for text in texts]

    async def stream(self, text: str, *, call: Call = Call()) -> AsyncGenerator[str]:  # noqa: B008
        question = f"Where must dogs be kept on a leash? {text}"[:2000]
        body = {"collection": COLLECTION, "question": question}
        async with contextlib.aclosing(self.lines("/api/rag/chat", body, call)) as events:
            async for event in events:
                yield event["type"]


def _headers(call: Call) -> dict[str, str]:
    if call.deadline is None:
        return {}
    left = call.deadline - asyncio.get_running_loop().time()
    return {"X-Deadline-Ms": str(max(1, round(left * 1000)))}


def _check(answer: httpx.Response) -> None:
    if answer.is_error:
        error = answer.json()["error"]
        raise by_code(error["code"], error["message"])


# Made ------------------------------------------------------------------------------------------


@contextlib.asynccontextmanager
async def groups(config: Config) -> AsyncIterator[OfGroups]:
    subject = OfGroups(config)
    try:
        yield subject
    finally:
        await subject.close()


@contextlib.asynccontextmanager
async def pool(config: Config) -> AsyncIterator[OfModels]:
    async with Pool(config) as made:
        yield OfModels(made, made, config.data_dir.parent)


@contextlib.asynccontextmanager
async def remote(config: Config) -> AsyncIterator[OfModels]:
    async with Pool(config) as made, HostServer(made, LocalControl()) as server:
        ours, theirs = socket.socketpair()
        await server.attach(ours, "1")
        host = RemoteHost(lambda: None)
        await host.connect(theirs)
        try:
            yield OfModels(host.models, made, config.data_dir.parent)
        finally:
            await host.close()


@contextlib.asynccontextmanager
async def http(config: Config, kind: type[OfHttp] = OfHttp) -> AsyncIterator[OfHttp]:
    """All that `headrace up` puts together, in this loop; left as by SIGTERM."""
    folder = config.data_dir.parent
    (folder / FILE).write_text(config.model_dump_json(), encoding="utf-8")
    origin = Origin(folder / FILE)
    async with model_host(config, origin) as host, application(config, host) as services:
        app = create_app(services)
        server = Server(server_options(config, app))
        follow = following(services.control, services.config_version, app.state.live.configure)
        with listen(config.server) as listener:
            serving = asyncio.create_task(server.serve(sockets=[listener]))
            async with follow:
                assert isinstance(host.models, Pool)
                url = f"http://127.0.0.1:{listener.getsockname()[1]}"
                try:
                    yield kind(url, host.models, folder)
                finally:
                    server._stop(signal.SIGTERM)
                    await serving


@contextlib.asynccontextmanager
async def answers(config: Config) -> AsyncIterator[OfHttp]:
    folder = config.data_dir.parent / "documents"
    folder.mkdir()
    (folder / "dogs.md").write_text(DOCUMENT, encoding="utf-8")
    async with application(config) as services:
        await services.jobs.run(COLLECTION, [folder])
    async with http(config, OfAnswers) as subject:
        yield subject


LAYERS: dict[str, Callable[[Config], contextlib.AbstractAsyncContextManager[Subject]]] = {
    "groups": groups,
    "pool": pool,
    "remote": remote,
    "http": http,
    "answers": answers,
}
