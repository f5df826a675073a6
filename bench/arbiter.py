"""Stall of the memory arbiter on simulated traces, against four other policies and the optimum.

Then the real thing, without a GPU: `bench/host_memory.py`.
"""

from __future__ import annotations

from bench import host_memory
from bench.harness import Result
from bench.simulate_arbiter import simulate

OF_OTHERS = 0.5
OF_OPTIMUM = 1.2


def run(quick: bool) -> Result:
    """The simulation of `bench/simulate_arbiter.py`, judged on the seeds that nobody tuned on, and
    three models in too little memory."""
    result = simulate(quick)
    ours = result.metrics
    result.add(
        "stall / best of four policies", ours["fresh: all, stall / best of four"], "<=", OF_OTHERS
    )
    result.add("stall / optimum", ours["fresh: all short, stall / optimum"], "<=", OF_OPTIMUM)
    result.add("overcommit MiB", ours["overcommit MiB"], "<=", 0)
    real = host_memory.run(quick)
    for name, value in real.metrics.items():
        target = real.targets.get(name)
        result.add(name, value, target.op if target else None, target.value if target else None)
    result.tables += real.tables
    result.notes += real.notes
    return result
