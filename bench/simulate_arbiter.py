"""Replays traces of requests on a modelled device, by the arbiter and by four other policies.

    python -m bench.simulate_arbiter [--quick] [--trace FILE --machine NAME]

Generated traces are made from seeds. The constants of the policy were chosen on the seeds of
`TUNED`; the `FRESH` ones chose nothing, and both are reported. On short
traces the optimum, found by search, stands beside. `--trace` replays a recorded one
(`bench/sim/traces.py` has the format) on one of the modelled machines.
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from rich.console import Console

from bench.harness import MIB, Result, Table, percentile
from bench.run import record, show
from bench.sim.machine import Machine, flexible, host_only, laptop, workstation
from bench.sim.optimum import Optimum
from bench.sim.policies import OTHERS, Headrace
from bench.sim.traces import TRACES, Trace, read, short
from bench.sim.world import Outcome, Policy, World
from headrace.types import Lane

TUNED = range(4)
FRESH = range(100, 104)
MACHINES: dict[str, Callable[[], Machine]] = {
    "laptop": laptop,
    "flexible": flexible,
    "workstation": workstation,
    "host": host_only,
}
POLICIES: tuple[Callable[[], Policy], ...] = (Headrace, *OTHERS)
UNLOADING = ("lru", "count", "keep-alive")
"""Those that know no parking."""


@dataclass
class Replays:
    """What each policy reached on a set of traces, by policy name."""

    outcomes: dict[str, list[Outcome]] = field(default_factory=dict)

    def add(self, trace: Trace) -> dict[str, Outcome]:
        found = {}
        for make in POLICIES:
            policy = make()
            found[policy.name] = World(trace, policy).run()
            self.outcomes.setdefault(policy.name, []).append(found[policy.name])
        return found

    def stall(self, policy: str) -> float:
        return sum(one.stall for one in self.outcomes[policy])

    def best(self, policies: Iterable[str]) -> float:
        return min(self.stall(policy) for policy in policies)

    def over(self, policy: str) -> int:
        return max(one.over for one in self.outcomes[policy])

    def row(self, title: str, policy: str) -> list[object]:
        found = self.outcomes[policy]
        cells: list[object] = [title, policy, self.stall(policy), sum(one.swaps for one in found)]
        for lane in Lane:
            waits = [wait for one in found for wait in one.waits[lane]]
            cells += [f"{percentile(waits, p):.2f}" if waits else "" for p in (50, 99)]
        return [*cells, f"{max(0, self.over(policy)) / MIB:.0f}"]


COLUMNS = (
    "trace",
    "policy",
    "stall s",
    "swaps",
    "people p50 s",
    "p99",
    "bulk p50 s",
    "p99",
    "over MiB",
)
_NAMES = tuple(policy.name for policy in OTHERS)


def simulate(quick: bool) -> Result:
    """Long traces by all policies, short ones also by the optimum."""
    result = Result()
    length = 0.3 if quick else 1.0
    over = 0
    for name, seeds in (("tuned", TUNED), ("fresh", FRESH)):
        rows, ratios = _long(seeds[: 1 if quick else None], length)
        result.tables.append(Table(f"Long traces, {name} seeds", COLUMNS, rows))
        for trace, (all_four, unloading, passed) in ratios.items():
            result.add(f"{name}: {trace}, stall / best of four", all_four)
            result.add(f"{name}: {trace}, stall / best that unloads", unloading)
            over = max(over, passed)
    for name, seeds in (("tuned", TUNED), ("fresh", FRESH)):
        table, ratios_to_best = _short(seeds[: 1 if quick else None])
        result.tables.append(table)
        result.add(
            f"{name}: short traces without optimum", sum(int(str(row[-1])) for row in table.rows)
        )
        for trace, ratio in ratios_to_best.items():
            result.add(f"{name}: {trace}, stall / optimum", ratio)
    result.add("overcommit MiB", over / MIB)
    result.notes.append(
        "A modelled device: no time here was measured on a machine. Stall is waiting at the door "
        "plus computing on a slower seat. The optimum knows the future, and loads what has been "
        "asked for or announced. Where its search gave up, a trace is in no ratio; those are "
        "mostly the RAG cycles, on which foresight is worth most, so the ratio in sum flatters."
    )
    return result


def _long(
    seeds: Sequence[int], length: float
) -> tuple[list[list[object]], dict[str, tuple[float, float, int]]]:
    rows: list[list[object]] = []
    ratios = {}
    total = Replays()
    for make in TRACES:
        replays, title = Replays(), ""
        for seed in seeds:
            trace = make(seed, length)
            title = trace.name
            replays.add(trace)
        rows += [replays.row(title, policy) for policy in replays.outcomes]
        ratios[title] = _ratios(replays)
        for policy, found in replays.outcomes.items():
            total.outcomes.setdefault(policy, []).extend(found)
    ratios["all"] = _ratios(total)
    return rows, ratios


def _ratios(replays: Replays) -> tuple[float, float, int]:
    ours = replays.stall("headrace")
    over = max(0, replays.over("headrace"))
    return ours / replays.best(_NAMES), ours / replays.best(UNLOADING), over


def _short(seeds: Sequence[int]) -> tuple[Table, dict[str, float]]:
    """The optimum on short traces; those on which the search gives up are counted, not judged."""
    sums: dict[str, list[float]] = {}
    unsolved: dict[str, int] = {}
    for seed in seeds:
        for trace in short(seed):
            found = Replays().add(trace)
            ours = found["headrace"].stall
            best = min(one.stall for one in found.values())
            optimum = Optimum(trace).stall(best)
            if optimum is None:
                unsolved[trace.name] = unsolved.get(trace.name, 0) + 1
                continue
            others = min(found[policy].stall for policy in _NAMES)
            before = sums.get(trace.name, [0.0, 0.0, 0.0])
            sums[trace.name] = [
                one + more for one, more in zip(before, (ours, optimum, others), strict=True)
            ]
    rows: list[list[object]] = [
        [trace, ours, optimum, others, ours / optimum, others / optimum, unsolved.pop(trace, 0)]
        for trace, (ours, optimum, others) in sums.items()
    ]
    rows += [[trace, "", "", "", "", "", count] for trace, count in unsolved.items()]
    columns = ("trace", "headrace s", "optimum s", "best other s", "ratio", "other's", "unsolved")
    table = Table(f"Short traces, seeds {seeds[0]} to {seeds[-1]}", columns, rows)
    ratios = {trace: ours / optimum for trace, (ours, optimum, _) in sums.items()}
    if sums:
        ratios["all short"] = sum(s[0] for s in sums.values()) / sum(s[1] for s in sums.values())
    return table, ratios


def replay(path: Path, machine: Machine) -> Result:
    """A recorded trace by all policies."""
    replays, result = Replays(), Result()
    trace = read(path, machine)
    found = replays.add(trace)
    rows = [replays.row(trace.name, policy) for policy in found]
    result.tables.append(Table(f"{path} on {machine.name}", COLUMNS, rows))
    for policy, outcome in found.items():
        result.add(f"{policy}, stall s", outcome.stall)
    return result


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--quick", action="store_true", help="shorter traces, one seed of each set")
    parser.add_argument("--trace", type=Path, help="a recorded trace, as JSON lines")
    parser.add_argument("--machine", choices=sorted(MACHINES), default="laptop")
    arguments = parser.parse_args()
    if arguments.trace:
        result = replay(arguments.trace, MACHINES[arguments.machine]())
    else:
        result = simulate(arguments.quick)
    show(result, Console())
    print(json.dumps(record("simulate_arbiter", arguments.quick, result)))


if __name__ == "__main__":
    main()
