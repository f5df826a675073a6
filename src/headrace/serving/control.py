"""Questions that a server process asks of the host: sessions, settings, the state of the models.

With one server process the host is the same process and `LocalControl` calls the handler; with
several, `headrace.serving.remote` carries question and reply over the host's socket. A topic pairs
both types, so that neither side can take one for another:

    OPEN = Topic("sessions.open", OpenSessions, SessionsOpened)
    control.answer(OPEN, handler)                    # once, in the host
    opened = await control.ask(OPEN, OpenSessions(...))   # anywhere
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from typing import Any, Generic, Protocol, TypeVar

import msgspec

Q = TypeVar("Q", bound=msgspec.Struct)
R = TypeVar("R", bound=msgspec.Struct)


@dataclass(frozen=True)
class Topic(Generic[Q, R]):
    """A kind of question. `name` is unique in the program."""

    name: str
    question: type[Q]
    reply: type[R]


Handler = Callable[[Any], Awaitable[msgspec.Struct]]


class Control(Protocol):
    async def ask(self, topic: Topic[Q, R], question: Q) -> R:
        """Raises what the handler raised, as the same type of `headrace.errors`; `ModelFailed` if
        the host is gone."""
        ...


class LocalControl:
    """The host's own end: where handlers are registered and called."""

    def __init__(self) -> None:
        self._handlers: dict[str, tuple[Topic[Any, Any], Handler]] = {}

    def answer(self, topic: Topic[Q, R], handler: Callable[[Q], Awaitable[R]]) -> None:
        if topic.name in self._handlers:
            raise ValueError(f"topic {topic.name!r} has a handler already")
        self._handlers[topic.name] = (topic, handler)

    async def ask(self, topic: Topic[Q, R], question: Q) -> R:
        _, handler = self._handlers[topic.name]
        reply = await handler(question)
        assert isinstance(reply, topic.reply)
        return reply

    async def ask_encoded(self, name: str, question: bytes) -> bytes:
        """For the socket. Raises `KeyError` for an unknown topic, `msgspec.MsgspecError` for a
        question of another type."""
        topic, handler = self._handlers[name]
        return msgspec.msgpack.encode(
            await handler(msgspec.msgpack.decode(question, type=topic.question))
        )
