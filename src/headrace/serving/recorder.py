"""Writes down which models were asked for and when, for `bench/simulate_arbiter.py --trace`.

One JSON line a request, when it ends; the format is that of `bench/sim/traces.py`. No text of any
request is in it.
"""

from __future__ import annotations

import logging
from pathlib import Path

import msgspec

from headrace.types import Call, Role

_encoder = msgspec.json.Encoder()
log = logging.getLogger(__name__)


class _Row(msgspec.Struct):
    """Seconds: `at` from the start of the recording, `waited` at the door, `work` past it."""

    at: float
    model: str
    role: Role
    lane: str
    size: int
    cycle: str
    then: tuple[str, ...]
    waited: float = 0.0
    work: float = 0.0


class Recorder:
    """Appends to `path`. Times are of one clock; `flush` blocks."""

    def __init__(self, path: Path, now: float) -> None:
        self._path = path
        self._began = now
        self._open: dict[int, _Row] = {}
        self._done: list[_Row] = []

    def arrived(
        self, now: float, request: int, model: str, role: Role, call: Call, size: int
    ) -> None:
        at = now - self._began
        self._open[request] = _Row(at, model, role, call.lane, size, call.cycle, call.then)

    def admitted(self, now: float, request: int) -> None:
        row = self._open[request]
        row.waited = now - self._began - row.at

    def ended(self, now: float, request: int) -> None:
        row = self._open.pop(request)
        row.work = now - self._began - row.at - row.waited
        self._done.append(row)

    def refused(self, request: int) -> None:
        """It never got in: what it would have cost is not known."""
        del self._open[request]

    def flush(self) -> None:
        """Write what has ended. A file that cannot be written ends nothing but the recording."""
        rows, self._done = self._done, []
        if not rows:
            return
        try:
            with self._path.open("ab") as file:
                file.write(_encoder.encode_lines(rows))
        except OSError as error:
            log.warning("requests are not recorded in %s: %s", self._path, error.strerror)
