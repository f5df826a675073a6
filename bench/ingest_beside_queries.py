"""Searches while documents are ingested at full speed, and ingestion while searches arrive.

One real `headrace up`. The interactive side are searches of the law articles; the bulk side is an
ingestion job over whole laws as Markdown, sent over HTTP, which keeps the same embedder busy in
its bulk lane. Bulk throughput is counted in chunks that the job reports as embedded.
"""

from __future__ import annotations

import asyncio
import json
import tempfile
import threading
import time
import urllib.error
import urllib.request
from collections.abc import Mapping, Sequence
from contextlib import ExitStack
from pathlib import Path
from typing import Any

from bench.harness import Result, Table, shared_data
from bench.laws import unpack
from bench.load import COLUMNS, Plan, Report, generate, row
from bench.retrieval_load import search_asks
from bench.running import Running, headrace_up, prepare

BOUNDARY = "headrace-bench-boundary"
RATE = 5.0
"""Searches a second of one interactive user: far below the capacity, so no queue of their own."""
CLIENTS = 16
POLL = 0.2


def run(quick: bool) -> Result:
    """Over all articles, 40 s each phase; over 6,000 and 6 s with `quick`."""
    seconds = 6.0 if quick else 40.0
    result = Result()
    with tempfile.TemporaryDirectory(prefix="headrace-bench-") as name, ExitStack() as stack:
        folder = Path(name)
        asyncio.run(prepare(folder, 6000 if quick else None))
        files = unpack(shared_data() / "laws" / "markdown.tar.gz", folder / "markdown")
        running = stack.enter_context(headrace_up(folder, {"defaults": {"generator": None}}))
        _measure(running, files, seconds, result)
    return result


def _measure(running: Running, files: Sequence[Path], seconds: float, result: Result) -> None:
    asks = search_asks()

    def searches(rate: float) -> Report:
        return generate(Plan(running.address, asks, "open", 0, rate, seconds, 2.0))

    closed = Plan(running.address, asks, "closed", CLIENTS, 0.0, min(seconds, 10.0), 2.0)
    capacity = generate(closed).throughput
    idle = searches(RATE)
    with Ingestion(running, files, "free") as job:
        began = time.perf_counter()
        time.sleep(seconds)
        free = job.speed(began)
    with Ingestion(running, files, "interactive"):
        beside = searches(RATE)
    with Ingestion(running, files, "half") as job:
        began = time.perf_counter()
        half = searches(0.5 * capacity)
        hindered = job.speed(began)
    rows = [
        row("idle", idle),
        row("beside ingestion", beside),
        row("half of the capacity", half),
    ]
    result.tables.append(Table("Searches, Poisson arrivals", COLUMNS, rows))
    bulk = [("unhindered", free), ("searches at half of the capacity", hindered)]
    result.tables.append(Table("Ingestion", ("beside", "chunks a second"), bulk))
    result.add("capacity_per_second", capacity)
    result.add("idle_p50_ms", idle.ms(50))
    result.add("idle_p95_ms", idle.ms(95))
    result.add("beside_p50_ms", beside.ms(50))
    result.add("beside_p95_ms", beside.ms(95))
    result.add("p95_ratio", beside.ms(95) / idle.ms(95), "<=", 1.25)
    result.add("bulk_chunks_per_second", free)
    result.add("bulk_beside_half_chunks_per_second", hindered)
    result.add("bulk_share", hindered / free, ">=", 0.5)
    result.add("errors", idle.failed + beside.failed + half.failed, "<=", 0)
    result.notes.append(
        f"{seconds:.0f} s each phase; idle and beside ingestion: {RATE:.0f} searches a second; "
        f"capacity: {CLIENTS} clients in a closed loop; ingestion: the whole laws as Markdown, "
        "each job into a collection of its own, so that every chunk is embedded"
    )


class Ingestion:
    """A job that is at work while the body runs, and is cancelled at its end. Its progress comes
    in steps of some tens of chunks, so speed is counted from one step to another."""

    def __init__(self, running: Running, files: Sequence[Path], collection: str) -> None:
        self._running = running
        self._files = files
        self._path = f"/api/collections/{collection}/documents"
        self._steps: list[tuple[float, int]] = []
        self._ended = threading.Event()

    def __enter__(self) -> Ingestion:
        body = b"".join(map(_part, self._files)) + f"--{BOUNDARY}--\r\n".encode()
        kind = f"multipart/form-data; boundary={BOUNDARY}"
        self._id = str(self._call("POST", self._path, body, kind)["id"])
        self._watch = threading.Thread(target=self._look)
        self._watch.start()
        while not self._steps:
            self._check()
            time.sleep(POLL)
        return self

    def __exit__(self, *failure: object) -> None:
        self._ended.set()
        self._watch.join()
        self._call("DELETE", f"/api/jobs/{self._id}")
        while self._at_work(self._job()):
            time.sleep(POLL)

    def speed(self, since: float) -> float:
        """Chunks a second from the first step after `since` to the last one."""
        self._check()
        steps = [step for step in self._steps if step[0] >= since]
        if len(steps) < 2:
            raise SystemExit(f"{len(steps)} steps of ingestion: too few to tell its speed")
        (began, first), (ended, last) = steps[0], steps[-1]
        return (last - first) / (ended - began)

    def _look(self) -> None:
        while not self._ended.wait(POLL):
            done = int(self._job()["progress"]["chunks_done"])
            if done > (self._steps[-1][1] if self._steps else 0):
                self._steps.append((time.perf_counter(), done))

    def _check(self) -> None:
        """It must still be at work: else it is not what was measured."""
        if not self._at_work(job := self._job()):
            raise SystemExit(f"the ingestion ended early: {job['state']} {job['error']}")

    @staticmethod
    def _at_work(job: Mapping[str, Any]) -> bool:
        return job["state"] in ("queued", "running")

    def _job(self) -> dict[str, Any]:
        return self._call("GET", f"/api/jobs/{self._id}")

    def _call(self, method: str, path: str, body: bytes = b"", kind: str = "") -> dict[str, Any]:
        request = urllib.request.Request(self._running.url + path, body or None, method=method)
        if kind:
            request.add_header("Content-Type", kind)
        try:
            with urllib.request.urlopen(request, timeout=60) as response:
                found: dict[str, Any] = json.load(response)
        except urllib.error.HTTPError as error:
            raise SystemExit(f"{method} {path}: {error.read().decode()}") from error
        return found


def _part(path: Path) -> bytes:
    head = (
        f'--{BOUNDARY}\r\nContent-Disposition: form-data; name="files"; '
        f'filename="{path.parent.name}-{path.name}"\r\nContent-Type: text/markdown\r\n\r\n'
    )
    return head.encode() + path.read_bytes() + b"\r\n"
