"""A server process's end of the link to the host: its models, its questions, its answers."""

from __future__ import annotations

import asyncio
import socket
from collections.abc import AsyncGenerator, Callable, Sequence
from typing import TypeVar

import msgspec

from headrace.engines.base import ModelInfo, Passage, Vectors
from headrace.errors import ModelFailed
from headrace.serving import hostwire as wire
from headrace.serving.control import LocalControl, Topic
from headrace.serving.exchange import Answering, Asking
from headrace.serving.link import Link
from headrace.serving.wire import split
from headrace.types import USER, Call, Delta, EmbedKind, GenerateParams, Message

Q = TypeVar("Q", bound=msgspec.Struct)
R = TypeVar("R", bound=msgspec.Struct)

CONNECT_SECONDS = 30.0


class RemoteHost:
    """The host as seen from a server process, over one socket. `gone` is called once when it has
    ended without being asked to; from then on every request fails with `ModelFailed`.

    `answers` holds the handlers of what the host asks this process."""

    def __init__(self, gone: Callable[[], None]) -> None:
        self.names: tuple[str, ...] = ()
        self.answers = LocalControl()
        self._gone = gone
        self._closing = False
        self._asking = Asking("the host process of the models")
        self._answering = Answering(self._send)
        self._greeted = asyncio.Event()
        self._link: Link[wire.ToServer, wire.ToHost] = Link(
            wire.to_server, self._receive, self._lost
        )
        self.models = RemoteModels(self)
        self.control = RemoteControl(self)

    async def connect(self, end: socket.socket) -> None:
        """Returns when the names of the models are known. Raises `ModelFailed`."""
        await self._link.attach(end)
        try:
            async with asyncio.timeout(CONNECT_SECONDS):
                await self._greeted.wait()
        except TimeoutError as error:
            await self.close()
            raise ModelFailed(
                f"the host process said nothing for {CONNECT_SECONDS:.0f} s"
            ) from error
        if not self._link.open:
            raise ModelFailed("the host process is gone")

    async def close(self) -> None:
        self._closing = True
        await self._link.close()
        await self._answering.end()

    def _send(self, message: wire.ToHost) -> None:
        self._link.send(message)

    def _receive(self, message: wire.ToServer) -> None:
        if isinstance(message, wire.Names):
            self.names = message.names
            self._greeted.set()
        elif isinstance(message, wire.Cancel):
            self._answering.cancel(message.id)
        elif isinstance(message, wire.Ask):
            self._answering.start(message, self._tell)
        else:
            self._asking.deliver(message)

    async def _tell(self, ask: wire.Ask) -> None:
        reply = await self.answers.ask_encoded(ask.topic, ask.question)
        self._send(wire.Told(ask.id, reply))

    def _lost(self) -> None:
        self._asking.end()
        self._greeted.set()
        if not self._closing:
            self._gone()

    async def call(self, make: Callable[[int], wire.Request]) -> wire.Reply:
        """A request with one reply."""
        with self._asking.request(self._send, make) as (_, replies):
            return await replies.next()

    async def stream(self, make: Callable[[int], wire.Request]) -> AsyncGenerator[Delta, None]:
        taken = 0
        with self._asking.request(self._send, make) as (number, replies):
            while True:
                reply = await replies.next()
                if type(reply) is wire.Text:
                    yield Delta(reply.text)
                elif type(reply) is wire.Part:
                    yield reply.delta
                else:
                    return
                taken += 1
                if taken == wire.WINDOW // 2:
                    self._send(wire.Credit(number, taken))
                    taken = 0


class RemoteModels:
    """Implements `headrace.serving.models.Models` over a `RemoteHost`."""

    def __init__(self, host: RemoteHost) -> None:
        self._host = host

    def names(self) -> Sequence[str]:
        return self._host.names

    async def info(self, model: str, *, call: Call = USER) -> ModelInfo:
        reply = await self._host.call(lambda id: wire.Info(id, model, call))
        assert isinstance(reply, wire.Known)
        return reply.info

    def generate(
        self,
        model: str,
        messages: Sequence[Message],
        params: GenerateParams,
        *,
        call: Call = USER,
    ) -> AsyncGenerator[Delta, None]:
        told = tuple(messages)
        return self._host.stream(lambda id: wire.Generate(id, model, told, params, call))

    async def embed(
        self,
        model: str,
        texts: Sequence[str],
        kind: EmbedKind,
        *,
        call: Call = USER,
    ) -> Vectors:
        reply = await self._host.call(lambda id: wire.Embed(id, model, tuple(texts), kind, call))
        assert isinstance(reply, wire.Array)
        return reply.values()

    async def score(
        self,
        model: str,
        query: str,
        passages: Sequence[Passage],
        *,
        call: Call = USER,
    ) -> Vectors:
        given = split(passages)
        reply = await self._host.call(lambda id: wire.Score(id, model, query, *given, call))
        assert isinstance(reply, wire.Array)
        return reply.values()

    async def compress(self, model: str, texts: Sequence[str], *, call: Call = USER) -> list[bytes]:
        reply = await self._host.call(lambda id: wire.Compress(id, model, tuple(texts), call))
        assert isinstance(reply, wire.Codes)
        return list(reply.values)

    async def count(self, model: str, texts: Sequence[str], *, call: Call = USER) -> list[int]:
        reply = await self._host.call(lambda id: wire.Count(id, model, tuple(texts), call))
        assert isinstance(reply, wire.Counts)
        return list(reply.values)


class RemoteControl:
    """Implements `headrace.serving.control.Control` over a `RemoteHost`."""

    def __init__(self, host: RemoteHost) -> None:
        self._host = host

    async def ask(self, topic: Topic[Q, R], question: Q) -> R:
        encoded = msgspec.msgpack.encode(question)
        reply = await self._host.call(lambda id: wire.Ask(id, topic.name, encoded))
        assert isinstance(reply, wire.Told)
        return msgspec.msgpack.decode(reply.reply, type=topic.reply)
