"""64 single-text embedding requests at once against one call of 64 texts; what an idle one pays.

Through a group with one worker, default embedder. The other ways of computing the same texts take
their turns in the same rounds: the worker asked directly (one message of 64 texts), the engine in
this process, and infinity-emb in an environment of its own on the same ONNX file.
"""

from __future__ import annotations

import asyncio
import json
import math
import os
import statistics
import subprocess
import sys
import time
from collections.abc import Awaitable, Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path

from platformdirs import user_cache_path

from bench.harness import ROOT, Result, Table, percentile
from bench.law_corpus import articles, questions
from headrace import sources
from headrace.config.load import load
from headrace.engines import encoder_files
from headrace.engines.base import ModelSpec
from headrace.engines.onnx import OnnxEngine
from headrace.errors import HeadraceError
from headrace.serving.client import WorkerClient
from headrace.serving.group import Group
from headrace.types import USER, EmbedKind, Role

TEXTS = 64
CLIENTS = 100
INSTALL_SECONDS = 600.0
ANSWER_SECONDS = 300.0
# It does not bound these itself, and later ones break it.
PACKAGES = (
    "infinity-emb[optimum,server]",
    "optimum[onnxruntime]<1.25",
    "transformers<4.49",
    "torch<2.7",
)
CHILD = ROOT / "bench" / "baselines" / "infinity_child.py"

Side = Callable[[], Awaitable[object]]


def run(quick: bool) -> Result:
    """40 rounds of everything; 8 with `quick`, which also installs nothing."""
    result = Result()
    with _infinity(install=not quick) as (infinity, missing):
        asyncio.run(_measure(result, infinity, missing, 8 if quick else 40))
    return result


async def _measure(result: Result, infinity: Infinity | None, missing: str, rounds: int) -> None:
    spec = _spec()
    group = Group(spec, on_death=_fatal)
    worker = await WorkerClient.start(spec)
    engine = OnnxEngine()
    await asyncio.to_thread(engine.load, spec)
    try:
        await group.bring("cpu")
        for name, kind, texts in _workloads():
            await _batching(result, group, worker, infinity, (name, kind, texts), missing, rounds)
        await _idle(result, group, worker, engine, infinity, rounds)
        await _closed_loop(result, group, 400 if rounds < 20 else 4000)
    finally:
        engine.unload()
        await worker.close()
        await group.leave()
    result.notes.append(
        f"{rounds} rounds in turns (passages: a quarter) after 2 to warm up, medians; load "
        "generator, group and engine share this machine's cores with the workers, of which one "
        "computes at a time"
    )


def _fatal(error: HeadraceError) -> None:
    raise SystemExit(f"the worker died: {error}")


def _spec() -> ModelSpec:
    config = load()
    name = config.defaults.embedder
    options = config.models[name]
    return ModelSpec(
        name,
        Role.EMBEDDER,
        options.engine,
        options.source,
        str(config.cache_dir),
        options.model_dump(mode="json"),
    )


def _workloads() -> list[tuple[str, EmbedKind, list[str]]]:
    asked = [question.text for question in questions()[:TEXTS]]
    passages = [article.text for article in articles()[:: 58_000 // TEXTS]][:TEXTS]
    return [("questions", "query", asked), ("passages", "passage", passages)]


async def _batching(
    result: Result,
    group: Group,
    worker: WorkerClient,
    infinity: Infinity | None,
    load: tuple[str, EmbedKind, list[str]],
    missing: str,
    rounds: int,
) -> None:
    name, kind, texts = load
    rounds = rounds // 4 if name == "passages" else rounds  # they take many times as long
    sides: dict[str, Side] = {
        "64 requests": lambda: asyncio.gather(*(group.embed([t], kind, USER) for t in texts)),
        "one call": lambda: group.embed(texts, kind, USER),
        "one message to a worker": lambda: worker.embed(tuple(texts), kind, USER.lane),
    }
    if infinity is not None:
        prefix = _prefix(kind)
        whole = [prefix + text for text in texts]
        sides["infinity, 64 requests"] = lambda: infinity.ask([[text] for text in whole])
        sides["infinity, one call"] = lambda: infinity.ask([whole])
    times = await _in_turns(sides, rounds, warmup=2)
    median = {side: statistics.median(found) for side, found in times.items()}
    rows: list[tuple[object, ...]] = [
        (side, round(1000 * seconds, 1), round(TEXTS / seconds, 1), median["one call"] / seconds)
        for side, seconds in median.items()
    ]
    if infinity is None:
        rows.append(("infinity", f"not available: {missing}", "", ""))
    result.tables.append(
        Table(f"{TEXTS} {name}", ("side", "ms", "texts/s", "of one call's speed"), rows)
    )
    fastest = min(median["one call"], median["one message to a worker"])
    result.add(f"{name}_ratio", fastest / median["64 requests"], ">=", 0.9)
    result.add(f"{name}_per_s", TEXTS / median["64 requests"])
    result.add(f"{name}_call_over_message", median["one message to a worker"] / median["one call"])
    if infinity is not None:
        result.add(f"{name}_infinity_per_s", TEXTS / median["infinity, 64 requests"])


async def _idle(
    result: Result,
    group: Group,
    worker: WorkerClient,
    engine: OnnxEngine,
    infinity: Infinity | None,
    rounds: int,
) -> None:
    asked = iter([question.text for question in questions()] * 4)
    text = next(asked)

    async def computed() -> None:
        await asyncio.to_thread(engine.embed, [text], "query")

    def inside() -> Awaitable[None]:
        engine.embed([text], "query")
        return asyncio.sleep(0)

    sides: dict[str, Side] = {
        "engine in this process": inside,
        "worker": lambda: worker.embed((text,), "query", USER.lane),
        "group": lambda: group.embed([text], "query", USER),
    }
    if infinity is not None:
        sides["infinity"] = lambda: infinity.ask([[_prefix("query") + text]])
    times: dict[str, list[float]] = {side: [] for side in sides}
    for _ in range(rounds * 5):
        text = next(asked)
        for side, seconds in (await _in_turns(sides, 1, warmup=0)).items():
            times[side] += seconds
    engine_ms = 1000 * statistics.median(times["engine in this process"])
    rows = []
    for side, found in times.items():
        ms = [1000 * seconds for seconds in found]
        over = statistics.median(
            m - 1000 * e for m, e in zip(ms, times["engine in this process"], strict=True)
        )
        rows.append((side, percentile(ms, 50), percentile(ms, 90), over))
        if side == "group":
            result.add("idle_over_engine_ms", over, "<=", 1.0)
        if side == "worker":
            result.add("idle_worker_over_engine_ms", over)
    result.add("idle_engine_ms", engine_ms)
    result.tables.append(
        Table("one question, idle, ms", ("side", "p50", "p90", "over the engine (median)"), rows)
    )


async def _closed_loop(result: Result, group: Group, total: int) -> None:
    """Clients that ask again as soon as they have their answer."""
    texts = [question.text for question in questions()]
    numbers: Iterator[int] = iter(range(total))
    seconds: list[float] = []

    async def client() -> None:
        for number in numbers:
            began = time.perf_counter()
            await group.embed([texts[number % len(texts)]], "query", USER)
            seconds.append(time.perf_counter() - began)

    began = time.perf_counter()
    await asyncio.gather(*(client() for _ in range(CLIENTS)))
    took = time.perf_counter() - began
    settled = seconds[CLIENTS:]
    p50, p99 = (1000 * percentile(settled, percent) for percent in (50, 99))
    result.add("closed_per_s", total / took)
    result.add("closed_p50_ms", p50)
    result.add("closed_p99_ms", p99)
    result.add("closed_p99_over_p50", p99 / p50)
    result.tables.append(
        Table(
            f"{CLIENTS} clients in a closed loop, {total} questions",
            ("questions/s", "p50 ms", "p99 ms", "p99 / p50"),
            [(total / took, p50, p99, p99 / p50)],
        )
    )


async def _in_turns(sides: Mapping[str, Side], rounds: int, warmup: int) -> dict[str, list[float]]:
    """Like `bench.harness.in_turns`, awaited; every other round runs the other way round."""
    times: dict[str, list[float]] = {name: [] for name in sides}
    for turn in range(warmup + rounds):
        order = list(sides.items())
        for name, side in order if turn % 2 else reversed(order):
            began = time.perf_counter()
            await side()
            took = time.perf_counter() - began
            if turn >= warmup:
                times[name].append(took)
    return times


# infinity-emb ------------------------------------------------------------------------------------


class Infinity:
    """Its engine in a process under its own interpreter, which computes what it is sent."""

    def __init__(self, process: subprocess.Popen[str]) -> None:
        self._process = process

    async def ask(self, requests: Sequence[Sequence[str]]) -> None:
        """Requests at once; returns when all are done."""
        await asyncio.to_thread(self.exchange, requests)

    def exchange(self, requests: Sequence[Sequence[str]]) -> int:
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        self._process.stdin.write(json.dumps(requests) + "\n")
        self._process.stdin.flush()
        line = self._process.stdout.readline()
        if not line:
            raise SystemExit(f"infinity-emb ended with {self._process.wait()}")
        return int(line)


def _prefix(kind: EmbedKind) -> str:
    config = load()
    options = config.models[config.defaults.embedder]
    return options.query_prefix if kind == "query" else options.passage_prefix


@contextmanager
def _infinity(*, install: bool) -> Iterator[tuple[Infinity | None, str]]:
    """The process, or why there is none. `HEADRACE_INFINITY` names a Python that has it."""
    python, missing = _interpreter(install=install)
    if python is None:
        yield None, missing
        return
    process = subprocess.Popen(
        [str(python), str(CHILD), str(_model_folder())],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        text=True,
        env={**os.environ, "HF_HUB_OFFLINE": "1", "DO_NOT_TRACK": "1"},
    )
    try:
        assert process.stdout is not None
        first = process.stdout.readline().strip()
        if first == "ready":
            yield Infinity(process), ""
        else:
            yield None, first or f"it ended with {process.wait(ANSWER_SECONDS)}"
    finally:
        process.kill()
        process.wait()
        for stream in (process.stdin, process.stdout):
            if stream is not None:
                stream.close()


def _model_folder() -> Path:
    """The folder with the default embedder's model and tokenizer."""
    spec = _spec()
    path = sources.resolve(spec.source, cache_dir=spec.cache)
    return encoder_files.find(path, spec.cache, spec.options["precision"]).model.parent


def _interpreter(*, install: bool) -> tuple[Path | None, str]:
    named = os.environ.get("HEADRACE_INFINITY")
    if named:
        return Path(named), ""
    folder = user_cache_path("headrace-bench") / "infinity"
    python, ready = folder / "bin" / "python", folder / "installed"
    if ready.exists():
        return python, ""
    if not install:
        return None, "not installed yet, which takes a run without --quick"
    try:
        for command in (
            [sys.executable, "-m", "venv", str(folder)],
            [str(python), "-m", "pip", "install", "--quiet", *PACKAGES],
        ):
            subprocess.run(command, check=True, capture_output=True, timeout=INSTALL_SECONDS)
    except subprocess.TimeoutExpired:
        return None, f"its installation took longer than {INSTALL_SECONDS:.0f} s"
    except subprocess.CalledProcessError as error:
        said = error.stderr.decode(errors="replace").strip().splitlines()
        return None, f"its installation failed: {said[-1] if said else math.nan}"
    ready.touch()
    return python, ""
