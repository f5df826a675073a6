"""Random faults under load for ten minutes: every request ends, and the ledger equals reality.

A real `headrace up` with two server processes and models that do not fit together under a memory
limit; clients search, chat, ask, embed, hold sessions and upload while workers and server processes
are killed or stopped, configurations are edited and spoiled, and models are ordered about. All of
it is drawn from `HEADRACE_CHAOS_SEED` (default 1); `HEADRACE_CHAOS_SECONDS` sets the time.
"""

from __future__ import annotations

import asyncio
import os
import re
import signal
import subprocess
import tempfile
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import httpx
import psutil

from bench.chaos_clients import COLLECTION, Client, Ledger
from bench.chaos_faults import Faults
from bench.harness import MIB, Result, Table
from bench.running import Running, headrace_up, ingest

CLIENTS = 12
REST_SECONDS = 60.0
"""How long the server may take to be as if nothing had happened."""
STOP_SECONDS = 30.0
WEIGHTS_MIB = 120
SHORT_MIB = 90
"""By how much the limit is less than what all models take together."""
TOLERANCE_MIB = 16.0
"""Of the ledger: what processes take and give back between two measurements."""


@dataclass(frozen=True)
class Verdict:
    """What one run of it found."""

    seconds: float
    ledger: Ledger
    faults: Faults
    loads: int
    off_mib: float


def run(quick: bool) -> Result:
    seconds = float(os.environ.get("HEADRACE_CHAOS_SECONDS") or (20 if quick else 600))
    verdict = torment(seconds, int(os.environ.get("HEADRACE_CHAOS_SEED") or 1))
    ledger, faults = verdict.ledger, verdict.faults
    result = Result()
    result.add("seconds", verdict.seconds)
    result.add("requests", ledger.requests)
    result.add("results", ledger.ends["result"])
    result.add("faults", sum(faults.count.values()))
    result.add("slowest_s", ledger.slowest)
    result.add("loads", verdict.loads)
    result.add("ledger_off_mib", verdict.off_mib, "<=", TOLERANCE_MIB)
    result.add("violations", len(ledger.violations), "<=", 0)
    result.tables.append(Table("How requests ended", ("end", "number"), ledger.ends.most_common()))
    result.tables.append(Table("Faults", ("fault", "number"), faults.count.most_common()))
    result.notes += [f"VIOLATION: {what}" for what in ledger.violations[:40]]
    result.notes.append("left: the client hung up; cut: its server process was killed")
    return result


def torment(seconds: float, seed: int) -> Verdict:
    """The whole of it, from an empty folder to no process."""
    with tempfile.TemporaryDirectory(prefix="headrace-chaos-") as name:
        folder = Path(name)
        ingest(folder, _settings(None), "# Market\n\nThe market opens at six.\n", COLLECTION)
        with headrace_up(folder, _settings(None)) as running:
            limit = asyncio.run(_room(running)) - SHORT_MIB
        with headrace_up(folder, _settings(limit)) as running:
            return _torment(running, folder, seconds, seed)


def _torment(running: Running, folder: Path, seconds: float, seed: int) -> Verdict:
    ledger = Ledger()
    began = time.monotonic()
    faults = Faults(seed, running.process.pid, running.url, folder / "headrace.yaml")
    asyncio.run(_load(running.url, faults, ledger, seconds, seed))
    lasted = time.monotonic() - began
    ledger.violations += faults.refused
    off, loads = asyncio.run(_at_rest(running, ledger))
    _ends(running, ledger)
    log = (folder / "server.log").read_text(encoding="utf-8", errors="replace")
    ledger.violations += _untyped(log)
    if ledger.violations:
        (Path(tempfile.gettempdir()) / "headrace-chaos.log").write_text(log, encoding="utf-8")
    return Verdict(lasted, ledger, faults, loads, off)


def _untyped(log: str) -> list[str]:
    """Exceptions in a log that are none of the program's own."""
    ends = re.findall(r"^Traceback .*\n(?:[ |+].*\n)*(.*)", log, re.M)
    found = [f"log: {end}" for end in ends if not end.startswith("headrace.errors.")]
    marks = ("never retrieved", "never awaited", "Exception in ")
    return found + [f"log: {x}" for x in log.splitlines() if any(mark in x for mark in marks)]


def _settings(limit_mib: float | None) -> dict[str, object]:
    def model(role: str, source: str) -> dict[str, object]:
        return {
            "role": role,
            "engine": "echo",
            "source": f"{source},memory={WEIGHTS_MIB},load=0.2",
            "timeout_seconds": 3.0,
        }

    return {
        "server": {"processes": 2, "shutdown_seconds": 3},
        "models": {
            "talk": model("generator", "delay=0.002"),
            "vectors": model("embedder", "delay=0"),
            "others": model("embedder", "dimensions=16"),
            "ranker": model("reranker", "delay=0.001"),
        },
        "defaults": {"generator": "talk", "embedder": "vectors"},
        "devices": {} if limit_mib is None else {"host": {"limit": f"{round(limit_mib)}MiB"}},
    }


async def _room(running: Running) -> float:
    """MiB that everything takes when all models are loaded."""
    async with httpx.AsyncClient(base_url=running.url, timeout=60) as client:
        for model in ("talk", "vectors", "others", "ranker"):
            (await client.post(f"/admin/models/{model}/load")).raise_for_status()
        await asyncio.sleep(2.5)  # it is measured once a second
        return await _device(client, "measured") / MIB


async def _device(client: httpx.AsyncClient, what: str) -> float:
    devices = (await client.get("/admin/devices")).json()["devices"]
    return float(next(one[what] for one in devices if one["name"] == "host"))


async def _load(url: str, faults: Faults, ledger: Ledger, seconds: float, seed: int) -> None:
    over = asyncio.Event()
    async with asyncio.TaskGroup() as group:
        for number in range(CLIENTS):
            client = Client(number, seed, url, ledger, faults.killed_since)
            group.create_task(client.work(over))
        group.create_task(faults.make(over))
        await asyncio.sleep(seconds)
        over.set()


# Afterwards --------------------------------------------------------------------------------------


async def _at_rest(running: Running, ledger: Ledger) -> tuple[float, int]:
    """Whether it is as if nothing had happened; MiB that its books are off, and its loads."""
    end = time.monotonic() + REST_SECONDS
    trouble: list[str] = ["nothing was asked"]
    off, loads = 0.0, 0
    async with httpx.AsyncClient(base_url=running.url, timeout=REST_SECONDS) as client:
        while trouble and time.monotonic() < end:
            try:
                trouble = await _trouble(client)
                off = await _off(client, running)
                if off > TOLERANCE_MIB:
                    trouble.append(f"the books are {off:.0f} MiB off")
                decisions = await client.get("/admin/decisions", params={"limit": 1000})
                loads = sum(one["what"] == "load" for one in decisions.json()["decisions"])
            except httpx.TransportError as error:
                trouble = [repr(error)]
            await asyncio.sleep(0.5)
        ledger.violations += [f"{REST_SECONDS:.0f} s later: {what}" for what in trouble]
        probe = Client(CLIENTS, 0, running.url, ledger, lambda _: False)
        async with probe.http:
            for ask in (probe.search, probe.answer, probe.rerank, probe.session):
                ended = await probe.ended(ask.__name__, ask)
                if ended != "result":
                    ledger.violations.append(f"afterwards {ask.__name__} ended with {ended}")
    return off, loads


_UNDER_WAY = ("queued", "running")


async def _trouble(client: httpx.AsyncClient) -> list[str]:
    found: list[str] = []
    ready = await client.get("/readyz")
    if ready.status_code != 200:
        found.append(f"not ready: {ready.text}")
    shown: dict[str, Any] = (await client.get("/admin/models")).json()
    found += [
        f"{model['name']}: {model['active']} active, {model['waiting']} waiting"
        for model in shown["models"]
        if model["active"] or model["waiting"]
    ]
    jobs = (await client.get("/api/jobs")).json()["jobs"]
    found += [f"job {job['id']} {job['state']}" for job in jobs if job["state"] in _UNDER_WAY]
    return found


async def _off(client: httpx.AsyncClient, running: Running) -> float:
    """How far the ledger is from what the operating system says, in MiB: in all, and of the model
    that is furthest off."""
    root = psutil.Process(running.process.pid)
    tree = {one.pid: one.memory_info().rss for one in (root, *root.children(recursive=True))}
    worst = abs(await _device(client, "booked") - sum(tree.values()))
    for model in (await client.get("/admin/models")).json()["models"]:
        real = sum(tree.get(pid, 0) for pid in model["workers"])
        worst = max(worst, abs(model["held"].get("host", 0) - real))
    return float(worst / MIB)


def _ends(running: Running, ledger: Ledger) -> None:
    """SIGTERM, and nothing is left: no process, no port."""
    root = psutil.Process(running.process.pid)
    family = root.children(recursive=True)
    running.process.send_signal(signal.SIGTERM)
    _, alive = psutil.wait_procs(family, STOP_SECONDS)
    ledger.violations += [f"left after SIGTERM: {process}" for process in alive]
    try:
        running.process.wait(STOP_SECONDS)
    except subprocess.TimeoutExpired:
        ledger.violations.append("the server did not end after SIGTERM")
    try:
        httpx.get(f"{running.url}/healthz", timeout=5)
    except httpx.ConnectError:
        return
    ledger.violations.append("the port still answers after SIGTERM")
