"""Load for benchmarks: what to ask, in which rhythm, and what came of it.

The generator itself (`bench.load_process`) is a process of its own, so that its work is not the
measured program's and its CPU time can be told. Closed loop: `clients` connections, each asks
again as soon as it has its answer. Open loop: Poisson arrivals at `rate`, whatever became of
those before; latency counts from the moment of arrival, also while no connection was free.
Held: connections that stay, idle or reading a stream one byte a second.
"""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Literal

import msgspec

from bench.harness import ROOT, percentile

READY_SECONDS = 120.0
Kind = Literal["closed", "open", "slow", "idle"]


class Ask(msgspec.Struct, frozen=True):
    """One request: POST with a JSON body, or GET without one."""

    path: str
    body: bytes = b""

    @classmethod
    def post(cls, path: str, **body: object) -> Ask:
        return cls(path, msgspec.json.encode(body))


class Plan(msgspec.Struct, frozen=True):
    """What to do. `address` is `HOST:PORT` or the path of a Unix socket; `asks` are asked in turn,
    each kept whole by one connection; answers within the first `warmup` seconds are not counted.
    With `seconds` 0 it goes on until it is told to end."""

    address: str
    asks: Sequence[Ask]
    kind: Kind = "closed"
    clients: int = 1
    rate: float = 0.0
    seconds: float = 10.0
    warmup: float = 1.0
    timeout: float = 60.0
    seed: int = 1


class Report(msgspec.Struct):
    """What was measured after the warm-up, in seconds.

    `first`: to the first event with content, of streams. `events`: events with content that
    arrived in the measured time; `tokens`: the sum of `completion_tokens` of complete streams.
    `errors`: how often by kind. `cpu`: the generator's own CPU time. `open`: of held connections,
    how many were still open in the end. `sizes`: events with content of each complete stream.
    """

    seconds: float = 0.0
    latencies: list[float] = []
    first: list[float] = []
    sizes: list[int] = []
    events: int = 0
    tokens: int = 0
    errors: dict[str, int] = {}
    cpu: float = 0.0
    open: int = 0

    @property
    def throughput(self) -> float:
        """Complete answers per second."""
        return len(self.latencies) / self.seconds if self.seconds else 0.0

    @property
    def failed(self) -> int:
        return sum(self.errors.values())

    def ms(self, percent: float) -> float:
        """Latency in milliseconds; a p99 of fewer than 1,000 requests is not a number."""
        if not self.latencies or (percent > 98 and len(self.latencies) < 1000):
            return float("nan")
        return 1e3 * percentile(self.latencies, percent)

    def first_ms(self, percent: float) -> float:
        return 1e3 * percentile(self.first, percent) if self.first else float("nan")

    @property
    def little(self) -> float:
        """Requests in the system by Little's law: throughput x mean latency. In a closed loop it
        must be the number of clients."""
        return sum(self.latencies) / self.seconds if self.seconds else 0.0

    def merged(self, other: Report) -> Report:
        """Both as if measured in one go."""
        errors = dict(self.errors)
        for kind, count in other.errors.items():
            errors[kind] = errors.get(kind, 0) + count
        return Report(
            seconds=self.seconds + other.seconds,
            latencies=self.latencies + other.latencies,
            first=self.first + other.first,
            sizes=self.sizes + other.sizes,
            events=self.events + other.events,
            tokens=self.tokens + other.tokens,
            errors=errors,
            cpu=self.cpu + other.cpu,
            open=other.open,
        )


COLUMNS = ("load", "requests", "errors", "per second", "p50 ms", "p95 ms", "p99 ms", "in system")


def row(name: str, report: Report) -> tuple[object, ...]:
    """A row under `COLUMNS`; the last cell is Little's law."""
    return (
        name,
        len(report.latencies),
        report.failed,
        report.throughput,
        report.ms(50),
        report.ms(95),
        report.ms(99),
        report.little,
    )


def generate(plan: Plan) -> Report:
    """Carry the plan out and wait for its end."""
    with beside(plan) as load:
        return load.report()


class Load:
    """A generator at work."""

    def __init__(self, plan: Plan) -> None:
        self._plan = plan
        self._process = subprocess.Popen(
            [sys.executable, "-m", "bench.load_process"],
            cwd=ROOT,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
        )
        self._report: Report | None = None
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        self._in, self._out = self._process.stdin, self._process.stdout
        self._in.write(msgspec.json.encode(plan) + b"\n")
        self._in.flush()
        if self._out.readline() != b"ready\n":
            raise SystemExit(f"the load generator ended with {self._process.wait()}")

    def report(self) -> Report:
        """What was measured; waits until the plan's time is over, or ends what has no end."""
        if self._report is None:
            if not self._plan.seconds:
                self._in.close()
            self._report = msgspec.msgpack.decode(self._out.read(), type=Report)
            self._process.wait(READY_SECONDS)
        return self._report

    def end(self) -> None:
        self._process.kill()
        self._process.wait()
        self._out.close()
        self._in.close()


@contextmanager
def beside(plan: Plan) -> Iterator[Load]:
    """The plan is carried out while the body runs, which starts when the warm-up is over."""
    load = Load(plan)
    try:
        yield load
    finally:
        load.end()
