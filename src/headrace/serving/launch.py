"""Starts a worker: `python -m headrace.serving.launch LINK PULSE PERIOD FOLDER NICE CORES`.

LINK and PULSE are the numbers of inherited sockets. What a process wants of the scheduler must be
said before any library starts threads, which inherit it; so nothing that does is imported here.
"""

from __future__ import annotations

import contextlib
import os
import sys
from collections.abc import Sequence

from headrace.engines.machine import core_set

IDLE_NICE = 19


def main(arguments: Sequence[str]) -> None:
    link, pulse, period, folder, nice, cores = arguments
    if cores:
        os.sched_setaffinity(0, core_set(cores))
    os.nice(int(nice))
    if int(nice) >= IDLE_NICE and hasattr(os, "SCHED_IDLE"):
        # Beyond niceness: whoever else wants a core gets it at once.
        with contextlib.suppress(OSError):
            os.sched_setscheduler(0, os.SCHED_IDLE, os.sched_param(0))
    # Engines compute with threads of their own; numpy's would only take memory.
    os.environ.setdefault("OPENBLAS_NUM_THREADS", "1")

    from headrace.serving import worker

    worker.run(int(link), int(pulse), float(period), folder)


if __name__ == "__main__":
    main(sys.argv[1:])
