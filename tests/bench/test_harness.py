"""The numbers that benchmarks report are right, and so is the report."""

from __future__ import annotations

import json
import multiprocessing
import os
import subprocess
import sys
from pathlib import Path

import pytest

from bench import harness, run


def test_percentile_is_linear_between_neighbours() -> None:
    values = [4.0, 1.0, 3.0, 2.0]
    assert harness.percentile(values, 0) == 1
    assert harness.percentile(values, 50) == 2.5
    assert harness.percentile(values, 100) == 4
    assert harness.percentile([7.0], 99) == 7


def test_percentile_refuses_what_has_no_answer() -> None:
    with pytest.raises(ValueError, match="no values"):
        harness.percentile([], 50)
    with pytest.raises(ValueError, match="between 0 and 100"):
        harness.percentile([1.0], 101)


def test_p99_needs_a_thousand_values() -> None:
    assert "p99" not in harness.summary([0.001] * 999)
    assert harness.summary([0.001] * 1000)["p99"] == pytest.approx(1.0)


def test_both_sides_run_in_turns_and_warm_up_is_not_counted() -> None:
    order: list[str] = []
    times = harness.in_turns(
        {"ours": lambda: order.append("ours"), "theirs": lambda: order.append("theirs")},
        rounds=2,
        warmup=1,
    )
    assert order == ["ours", "theirs"] * 3
    assert {name: len(seconds) for name, seconds in times.items()} == {"ours": 2, "theirs": 2}


def test_a_target_is_missed_below_above_and_when_absent() -> None:
    result = harness.Result()
    result.add("recall", 0.45, ">=", 0.45)
    result.add("ms", 11.0, "<=", 10.0)
    result.targets["absent"] = harness.Target(">=", 0)
    assert result.missed() == ["ms", "absent"]


def test_memory_of_a_process_tree_counts_children() -> None:
    release = multiprocessing.get_context("spawn").Event()
    child = multiprocessing.get_context("spawn").Process(target=release.wait)
    child.start()
    try:
        found = harness.tree_memory(os.getpid())
        assert found[0].pid == os.getpid()
        assert child.pid in {process.pid for process in found}
        assert all(process.pss >= process.unique > 0 for process in found)
    finally:
        release.set()
        child.join()


def test_the_json_line_has_what_readers_expect(tmp_path: Path) -> None:
    result = harness.Result()
    result.add("recall_at_10", 0.5, ">=", 0.45)
    line = run.record("search", True, result)
    assert set(line) == {"name", "date", "machine", "command", "commit", "metrics", "targets"}
    assert line["command"] == "scripts/bench search --quick"
    assert line["targets"] == {"recall_at_10": {"op": ">=", "value": 0.45}}
    assert line["machine"]["cores"] >= 1
    assert json.loads(run.write(line, tmp_path).read_text(encoding="utf-8")) == line
    assert [path.name for path in tmp_path.iterdir()] == ["search.json"]


def test_only_modules_with_run_are_benchmarks() -> None:
    known = run.names()
    assert "harness" not in known
    assert "run" not in known
    assert all(known.values()), "a benchmark has no first line that says what it measures"


def test_an_unknown_name_is_refused_with_the_known_ones() -> None:
    done = subprocess.run(
        [sys.executable, "-m", "bench.run", "no-such"],
        cwd=harness.ROOT,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 2
    assert "known:" in done.stderr
    assert done.stdout == ""
