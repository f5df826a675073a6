"""100 readers that hardly read and 1,000 idle connections: memory, and searches beside them.

A slow reader asks for a long stream and takes one byte a second, with the smallest receive buffer
that the kernel allows; an idle connection has had one answer and stays. The searches are those of
an interactive user, at a fixed rate far below the capacity, so that what is measured is what the
others do to them.
"""

from __future__ import annotations

import resource
import tempfile
import time
from collections.abc import Sequence
from contextlib import ExitStack
from pathlib import Path

from bench.harness import Result, Table
from bench.load import COLUMNS, Ask, Plan, Report, beside, generate, row
from bench.running import Running, headrace_up, ingest

SLOW = 100
IDLE = 1000
RATE = 80.0
TOKENS = 4000
ARTICLES = 400
SETTLE_SECONDS = 20.0
"""Streams run until nothing more takes what they write; that is not what is measured."""


def run(quick: bool) -> Result:
    """Two turns of 25 s with and without them; one of 14 s with `quick`."""
    rounds, seconds = (1, 14.0) if quick else (2, 25.0)
    result = Result()
    with tempfile.TemporaryDirectory(prefix="headrace-bench-") as name:
        folder = Path(name)
        ingest(folder, _settings(), _rules(), "rules")
        with headrace_up(folder, _settings()) as running:
            _measure(running, rounds, seconds, result)
    return result


def _settings() -> dict[str, object]:
    """The slow streams come one token a millisecond; the limit of requests in progress leaves
    room for them, as an operator with such clients would set it."""
    return {
        "server": {"max_pending": 4 * SLOW},
        "models": {
            "generator": {"role": "generator", "engine": "echo", "source": "delay=0.001"},
            "embedder": {"role": "embedder", "engine": "echo"},
        },
        "defaults": {"generator": "generator", "embedder": "embedder"},
    }


def _rules() -> str:
    articles = (
        f"\nArticle {number}\n\nThe market number {number} opens at {number % 12}.\n"
        for number in range(1, ARTICLES + 1)
    )
    return "# Rules of the town\n" + "".join(articles)


def _measure(running: Running, rounds: int, seconds: float, result: Result) -> None:
    asks = [
        Ask.post("/api/collections/rules/search", query=f"When does market {i} open?", k=5)
        for i in range(ARTICLES)
    ]
    alone: Report | None = None
    among: Report | None = None
    growth, kernel, held = 0.0, 0.0, {"slow": 0, "idle": 0}
    _searches(running, asks, 4.0)  # warm-up
    for turn in range(rounds):
        report = _searches(running, asks, seconds)
        alone = report if alone is None else alone.merged(report)
        before, kernel_before = running.resident_mib(), _kernel_mib()
        with ExitStack() as stack:
            slow = stack.enter_context(beside(_slow(running.address, turn)))
            idle = stack.enter_context(beside(_idle(running.address)))
            _settle(running)
            report = _searches(running, asks, seconds)
            growth = max(growth, running.resident_mib() - before)
            kernel = max(kernel, _kernel_mib() - kernel_before)
            held = {"slow": slow.report().open, "idle": idle.report().open}
        among = report if among is None else among.merged(report)
    assert alone is not None
    assert among is not None
    rows = [row("alone", alone), row("beside slow and idle", among)]
    result.tables.append(Table(f"Searches, Poisson, {RATE:.0f} a second", COLUMNS, rows))
    result.add("beside_p50_ms", among.ms(50))
    result.add("alone_p99_ms", alone.ms(99))
    result.add("beside_p99_ms", among.ms(99))
    result.add("p99_ratio", among.ms(99) / alone.ms(99), "<=", 1.25)
    result.add("errors", alone.failed + among.failed, "<=", 0)
    result.add("growth_mib", growth)
    result.add("kernel_growth_mib", kernel)
    result.add("growth_kib_per_connection", 1024 * growth / (SLOW + IDLE), "<=", 128)
    result.add("slow_open", held["slow"])
    result.add("idle_open", held["idle"])
    result.notes.append(
        f"{SLOW} streams of {TOKENS} tokens read at one byte a second, {IDLE} connections idle "
        "after one request (`open`: how many the server had not closed in the end); memory is the "
        f"resident size of the server processes, measured more than {seconds:.0f} s after "
        "they came, against the moment before; a connection may take 128 KiB; `kernel` is what all "
        "of the machine's TCP buffers grew by, those of the clients included"
    )


def _settle(running: Running) -> None:
    """Until the server is at rest: a tenth of a core at most."""
    end = time.monotonic() + SETTLE_SECONDS
    used = sum(running.cpu().values())
    while time.monotonic() < end:
        time.sleep(1.0)
        before, used = used, sum(running.cpu().values())
        if used - before < 0.1:
            return


def _kernel_mib() -> float:
    """Memory of all TCP buffers of this machine, in MiB."""
    for line in Path("/proc/net/sockstat").read_text().splitlines():
        if line.startswith("TCP:"):
            return int(line.split()[-1]) * resource.getpagesize() / 2**20
    return float("nan")


def _searches(running: Running, asks: Sequence[Ask], seconds: float) -> Report:
    return generate(Plan(running.address, asks, "open", 0, RATE, seconds, 1.0))


def _slow(address: str, turn: int) -> Plan:
    ask = Ask.post(
        "/v1/chat/completions",
        model="generator",
        messages=[{"role": "user", "content": f"{turn} word " * (TOKENS // 2)}],
        max_tokens=TOKENS,
        stream=True,
    )
    return Plan(address, [ask], "slow", SLOW, seconds=0)


def _idle(address: str) -> Plan:
    return Plan(address, [Ask("/healthz")], "idle", IDLE, seconds=0)
