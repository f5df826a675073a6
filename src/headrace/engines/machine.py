"""What an engine, and the worker around it, asks of the machine it runs on."""

from __future__ import annotations

import ctypes
import gc
import os
from pathlib import Path

import msgspec

MIB = 1 << 20


class Resident(msgspec.Struct, frozen=True):
    """Bytes of memory that a process has now, and the most it had since its peak was reset."""

    now: int
    peak: int


def cores() -> int:
    """Cores that this process may use."""
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1


def core_set(given: str) -> set[int]:
    """The cores of a setting such as `0-3,8`."""
    found: set[int] = set()
    for part in given.split(","):
        first, _, last = part.partition("-")
        found.update(range(int(first), int(last or first) + 1))
    return found


def resident(pid: int) -> Resident:
    """Of a process of this user; zeros if it is gone."""
    try:
        status = Path(f"/proc/{pid}/status").read_text()
    except FileNotFoundError:
        return _resident_elsewhere(pid)
    except ProcessLookupError:
        return Resident(0, 0)
    sizes = dict(line.split(":", 1) for line in status.splitlines() if line.startswith("Vm"))
    if "VmRSS" not in sizes:  # it has ended and waits to be reaped
        return Resident(0, 0)
    now, peak = (int(sizes[name].split()[0]) * 1024 for name in ("VmRSS", "VmHWM"))
    return Resident(now, max(now, peak))


def _resident_elsewhere(pid: int) -> Resident:
    """Where there is no /proc, nor a peak that can be reset."""
    import psutil  # costs a worker 3 MiB, and Linux needs none of it

    try:
        now: int = psutil.Process(pid).memory_info().rss
    except psutil.Error:
        return Resident(0, 0)
    return Resident(now, now)


def reset_peak(pid: int) -> bool:
    """Let the peak of a process begin at what it has now; False where that is not permitted."""
    try:
        Path(f"/proc/{pid}/clear_refs").write_text("5")
    except OSError:
        return False
    return True


def resident_bytes() -> int:
    """Resident memory of this process."""
    return resident(os.getpid()).now


def give_back() -> None:
    """Return freed memory to the operating system, which glibc does not do by itself: it keeps
    300 of the 400 MiB of an unloaded embedder."""
    gc.collect()
    trim = getattr(ctypes.CDLL(None), "malloc_trim", None)
    if trim is not None:
        trim(0)
