"""Searches while documents are ingested at full speed, and ingestion while searches arrive.

One real `headrace up`. The interactive side are searches of the law articles; the bulk side is an
ingestion job over whole laws as Markdown, sent over HTTP, which keeps the same embedder busy in
its bulk lane. Bulk throughput is counted in chunks that the job reports as embedded.
"""

from __future__ import annotations

import asyncio
import json
import tempfile
import time
import urllib.request
from collections.abc import Sequence
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


def run(quick: bool) -> Result:
    """Over all articles, 40 s each phase; over 6,000 and 5 s with `quick`."""
    seconds = 5.0 if quick else 40.0
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
        free = job.speed(seconds)
    with Ingestion(running, files, "interactive") as job:
        job.wait_for_work()
        beside = searches(RATE)
    with Ingestion(running, files, "half") as job:
        job.wait_for_work()
        before, began = job.embedded(), time.perf_counter()
        half = searches(0.5 * capacity)
        hindered = (job.embedded() - before) / (time.perf_counter() - began)
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
    """A job that is at work while the body runs, and is cancelled at its end."""

    def __init__(self, running: Running, files: Sequence[Path], collection: str) -> None:
        self._running = running
        self._files = files
        self._path = f"/api/collections/{collection}/documents"

    def __enter__(self) -> Ingestion:
        body = b"".join(map(_part, self._files)) + f"--{BOUNDARY}--\r\n".encode()
        kind = f"multipart/form-data; boundary={BOUNDARY}"
        self._id = str(self._call("POST", self._path, body, kind)["id"])
        return self

    def __exit__(self, *failure: object) -> None:
        self._call("DELETE", f"/api/jobs/{self._id}")
        while self._job()["state"] in ("queued", "running"):
            time.sleep(0.1)

    def embedded(self) -> int:
        """Chunks embedded so far. It must still be at work: else nothing was measured."""
        job = self._job()
        if job["state"] not in ("queued", "running"):
            raise SystemExit(f"the ingestion ended early: {job['state']}; it needs more files")
        return int(job["progress"]["chunks_done"])

    def wait_for_work(self) -> None:
        """Until chunks are being embedded."""
        while not self.embedded():
            time.sleep(0.05)

    def speed(self, seconds: float) -> float:
        """Chunks a second, over that long."""
        self.wait_for_work()
        before, began = self.embedded(), time.perf_counter()
        time.sleep(seconds)
        return (self.embedded() - before) / (time.perf_counter() - began)

    def _job(self) -> dict[str, Any]:
        return self._call("GET", f"/api/jobs/{self._id}")

    def _call(self, method: str, path: str, body: bytes = b"", kind: str = "") -> dict[str, Any]:
        request = urllib.request.Request(self._running.url + path, body or None, method=method)
        if kind:
            request.add_header("Content-Type", kind)
        with urllib.request.urlopen(request, timeout=60) as response:
            found: dict[str, Any] = json.load(response)
        return found


def _part(path: Path) -> bytes:
    head = (
        f'--{BOUNDARY}\r\nContent-Disposition: form-data; name="files"; '
        f'filename="{path.name}"\r\nContent-Type: text/markdown\r\n\r\n'
    )
    return head.encode() + path.read_bytes() + b"\r\n"
