"""What an engine asks of the machine it runs on."""

from __future__ import annotations

import os

import psutil


def cores() -> int:
    """Cores that this process may use."""
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1


def resident_bytes() -> int:
    """Resident memory of this process."""
    size: int = psutil.Process().memory_info().rss
    return size
