"""Traces of requests: generated from a seed, or recorded by a server.

A recorded trace (option `server.trace_file`) is a file of JSON lines, one a request:

    {"at": 12.5, "model": "e5", "role": "embedder", "lane": "interactive", "size": 1,
     "cycle": "c7", "then": ["reranker", "llm"], "work": 0.02, "waited": 0.0}

A model that the simulated machine does not have is played by the one of its role. `at` is seconds
from the start, `work` seconds of computing on the seat it had, `waited` seconds at the door. A
request whose cycle was seen before arrives as long after the end of the cycle's last one as it did
when it was recorded: what it waits now delays what follows.
"""

from __future__ import annotations

import json
import random
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path

from bench.sim.machine import Machine, flexible, host_only, laptop, workstation
from headrace.types import Lane


@dataclass(frozen=True)
class Job:
    """One request: it arrives at `at`, or `at` seconds after job `after` has ended."""

    at: float
    model: str
    work: float  # seconds on the model's best seat
    lane: Lane = Lane.INTERACTIVE
    size: int = 1
    cycle: str = ""
    then: tuple[str, ...] = ()
    after: int | None = None


@dataclass(frozen=True)
class Trace:
    name: str
    machine: Machine
    jobs: tuple[Job, ...]


def read(path: Path, machine: Machine) -> Trace:
    """A recorded trace. Raises `ValueError` with the line's number."""
    rows: list[tuple[Job, float]] = []  # with the seconds it waited
    played: dict[str, str] = {}
    for number, line in enumerate(path.read_text(encoding="utf-8").splitlines(), 1):
        if not line.strip():
            continue
        try:
            row = json.loads(line)
            model = played[row["model"]] = _player(row["model"], row.get("role", ""), machine)
            lane, size = Lane(row.get("lane", "interactive")), int(row.get("size", 1))
            cycle, then = row.get("cycle", ""), tuple(row.get("then", ()))
            job = Job(float(row["at"]), model, float(row["work"]), lane, size, cycle, then)
            rows.append((job, float(row.get("waited", 0.0))))
        except (KeyError, TypeError, ValueError) as error:
            raise ValueError(f"{path}, line {number}: {error}") from error
    rows.sort(key=lambda one: one[0].at)  # they were written as they ended
    jobs: list[Job] = []
    last: dict[str, tuple[int, float]] = {}
    for job, waited in rows:
        then = tuple(played.get(name, name) for name in job.then)
        after, ended = last.get(job.cycle, (None, 0.0)) if job.cycle else (None, 0.0)
        start = max(0.0, job.at - ended) if after is not None else job.at
        jobs.append(replace(job, at=start, then=then, after=after))
        if job.cycle:
            last[job.cycle] = (len(jobs) - 1, job.at + waited + job.work)
    return Trace(path.name, machine, tuple(jobs))


def _player(model: str, role: str, machine: Machine) -> str:
    """Who plays a recorded model."""
    name = model if model in machine.models else _ROLES.get(role, "")
    if name not in machine.models:
        raise ValueError(f"no model {model!r} on {machine.name}, and none of its role")
    return name


_ROLES = {"generator": "llm", "embedder": "embedder", "reranker": "reranker"}


# Generated ---------------------------------------------------------------------------------------

_RAG = (("llm", 0.6), ("embedder", 0.03), ("reranker", 0.2), ("llm", 5.0))


class _Maker:
    """Jobs as they are thought of; their order does not matter to the simulation."""

    def __init__(self, seed: int) -> None:
        self.random = random.Random(seed)
        self.jobs: list[Job] = []
        self._cycles = 0

    def cycle(self, at: float, after: int | None, *, speed: float = 1.0, rewrite: bool) -> int:
        """One question: rewrite, embed, rerank, generate. The number of its last job."""
        self._cycles += 1
        name = f"c{self._cycles}"
        steps = _RAG if rewrite else _RAG[1:]
        for place, (model, work) in enumerate(steps):
            then = tuple(model for model, _ in steps[place + 1 :])
            took = work * speed * self.random.uniform(0.6, 1.4)
            size = 30 if model == "reranker" else 1
            self.jobs.append(Job(at, model, took, Lane.INTERACTIVE, size, name, then, after))
            at, after = 0.005, len(self.jobs) - 1
        return len(self.jobs) - 1

    def users(self, count: int, seconds: float, think: float, *, speed: float = 1.0) -> None:
        """People who ask, read for `think` seconds on average, and ask again."""
        for _ in range(count):
            last, at = None, self.random.uniform(0, think)
            for turn in range(round(seconds / (think + 6 * speed))):
                last = self.cycle(at, last, speed=speed, rewrite=turn > 0)
                at = self.random.expovariate(1 / think)

    def poisson(self, model: str, every: float, start: float, end: float, work: float) -> None:
        at = start + self.random.expovariate(1 / every)
        while at < end:
            self.jobs.append(Job(at, model, work * self.random.uniform(0.5, 1.5)))
            at += self.random.expovariate(1 / every)

    def ingest(self, start: float, batches: int, *, size: int = 64, work: float = 0.16) -> None:
        """One job of ingestion: batches of passages, two of them under way at any time."""
        for _ in range(2):
            after: int | None = None
            at = start + self.random.uniform(0, work)
            for _ in range(batches // 2):
                took = work * self.random.uniform(0.7, 1.3)
                self.jobs.append(Job(at, "embedder", took, Lane.BULK, size, after=after))
                at, after = 0.02, len(self.jobs) - 1


def rag(seed: int, length: float = 1.0) -> Trace:
    make = _Maker(seed)
    make.users(4, 600 * length, 20)
    return Trace("rag cycles", laptop(), tuple(make.jobs))


def rag_busy(seed: int, length: float = 1.0) -> Trace:
    make = _Maker(seed)
    make.users(10, 600 * length, 20)
    return Trace("rag cycles, busy", laptop(), tuple(make.jobs))


def rag_flex(seed: int, length: float = 1.0) -> Trace:
    return Trace("rag, flex encoders", flexible(), rag(seed, length).jobs)


def ingest(seed: int, length: float = 1.0) -> Trace:
    make = _Maker(seed)
    make.users(2, 600 * length, 30)
    for start in (20, 200, 400):
        if start < 600 * length:
            make.ingest(start + make.random.uniform(0, 20), round(300 * length))
    return Trace("ingest, queries", laptop(), tuple(make.jobs))


def switching(seed: int, length: float = 1.0) -> Trace:
    make = _Maker(seed)
    make.poisson("llm", 8, 0, 600 * length, 2.0)
    make.poisson("coder", 8, 0, 600 * length, 2.0)
    return Trace("switching A/B", laptop(), tuple(make.jobs))


def switching_busy(seed: int, length: float = 1.0) -> Trace:
    make = _Maker(seed)
    make.poisson("llm", 2.5, 0, 600 * length, 4.0)
    make.poisson("coder", 2.5, 0, 600 * length, 4.0)
    return Trace("switching A/B, busy", laptop(), tuple(make.jobs))


def bursts(seed: int, length: float = 1.0) -> Trace:
    make = _Maker(seed)
    at = 0.0
    while at < 600 * length:
        model = make.random.choice(("llm", "coder", "embedder", "reranker"))
        work = 3.0 if model in ("llm", "coder") else 0.1
        make.poisson(model, 0.5, at, at + make.random.uniform(2, 8), work)
        at += make.random.expovariate(1 / 12)
    return Trace("bursts", laptop(), tuple(make.jobs))


def mixed(seed: int, length: float = 1.0) -> Trace:
    make = _Maker(seed)
    make.users(5, 600 * length, 20)
    make.poisson("coder", 25, 0, 600 * length, 4.0)
    make.poisson("small", 15, 0, 600 * length, 1.0)
    make.ingest(60, round(400 * length))
    return Trace("mixed", workstation(), tuple(make.jobs))


def host(seed: int, length: float = 1.0) -> Trace:
    make = _Maker(seed)
    make.users(3, 600 * length, 15, speed=0.6)
    return Trace("rag on host memory", host_only(), tuple(make.jobs))


def flex(seed: int, length: float = 1.0) -> Trace:
    make = _Maker(seed)
    make.users(3, 600 * length, 20)
    make.ingest(40, round(200 * length))
    make.ingest(300, round(200 * length), size=256, work=0.64)
    return Trace("ingest, flex", flexible(), tuple(make.jobs))


TRACES: tuple[Callable[[int, float], Trace], ...] = (
    rag,
    rag_busy,
    rag_flex,
    ingest,
    switching,
    switching_busy,
    bursts,
    mixed,
    host,
    flex,
)


# Short ones, for the optimum ---------------------------------------------------------------------


def short(seed: int) -> list[Trace]:
    """Of each kind one of 8 to 12 requests."""
    found = []
    for machine, name in ((laptop(), "rag"), (host_only(), "rag on host")):
        make = _Maker(seed)
        for _ in range(3):
            make.cycle(make.random.uniform(0, 12), None, rewrite=make.random.random() < 0.4)
        found.append(Trace(f"short {name}", machine, tuple(make.jobs[:12])))
    make = _Maker(seed)
    for _ in range(10):
        model = make.random.choice(("llm", "coder"))
        at, work = make.random.uniform(0, 30), make.random.uniform(0.5, 3)
        make.jobs.append(Job(at, model, work))
    found.append(Trace("short switching", laptop(), tuple(make.jobs)))
    make = _Maker(seed)
    at = 0.0
    while len(make.jobs) < 12:
        model = make.random.choice(("llm", "coder", "embedder", "reranker"))
        for _ in range(make.random.randint(1, 4)):
            work = 2.0 if model in ("llm", "coder") else 0.1
            make.jobs.append(Job(at + make.random.uniform(0, 1), model, work))
        at += make.random.expovariate(1 / 4)
    found.append(Trace("short bursts", laptop(), tuple(make.jobs[:12])))
    make = _Maker(seed)
    make.ingest(make.random.uniform(0, 2), 5)
    make.cycle(make.random.uniform(0, 3), None, rewrite=True)
    make.cycle(make.random.uniform(3, 9), None, rewrite=False)
    found.append(Trace("short ingest", laptop(), tuple(make.jobs)))
    return found
