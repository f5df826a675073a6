"""What every benchmark shares: its result, the machine it ran on, and a few statistics.

A benchmark is a module `bench/NAME.py` whose docstring's first line says what it measures and that
has `run(quick: bool) -> Result`. `scripts/bench NAME` prints the result's tables for people, then
one JSON line, which it also writes to `bench/results/NAME.json`.
"""

from __future__ import annotations

import gc
import math
import os
import platform
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal

import psutil

ROOT = Path(__file__).resolve().parent.parent
RESULTS = ROOT / "bench" / "results"
MIB = 1024 * 1024

Op = Literal[">=", "<="]


@dataclass(frozen=True)
class Target:
    """What a metric must reach."""

    op: Op
    value: float

    def met(self, measured: float) -> bool:
        return measured >= self.value if self.op == ">=" else measured <= self.value


@dataclass(frozen=True)
class Table:
    """A table for people. Every row has as many cells as `columns`; floats are rounded."""

    title: str
    columns: Sequence[str]
    rows: Sequence[Sequence[object]]


@dataclass
class Result:
    """Numbers by key, what they must reach, and how people may read them.

    `notes` say what is not in the numbers: sample size, warm-up, what was left out. A target
    whose metric is absent counts as missed.
    """

    metrics: dict[str, float] = field(default_factory=dict)
    targets: dict[str, Target] = field(default_factory=dict)
    tables: list[Table] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)

    def add(
        self, key: str, value: float, op: Op | None = None, target: float | None = None
    ) -> None:
        """Record a metric, with its target if it has one. What is not a number (a p99 of too few
        requests) is left out."""
        if not math.isnan(value):
            self.metrics[key] = float(value)
        if op is not None and target is not None:
            self.targets[key] = Target(op, target)

    def missed(self) -> list[str]:
        """Keys of the targets that were not reached."""
        return [
            key
            for key, target in self.targets.items()
            if key not in self.metrics or not target.met(self.metrics[key])
        ]


def shared_data() -> Path:
    """The folder of benchmark data: `HEADRACE_SHARED`, or `shared` beside the checkout."""
    folder = Path(os.environ.get("HEADRACE_SHARED") or ROOT.parent / "shared") / "data"
    if not folder.is_dir():
        raise SystemExit(f"this benchmark needs {folder}; HEADRACE_SHARED names another place")
    return folder


def machine() -> dict[str, str | int | float]:
    """CPU model, cores that this process may use, memory in GiB, system and Python."""
    return {
        "cpu": _cpu_model(),
        "cores": len(psutil.Process().cpu_affinity() or ()) or (psutil.cpu_count() or 1),
        "memory_gib": round(psutil.virtual_memory().total / 1024**3, 1),
        "system": f"{platform.system()} {platform.machine()}",
        "python": platform.python_version(),
    }


def _cpu_model() -> str:
    info = Path("/proc/cpuinfo")
    if info.is_file():
        for line in info.read_text(encoding="utf-8").splitlines():
            if line.startswith("model name"):
                return line.partition(":")[2].strip()
    return platform.processor() or "unknown"


# Statistics --------------------------------------------------------------------------------------


def percentile(values: Sequence[float], percent: float) -> float:
    """The value below which `percent` of the values lie, linear between neighbours."""
    if not values:
        raise ValueError("no values to take a percentile of")
    if not 0 <= percent <= 100:
        raise ValueError(f"percent must lie between 0 and 100, not {percent}")
    ordered = sorted(values)
    place = (len(ordered) - 1) * percent / 100
    low = int(place)
    high = min(low + 1, len(ordered) - 1)
    return ordered[low] + (ordered[high] - ordered[low]) * (place - low)


def summary(seconds: Sequence[float]) -> dict[str, float]:
    """Milliseconds: p50, p90, p99 (only from 1,000 values on) and mean."""
    ms = [1000 * value for value in seconds]
    found = {"p50": percentile(ms, 50), "p90": percentile(ms, 90), "mean": sum(ms) / len(ms)}
    if len(ms) >= 1000:
        found["p99"] = percentile(ms, 99)
    return found


def in_turns(
    sides: Mapping[str, Callable[[], object]], rounds: int, warmup: int = 1
) -> dict[str, list[float]]:
    """Wall seconds of each side, run one after the other `rounds` times, so that what else the
    machine does falls on both; the first `warmup` rounds are not counted."""
    times: dict[str, list[float]] = {name: [] for name in sides}
    for turn in range(warmup + rounds):
        for name, side in sides.items():
            began = time.perf_counter()
            side()
            took = time.perf_counter() - began
            if turn >= warmup:
                times[name].append(took)
    return times


@contextmanager
def quiet_collector() -> Iterator[None]:
    """No garbage collection while timing microseconds."""
    gc.collect()
    gc.disable()
    try:
        yield
    finally:
        gc.enable()


# Memory ------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class ProcessMemory:
    """Memory of one process in MiB: proportional set size (pages shared by n processes count 1/n),
    and what is its own alone."""

    pid: int
    command: str
    pss: float
    unique: float


def tree_memory(root: int) -> list[ProcessMemory]:
    """Memory of process `root` and all its descendants, the root first."""
    parent = psutil.Process(root)
    found = []
    for process in [parent, *parent.children(recursive=True)]:
        try:
            memory = process.memory_full_info()
            command = " ".join(process.cmdline())
        except psutil.NoSuchProcess:
            continue
        found.append(ProcessMemory(process.pid, command, memory.pss / MIB, memory.uss / MIB))
    return found
