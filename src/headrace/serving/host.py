"""The host's end of the links to the server processes: it serves them models and answers.

When a link ends, for whatever reason, all that was asked through it is cancelled.
"""

from __future__ import annotations

import asyncio
import contextlib
import itertools
import logging
import socket
from collections.abc import Callable
from typing import Any, TypeVar

import msgspec

from headrace.errors import HeadraceError
from headrace.serving import hostwire as wire
from headrace.serving.control import LocalControl, Topic
from headrace.serving.exchange import Answering, Asking
from headrace.serving.link import Link
from headrace.serving.models import Models
from headrace.serving.wire import join

log = logging.getLogger(__name__)

Q = TypeVar("Q", bound=msgspec.Struct)
R = TypeVar("R", bound=msgspec.Struct)


class HostServer:
    """Serves `models` and `control` to any number of server processes. Use as an async context
    manager: leaving it ends every link and all work."""

    def __init__(self, models: Models, control: LocalControl) -> None:
        self._models = models
        self._control = control
        self._links: dict[int, _Served] = {}
        self._numbers = itertools.count(1)
        self._endings: set[asyncio.Task[None]] = set()

    async def __aenter__(self) -> HostServer:
        return self

    async def __aexit__(self, *_: object) -> None:
        for served in list(self._links.values()):
            await served.close()
        while self._endings:
            await asyncio.wait(self._endings)

    async def attach(self, end: socket.socket, name: str) -> None:
        """Serve the process at the other end of a connected socket, until it is gone. `name` is
        how metrics and log lines call it."""
        number = next(self._numbers)
        served = _Served(self._models, self._control, name, lambda: self._lost(number))
        self._links[number] = served
        await served.attach(end)

    def _lost(self, number: int) -> None:
        ending = asyncio.create_task(self._links.pop(number).end())
        self._endings.add(ending)
        ending.add_done_callback(self._endings.discard)

    def links(self) -> dict[int, str]:
        """The live links by number, which is never used twice, with the name of each."""
        return {number: served.name for number, served in self._links.items()}

    @property
    def work(self) -> int:
        """Requests of server processes under way."""
        return sum(served.work for served in self._links.values())

    async def ask_all(self, topic: Topic[Q, R], question: Q, seconds: float) -> dict[int, R]:
        """Ask every server process at once; the replies by number of the link. One that fails, or
        does not answer in time, is left out, and logged."""
        asked = dict(self._links)
        replies = await asyncio.gather(
            *(served.ask(topic, question, seconds) for served in asked.values())
        )
        pairs = zip(asked, replies, strict=True)
        return {number: reply for number, reply in pairs if reply is not None}


class _Window:
    """How many deltas of a stream may still be sent."""

    __slots__ = ("left", "more")

    def __init__(self) -> None:
        self.left = wire.WINDOW
        self.more = asyncio.Event()

    async def opened(self) -> None:
        while self.left <= 0:
            self.more.clear()
            await self.more.wait()


class _Served:
    """One server process."""

    def __init__(
        self, models: Models, control: LocalControl, name: str, lost: Callable[[], None]
    ) -> None:
        self.name = name
        self._models = models
        self._control = control
        self._names: tuple[str, ...] | None = None
        self._windows: dict[int, _Window] = {}
        self._asking = Asking(f"server process {name}")
        self._answering = Answering(self._send)
        self._link: Link[wire.ToHost, wire.ToServer] = Link(wire.to_host, self._receive, lost)

    async def attach(self, end: socket.socket) -> None:
        await self._link.attach(end)
        self._tell_names()

    @property
    def work(self) -> int:
        return len(self._answering)

    async def close(self) -> None:
        await self._link.close()

    async def end(self) -> None:
        """After its link has ended: returns when nothing is done for it any more."""
        self._asking.end()
        await self._answering.end()

    async def ask(self, topic: Topic[Q, R], question: Q, seconds: float) -> R | None:
        encoded = msgspec.msgpack.encode(question)
        try:
            async with asyncio.timeout(seconds):
                with self._asking.request(
                    self._send, lambda id: wire.Ask(id, topic.name, encoded)
                ) as (_, replies):
                    reply = await replies.next()
        except TimeoutError:
            log.warning("server process %s did not answer within %g s", self.name, seconds)
            return None
        except HeadraceError as error:
            log.warning("server process %s cannot answer: %s", self.name, error.message)
            return None
        assert isinstance(reply, wire.Told)
        return msgspec.msgpack.decode(reply.reply, type=topic.reply)

    # Its requests -------------------------------------------------------------------------------

    def _send(self, message: Any) -> None:
        self._link.send(message)

    def _tell_names(self) -> None:
        """Whoever hears of a new model by a reply knows its name by then."""
        names = tuple(self._models.names())
        if names != self._names:
            self._names = names
            self._send(wire.Names(names))

    def _receive(self, message: wire.ToHost) -> None:
        match message:
            case wire.Credit(id, deltas):
                window = self._windows.get(id)
                if window is not None:
                    window.left += deltas
                    window.more.set()
            case wire.Cancel(id):
                self._answering.cancel(id)
            case wire.Told() | wire.Failed():
                self._asking.deliver(message)
            case wire.Generate():
                self._answering.start(message, self._generate)
            case wire.Ask():
                self._answering.start(message, self._tell)
            case _:
                self._answering.start(message, self._compute)

    async def _generate(self, asked: wire.Generate) -> None:
        id, window = asked.id, _Window()
        self._windows[id] = window
        generated = self._models.generate(
            asked.model, asked.messages, asked.params, call=asked.call
        )
        try:
            async with contextlib.aclosing(generated) as deltas:
                async for delta in deltas:
                    if window.left <= 0:
                        await window.opened()
                    window.left -= 1
                    if delta.finish_reason is None and delta.usage is None:
                        self._send(wire.Text(id, delta.text))
                    else:
                        self._send(wire.Part(id, delta))
            self._send(wire.End(id))
        finally:
            del self._windows[id]

    async def _compute(
        self, asked: wire.Info | wire.Embed | wire.Score | wire.Compress | wire.Count
    ) -> None:
        match asked:
            case wire.Info(id, model, call):
                self._send(wire.Known(id, await self._models.info(model, call=call)))
            case wire.Embed(id, model, texts, kind, call):
                found = await self._models.embed(model, texts, kind, call=call)
                self._send(wire.Array.of(id, found))
            case wire.Score(id, model, query, texts, codes, call):
                passages = join(texts, codes)
                found = await self._models.score(model, query, passages, call=call)
                self._send(wire.Array.of(id, found))
            case wire.Compress(id, model, texts, call):
                made = await self._models.compress(model, texts, call=call)
                self._send(wire.Codes(id, tuple(made)))
            case wire.Count(id, model, texts, call):
                counted = await self._models.count(model, texts, call=call)
                self._send(wire.Counts(id, tuple(counted)))

    async def _tell(self, asked: wire.Ask) -> None:
        reply = await self._control.ask_encoded(asked.topic, asked.question)
        self._tell_names()
        self._send(wire.Told(asked.id, reply))
