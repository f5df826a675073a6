"""The simulator: policies end every request, the optimum is one, recorded traces are read."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from bench.sim.machine import laptop
from bench.sim.optimum import Optimum
from bench.sim.policies import OTHERS, Headrace
from bench.sim.traces import TRACES, Job, Trace, read, short
from bench.sim.world import World

from headrace.types import Lane


@pytest.mark.parametrize("make", TRACES, ids=lambda make: make.__name__)
def test_every_policy_serves_every_request_within_the_limits(make: object) -> None:
    trace = make(7, 0.05)  # type: ignore[operator]
    for policy in (Headrace, *OTHERS):
        outcome = World(trace, policy()).run()
        assert sum(map(len, outcome.waits.values())) == len(trace.jobs)
        assert outcome.over <= 0


def test_nobody_beats_the_optimum() -> None:
    for trace in short(3):
        if trace.name not in ("short switching", "short bursts"):
            continue
        stalls = [World(trace, policy()).run().stall for policy in (Headrace, *OTHERS)]
        optimum = Optimum(trace).stall(1e9)
        assert optimum is not None
        assert 0 < optimum <= min(stalls) + 1e-6


def test_one_request_on_a_cold_machine_costs_its_load() -> None:
    trace = Trace("one", laptop(), (Job(1.0, "llm", 2.0),))
    load = trace.machine.models["llm"].profile.load["cuda:0"]
    assert World(trace, Headrace()).run().stall == pytest.approx(load)
    assert Optimum(trace).stall(1e9) == pytest.approx(load)


def test_a_recorded_trace_keeps_the_pauses_within_a_cycle(tmp_path: Path) -> None:
    file = tmp_path / "trace.jsonl"
    rows = [
        {"at": 1.0, "model": "llm", "cycle": "c", "then": ["embedder"], "work": 2, "waited": 0.5},
        {"at": 1.2, "model": "coder", "lane": "bulk", "work": 1},
        {"at": 4.0, "model": "embedder", "cycle": "c", "work": 0.1},
    ]
    file.write_text("\n".join(map(json.dumps, rows)), encoding="utf-8")
    first, second, third = read(file, laptop()).jobs
    assert (first.at, first.after, first.then) == (1.0, None, ("embedder",))
    assert (second.lane, second.size) == (Lane.BULK, 1)
    assert (third.after, third.at) == (0, 0.5)


@pytest.mark.parametrize("line", ['{"at": 1}', "nonsense", '{"at": 1, "model": "x", "work": 1}'])
def test_a_wrong_line_is_named(tmp_path: Path, line: str) -> None:
    file = tmp_path / "trace.jsonl"
    file.write_text("\n" + line, encoding="utf-8")
    with pytest.raises(ValueError, match="line 2"):
        read(file, laptop())
