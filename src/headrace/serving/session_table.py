"""Who holds which retrieval session, and until when: a table without a clock, a task or a socket.

A session is a right to search certain collections with a certain access set, counted and limited.
Rules, in the order in which they are applied by every operation:

1. A session ends when its time is over, when its owner's process is gone, or `GRACE_SECONDS` after
   the last connection that held it has closed. 2. A session that is held does not end for its time.
3. Opening several gives all or none: the limit per owner comes first, then the limit in all.
4. An owner is a name within one API key: whoever calls with another key sees nothing of it.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Collection, Iterator
from dataclasses import dataclass, field
from typing import NamedTuple

import msgspec

from headrace.errors import InvalidField, Overloaded, UnknownSession

GRACE_SECONDS = 5.0
"""For an owner whose connection broke to hold the session again."""


class Limits(NamedTuple):
    """As configured in `server.sessions`."""

    ttl: float
    max_ttl: float
    per_owner: int
    total: int


class OpenSessions(msgspec.Struct, frozen=True):
    """`key` names the API key of the caller (empty without keys), `access` is its access set.
    `pid` is the owner's process on this machine, if it gave one."""

    key: str
    owner: str
    collections: tuple[str, ...]
    access: tuple[str, ...]
    count: int = 1
    ttl_seconds: float | None = None
    pid: int | None = None


class Session(msgspec.Struct, frozen=True):
    """A session as its owner sees it. `idle_seconds` is the time since its last request, or since
    it was opened; `held` says that a connection of its owner is open."""

    id: str
    owner: str
    collections: tuple[str, ...]
    access: tuple[str, ...]
    ttl_seconds: float
    expires_in_seconds: float
    requests: int
    idle_seconds: float
    held: bool
    owner_pid: int | None = None


@dataclass
class _Entry:
    id: str
    order: OpenSessions
    ttl: float
    expires: float
    used: float
    requests: int = 0
    holders: dict[str, float] = field(default_factory=dict)  # each with the end of its lease
    alone_since: float | None = None  # when the last holder went

    def ends(self) -> float:
        """The time at which it ends if nothing happens until then."""
        if self.holders:
            return max(self.expires, *self.holders.values()) + GRACE_SECONDS
        if self.alone_since is not None:
            return min(self.expires, self.alone_since + GRACE_SECONDS)
        return self.expires

    def seen(self, now: float) -> Session:
        return Session(
            id=self.id,
            owner=self.order.owner,
            collections=self.order.collections,
            access=self.order.access,
            ttl_seconds=self.ttl,
            expires_in_seconds=round(self.expires - now, 3),
            requests=self.requests,
            idle_seconds=round(now - self.used, 3),
            held=bool(self.holders),
            owner_pid=self.order.pid,
        )


class Table:
    """All sessions. `new_id` makes names that nobody can guess. `now` is in seconds of a clock that
    never goes back."""

    def __init__(self, new_id: Callable[[], str]) -> None:
        self._new_id = new_id
        self._entries: dict[str, _Entry] = {}

    def __len__(self) -> int:
        return len(self._entries)

    def open(self, now: float, order: OpenSessions, limits: Limits) -> tuple[Session, ...]:
        """`order.count` sessions. Raises `InvalidField` for what can never be had, `Overloaded` at
        a limit."""
        ttl = _checked_ttl(limits.ttl if order.ttl_seconds is None else order.ttl_seconds, limits)
        most = min(limits.per_owner, limits.total)
        if not 1 <= order.count <= most:
            raise InvalidField(
                f"count: 1 to {most} sessions (server.sessions), not {order.count}", field="count"
            )
        self.sweep(now)
        self._check_room(now, order, limits)
        made = [_Entry(self._new_id(), order, ttl, now + ttl, now) for _ in range(order.count)]
        self._entries.update((entry.id, entry) for entry in made)
        return tuple(entry.seen(now) for entry in made)

    def _check_room(self, now: float, order: OpenSessions, limits: Limits) -> None:
        mine = list(self._of(order.key, order.owner))
        if len(mine) + order.count > limits.per_owner:
            raise Overloaded(
                f"owner {order.owner!r} holds {len(mine)} sessions, and {order.count} more would "
                f"pass the limit of {limits.per_owner} (server.sessions.per_owner); release some "
                "with DELETE /api/sessions/ID",
                retry_after=_soonest(now, mine),
            )
        if len(self._entries) + order.count > limits.total:
            raise Overloaded(
                f"{len(self._entries)} sessions are open, and {order.count} more would pass the "
                f"limit of {limits.total} (server.sessions.total); {self._holders(order.key)}",
                retry_after=_soonest(now, list(self._entries.values())),
            )

    def _holders(self, key: str) -> str:
        """Who holds how many, as far as this key may know."""
        own = Counter(e.order.owner for e in self._entries.values() if e.order.key == key)
        parts = [f"{owner!r} holds {count}" for owner, count in own.most_common(20)]
        others = len(self._entries) - own.total()
        return ", ".join([*parts, *([f"owners with other keys hold {others}"] if others else [])])

    def _of(self, key: str, owner: str | None) -> Iterator[_Entry]:
        for entry in self._entries.values():
            if entry.order.key == key and owner in (None, entry.order.owner):
                yield entry

    def _entry(self, now: float, key: str, id: str) -> _Entry:
        self.sweep(now)
        entry = self._entries.get(id)
        if entry is None or entry.order.key != key:
            raise UnknownSession(
                f"there is no session {id[:80]!r}: it has expired, was released, or is of another "
                "API key; open one with POST /api/sessions, and keep it with POST "
                "/api/sessions/ID/renew before its time is over",
                field="session",
            )
        return entry

    def listed(self, now: float, key: str, owner: str | None) -> tuple[Session, ...]:
        self.sweep(now)
        return tuple(entry.seen(now) for entry in self._of(key, owner))

    def show(self, now: float, key: str, id: str) -> Session:
        return self._entry(now, key, id).seen(now)

    def use(self, now: float, key: str, id: str) -> Session:
        """Count one request."""
        entry = self._entry(now, key, id)
        entry.requests += 1
        entry.used = now
        return entry.seen(now)

    def renew(self, now: float, key: str, id: str, ttl: float | None, limits: Limits) -> Session:
        """From now on it has `ttl` seconds, by default as many as it was opened with."""
        entry = self._entry(now, key, id)
        entry.ttl = entry.ttl if ttl is None else _checked_ttl(ttl, limits)
        entry.expires = now + entry.ttl
        entry.alone_since = None
        return entry.seen(now)

    def hold(self, now: float, key: str, id: str, holder: str, lease: float) -> Session:
        """A connection of the owner is open, and says so again within `lease` seconds."""
        entry = self._entry(now, key, id)
        entry.holders[holder] = now + lease
        entry.expires = now + entry.ttl
        entry.alone_since = None
        return entry.seen(now)

    def let_go(self, now: float, key: str, id: str, holder: str) -> Session:
        """That connection has closed."""
        entry = self._entry(now, key, id)
        entry.holders.pop(holder, None)
        if not entry.holders:
            entry.alone_since = now
        return entry.seen(now)

    def release(self, now: float, key: str, id: str) -> Session:
        entry = self._entry(now, key, id)
        del self._entries[id]
        return entry.seen(now)

    def sweep(self, now: float, gone: Collection[int] = ()) -> list[str]:
        """Take out what has ended, and the sessions of the processes `gone`. Returns their ids."""
        for entry in self._entries.values():
            _drop_leases(entry, now)
        ended = [
            id
            for id, entry in self._entries.items()
            if now >= entry.ends() or entry.order.pid in gone
        ]
        for id in ended:
            del self._entries[id]
        return ended

    def pids(self) -> set[int]:
        """Processes whose end ends a session."""
        return {e.order.pid for e in self._entries.values() if e.order.pid is not None}


def _drop_leases(entry: _Entry, now: float) -> None:
    """A holder that did not say so again is gone, and its server process with it."""
    over = {holder: end for holder, end in entry.holders.items() if end <= now}
    if not over:
        return
    for holder in over:
        del entry.holders[holder]
    if not entry.holders:
        entry.alone_since = max(over.values())


def _checked_ttl(ttl: float, limits: Limits) -> float:
    if not 0 < ttl <= limits.max_ttl:
        raise InvalidField(
            f"ttl_seconds: more than 0, at most {limits.max_ttl:g} "
            f"(server.sessions.max_ttl_seconds), not {ttl:g}",
            field="ttl_seconds",
        )
    return ttl


def _soonest(now: float, entries: Collection[_Entry]) -> float:
    """Seconds until the first of them ends by itself."""
    return max(1.0, min(entry.ends() for entry in entries) - now)
