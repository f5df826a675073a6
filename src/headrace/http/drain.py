"""The end of a server process: what it still finishes, and what it tells the rest."""

from __future__ import annotations

from typing import Protocol

from headrace.errors import HeadraceError, ShuttingDown


class Running(Protocol):
    """A request in progress. `idle` ones only wait for something to happen."""

    idle: bool

    def end(self, error: HeadraceError) -> None: ...


class Drain:
    """Who is served now, and whether anybody new is.

    `begin`: new requests get `ShuttingDown`, and so do those that only wait; the others go on.
    `expire`: they end too, each with `ShuttingDown`, in its stream where that has begun.
    """

    def __init__(self) -> None:
        self.begun = False
        self._running: set[Running] = set()

    @property
    def empty(self) -> bool:
        return not self._running

    def add(self, request: Running) -> None:
        self._running.add(request)

    def remove(self, request: Running) -> None:
        self._running.discard(request)

    def check(self) -> None:
        """Raises `ShuttingDown`."""
        if self.begun:
            raise _refusal()

    def begin(self) -> None:
        self.begun = True
        for request in [request for request in self._running if request.idle]:
            request.end(_refusal())

    def expire(self) -> None:
        error = ShuttingDown("the server is shutting down and cannot finish this; ask again")
        for request in list(self._running):
            request.end(error)


def _refusal() -> ShuttingDown:
    return ShuttingDown("the server is shutting down; try again, or ask another one")
