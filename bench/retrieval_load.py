"""Search by 100 clients at once over 58,594 articles, against a server that blocks.

`POST /api/collections/laws/search` of a real `headrace up` (embedding, dense, lexical, fusion,
texts) and `bench/baselines/blocking_rag.py` (embedding and exact dense search in the handler) are
loaded in turns, same questions, vectors and weights. The baseline's encoder runs on PyTorch where
HEADRACE_BASELINE_PYTHON names an interpreter with sentence-transformers, faiss-cpu, fastapi and
uvicorn; else on onnxruntime in float32, which is a quarter faster.

The *limit* is what the cores could serve if every query cost its parts' CPU time and no more.
"""

from __future__ import annotations

import asyncio
import tempfile
import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import ExitStack
from pathlib import Path
from typing import NamedTuple

import msgspec
import numpy as np

from bench.harness import Result, Table, machine
from bench.law_corpus import questions
from bench.load import COLUMNS, Ask, Plan, Report, generate, row
from bench.running import (
    COLLECTION,
    Running,
    baseline_up,
    headrace_up,
    prepare,
    prepare_baseline,
    python_of_baseline,
    spent,
)
from headrace.app import application
from headrace.config.load import load
from headrace.config.options import Config
from headrace.engines.base import ModelSpec
from headrace.engines.onnx import OnnxEngine
from headrace.retrieval.collections import Collections
from headrace.retrieval.fuse import fuse, without_copies
from headrace.serving.catalogue import model_specs
from headrace.types import Filter

CLIENTS = 100
HITS = 10
BATCH = 16
"""Questions of one batch where the part `embedding` is measured; it hardly depends on it."""
EMPTY = "empty"
PROCESSES = (1, 2)


class Times(NamedTuple):
    """Seconds of each part of the benchmark."""

    rounds: int
    turn: float
    warmup: float
    idle: float
    open: float


FULL = Times(rounds=2, turn=12.0, warmup=4.0, idle=5.0, open=60.0)
QUICK = Times(rounds=1, turn=6.0, warmup=1.5, idle=2.0, open=8.0)


def run(quick: bool) -> Result:
    """All articles, both numbers of server processes; 6,000 articles and one with `quick`."""
    times, processes = (QUICK, PROCESSES[:1]) if quick else (FULL, PROCESSES)
    limit = 6000 if quick else None
    result = Result()
    with tempfile.TemporaryDirectory(prefix="headrace-bench-") as name, ExitStack() as stack:
        folder = Path(name)
        data = folder / "data"
        count = asyncio.run(prepare(data, limit))
        asyncio.run(_prepare_empty(data))
        prepare_baseline(folder / "baseline", limit)
        python, encoder = python_of_baseline()
        parts = cpu_of_parts(data, [question.text for question in questions()[: 10 * BATCH]])
        baseline = stack.enter_context(baseline_up(folder / "baseline", python, encoder))
        sides = {"baseline": Side(baseline, baseline_asks())}
        for number in processes:
            up = stack.enter_context(headrace_up(data, settings(number)))
            sides[_name(number)] = Side(up, search_asks())
        best = _closed(sides, times, result)
        _limit(sides[best], parts, times, result)
        _open(sides[best], times, result)
    result.notes += [
        f"{count} articles, {len(questions())} questions in turn, {HITS} hits each; the baseline "
        f"encodes with {encoder}",
        f"closed loop: {CLIENTS} connections, {times.rounds} turns of {times.turn:.0f} s each side "
        f"after {times.warmup:.0f} s to warm up, the load generator on the same cores",
        f"judged: {best}, the better of those measured",
        "`in system` is Little's law (throughput x mean latency): the number of clients, if the "
        "generator keeps up",
    ]
    return result


def settings(processes: int) -> dict[str, object]:
    """No generator is loaded: nobody asks for one here."""
    return {
        "server": {"processes": processes},
        "models": {"echo": {"role": "embedder", "engine": "echo"}},
        "defaults": {"generator": None},
        "collections": {EMPTY: {"embedder": "echo"}},
    }


def search_asks(collection: str = COLLECTION) -> list[Ask]:
    path = f"/api/collections/{collection}/search"
    return [Ask.post(path, query=question.text, k=HITS) for question in questions()]


def baseline_asks() -> list[Ask]:
    return [Ask.post("/search", query=question.text, k=HITS) for question in questions()]


async def _prepare_empty(data: Path) -> None:
    config = Config.model_validate({**settings(1), "data_dir": data})
    async with application(config) as services:
        services.collections.create(EMPTY, "echo", await services.models.info("echo"))


def _name(processes: int) -> str:
    return f"headrace, {processes} server process{'es' if processes > 1 else ''}"


class Side:
    """One server under load."""

    def __init__(self, running: Running, asks: Sequence[Ask]) -> None:
        self.running = running
        self._asks = asks
        self.report = Report(latencies=[], first=[], sizes=[])
        self.cpu: dict[str, float] = {}
        """CPU seconds per query while under load, by what a process is."""

    def closed(self, clients: int, seconds: float, warmup: float) -> Report:
        plan = Plan(self.running.address, self._asks, "closed", clients, 0.0, seconds, warmup)
        return generate(plan)

    def turn(self, times: Times) -> None:
        """One more turn of the closed loop with all clients."""
        before, began = self.running.cpu(), time.perf_counter()
        report = self.closed(CLIENTS, times.turn, times.warmup)
        took = time.perf_counter() - began
        answered = max(1.0, report.throughput * took)  # the warm-up costs CPU too
        self.cpu = {
            part: seconds / answered for part, seconds in spent(before, self.running.cpu()).items()
        }
        self.report = self.report.merged(report)

    def open(self, rate: float, times: Times) -> Report:
        asks = self._asks
        plan = Plan(self.running.address, asks, "open", 0, rate, times.open, times.warmup)
        return generate(plan)


def _closed(sides: Mapping[str, Side], times: Times, result: Result) -> str:
    """All sides in turns; the name of the best of ours."""
    for side in sides.values():
        side.closed(1, 1.0, 1.0)  # what a library does once, it does now
    for _ in range(times.rounds):
        for side in sides.values():
            side.turn(times)
    rows = [row(name, side.report) for name, side in sides.items()]
    result.tables.append(Table(f"{CLIENTS} clients, closed loop", COLUMNS, rows))
    ours = {name: side for name, side in sides.items() if name != "baseline"}
    best = max(ours, key=lambda name: ours[name].report.throughput)
    baseline, report = sides["baseline"].report, ours[best].report
    result.add("baseline_per_second", baseline.throughput)
    result.add("baseline_p50_ms", baseline.ms(50))
    for number in PROCESSES:
        if _name(number) in ours:
            found = ours[_name(number)].report.throughput
            result.add(f"processes_{number}_per_second", found)
    result.add("per_second", report.throughput, ">=", 180)
    result.add("ratio", report.throughput / baseline.throughput, ">=", 8)
    result.add("p50_ms", report.ms(50))
    result.add("p99_ms", report.ms(99))
    result.add("p99_over_p50", report.ms(99) / report.ms(50), "<=", 2.5)
    result.add("errors", sum(side.report.failed for side in sides.values()), "<=", 0)
    result.add("little_over_clients", report.little / CLIENTS)
    kinds = sorted({kind for side in sides.values() for kind in side.report.errors})
    result.notes += [f"errors seen: {', '.join(kinds)}"] if kinds else []
    return best


# The limit -------------------------------------------------------------------------------------


def cpu_of_parts(data: Path, asked: Sequence[str]) -> dict[str, float]:
    """CPU seconds of one query's parts, each measured alone in this process on one thread."""
    config = load()
    options = config.retrieval
    spec = model_specs(config)[config.defaults.embedder]
    engine = OnnxEngine()
    engine.load(_one_thread(spec))
    batches = [asked[i : i + BATCH] for i in range(0, len(asked), BATCH)]
    vectors = np.concatenate([engine.embed(batch, "query") for batch in batches])
    collections = Collections(data / "collections")
    try:
        index = collections.open(COLLECTION)
        where = Filter()
        snapshot = index.snapshot()
        near = [snapshot.nearest(vector, options.depth, where) for vector in vectors]
        words = [snapshot.matching(text, options.depth, where) for text in asked]

        def texts(i: int) -> None:
            best = fuse(near[i], words[i], options).listed()[: HITS + 8]
            without_copies(index.get({c: {"fused": score} for c, score in best}, where), HITS)

        every = range(len(asked))
        return {
            "embedding": _cpu(lambda i: engine.embed(batches[i], "query"), range(len(batches)))
            / BATCH,
            "dense search": _cpu(
                lambda i: index.search_dense(vectors[i], options.depth, where), every
            ),
            "lexical search": _cpu(
                lambda i: index.search_lexical(asked[i], options.depth, where), every
            ),
            "fusion and texts": _cpu(texts, every),
        }
    finally:
        collections.close()
        engine.unload()


def _one_thread(spec: ModelSpec) -> ModelSpec:
    return msgspec.structs.replace(spec, options={**spec.options, "threads": 1})


def _cpu(work: Callable[[int], object], items: range) -> float:
    """CPU seconds per item, the median of three passes."""
    passes = []
    for _ in range(3):
        began = time.process_time()
        for item in items:
            work(item)
        passes.append((time.process_time() - began) / len(items))
    return sorted(passes)[1]


def _limit(side: Side, parts: dict[str, float], times: Times, result: Result) -> None:
    """The parts' sum against what is measured under load."""
    empty = Side(side.running, search_asks(EMPTY))
    before, began = side.running.cpu(), time.perf_counter()
    report = empty.closed(8, times.idle, times.warmup)
    answered = max(1.0, report.throughput * (time.perf_counter() - began))
    parts["HTTP and messages"] = sum(spent(before, side.running.cpu()).values()) / answered
    parts["load generator"] = side.report.cpu / max(1, len(side.report.latencies))
    whole = sum(parts.values())
    cores = int(machine()["cores"])
    limit = cores / whole
    rows: list[Sequence[object]] = [(part, 1e3 * seconds) for part, seconds in parts.items()]
    rows.append(("sum", 1e3 * whole))
    result.tables.append(Table("CPU milliseconds of one query's parts", ("part", "ms"), rows))
    under = [(part, 1e3 * seconds) for part, seconds in side.cpu.items()]
    result.tables.append(Table("CPU milliseconds a query under load", ("processes", "ms"), under))
    for part, seconds in parts.items():
        result.add(f"cpu_ms_{part.lower().replace(' ', '_')}", 1e3 * seconds)
    result.add("limit_per_second", limit)
    result.add("share_of_limit", side.report.throughput / limit, ">=", 0.8)
    result.notes.append(
        f"limit: {cores} cores x 1000 ms / {1e3 * whole:.2f} ms = {limit:.0f} queries/s; embedding "
        f"in batches of {BATCH} on one thread; `HTTP and messages` is a query of an empty "
        "collection with the embedder `echo`, through the whole server"
    )


def _open(side: Side, times: Times, result: Result) -> None:
    """Poisson arrivals at 70 % of what the closed loop reached, against an idle server."""
    idle = side.closed(1, times.idle, 1.0)
    rate = 0.7 * side.report.throughput
    report = side.open(rate, times)
    rows = [row("one client", idle), row(f"Poisson, {rate:.0f} a second", report)]
    result.tables.append(Table("Open loop", COLUMNS, rows))
    result.add("idle_p50_ms", idle.ms(50))
    result.add("open_rate", rate)
    result.add("open_p50_ms", report.ms(50))
    result.add("open_p99_ms", report.ms(99))
    result.add("open_p99_over_idle_p50", report.ms(99) / idle.ms(50), "<=", 6)
    result.add("open_errors", report.failed, "<=", 0)
