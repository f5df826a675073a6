"""Comparisons find differences that are there, and none that are not; the gate's rule."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from msgspec.structs import replace

from headrace.errors import BadRequest
from headrace.evaluation.compare import compare, holm, interval, randomisation
from headrace.evaluation.gate import gate
from headrace.evaluation.journal import Record
from headrace.evaluation.metrics import Metric, means
from headrace.evaluation.report import Report, Row, Times


def report(values: dict[str, dict[str, float]], **more: Any) -> Report:
    rows = tuple(Row(name, "?", one, Record(id=name)) for name, one in values.items())
    given: dict[str, Any] = {
        "name": "s",
        "about": "",
        "kinds": ("answers",),
        "date": "",
        "program": "",
        "machine": "",
        "collection": "c",
        "generation": 1,
        "config_version": "",
        "suite": "fingerprint",
        "models": {},
        "questions": len(values),
        "concurrency": 1,
        "seconds": 1.0,
        "metrics": means(values),
        "times": {},
        "rows": rows,
    }
    return Report(**(given | more))


def runs(shift: float, n: int = 200) -> tuple[Report, Report]:
    """Two runs whose questions differ much more from each other than the runs do."""
    generator = np.random.default_rng(3)
    base = generator.uniform(0, 1, n)
    noise = generator.normal(0, 0.02, n)
    a = {f"q{i}": {"answers.f1": float(base[i]), "failed": 0.0} for i in range(n)}
    b = {
        f"q{i}": {"answers.f1": float(base[i] + noise[i] + shift), "failed": 0.0} for i in range(n)
    }
    return report(a), report(b)


def test_a_small_true_difference_is_found() -> None:
    found, same = compare(*runs(0.01)).differences
    assert found.metric == "answers.f1"
    assert found.verdict == "better"
    assert 0 < found.low < found.difference < found.high < 0.02
    assert found.holm < 0.01
    assert (same.difference, same.p, same.verdict) == (0.0, 1.0, "no difference shown")


def test_no_difference_is_not_found() -> None:
    found, _ = compare(*runs(0.0)).differences
    assert found.verdict == "no difference shown"
    assert found.low < 0 < found.high


def test_false_alarms_are_as_rare_as_promised() -> None:
    """Under the null hypothesis p is below .05 in 5 % of the cases: 10 of 200, 3 standard
    deviations are 9."""
    generator = np.random.default_rng(5)
    ps = [randomisation(generator.normal(0, 1, 40), rounds=500, seed=i) for i in range(200)]
    assert 1 <= sum(p < 0.05 for p in ps) <= 19


def test_randomisation_against_all_signs() -> None:
    """Of the 16 signs of (1, 2, 3, 4), two have a sum as far from 0 as 10."""
    p = randomisation(np.array([1.0, 2.0, 3.0, 4.0, 0.0]))
    assert p == pytest.approx(2 / 16, abs=0.012)
    assert randomisation(np.zeros(5)) == 1.0


def test_interval_of_a_mean() -> None:
    """The standard error of a mean of 400 values with deviation 1 is .05."""
    values = np.random.default_rng(1).normal(2, 1, 400)
    low, high = interval(values)
    assert high - low == pytest.approx(2 * 1.96 * 0.05, rel=0.1)
    assert low < values.mean() < high


def test_holm_by_hand() -> None:
    assert holm([0.01, 0.04, 0.03, 0.5]) == pytest.approx([0.04, 0.09, 0.09, 0.5])
    assert holm([]) == []


def test_a_metric_in_which_nothing_differs_is_no_test() -> None:
    (_, b), same = runs(0.01), {f"same{i}": 1.0 for i in range(30)}
    (a, _) = runs(0.01)
    many_a, many_b = (report({row.id: row.values | same for row in run.rows}) for run in (a, b))
    found = {one.metric: one.holm for one in compare(many_a, many_b).differences}
    assert found["answers.f1"] == compare(a, b).differences[0].holm
    assert found["same0"] == 1.0


def test_less_of_what_is_bad_is_better() -> None:
    a = report({f"q{i}": {"refusal.false": 1.0} for i in range(40)})
    b = report({f"q{i}": {"refusal.false": float(i < 20)} for i in range(40)})
    assert compare(a, b).differences[0].verdict == "better"
    assert compare(b, a).differences[0].verdict == "worse"


def test_only_shared_questions_count() -> None:
    a = report({"x": {"answers.f1": 1.0}, "y": {"answers.f1": 0.0}, "z": {"answers.f1": 0.0}})
    b = report({"w": {"answers.f1": 1.0}, "y": {"answers.f1": 1.0, "new": 1.0}})
    found = compare(a, b)
    assert (found.shared, found.only, found.same_suite) == (1, (2, 1), True)
    assert not compare(a, replace(b, suite="other")).same_suite
    assert [(one.metric, one.n, one.difference) for one in found.differences] == [
        ("answers.f1", 1, 1.0)
    ]


def test_what_cannot_be_compared_is_refused() -> None:
    with pytest.raises(BadRequest, match="share no question"):
        compare(report({"x": {"answers.f1": 1.0}}), report({"y": {"answers.f1": 1.0}}))
    a, b = report({"x": {"answers.f1": 1.0}}), report({"x": {"answers.f1": 1.0}})
    other = replace(b, rows=(replace(b.rows[0], text="another"),))
    with pytest.raises(BadRequest, match="one id and two texts"):
        compare(a, other)


# The gate ----------------------------------------------------------------------------------------


def failed(now: Report, before: Report | None, tolerance: float = 0.01) -> list[str]:
    return [check.metric for check in gate(now, before, tolerance) if not check.ok]


def metrics(**values: float) -> dict[str, Metric]:
    return {name.replace("_", "."): Metric(value, 10) for name, value in values.items()}


def test_a_drop_beyond_the_tolerance_fails() -> None:
    before = report({}, metrics=metrics(answers_f1=0.6, refusal_false=0.1, failed=0.0))
    assert failed(before, before) == []
    slightly = replace(before, metrics=metrics(answers_f1=0.591, refusal_false=0.109, failed=0.0))
    assert failed(slightly, before) == []
    assert failed(slightly, before, 0.0) == ["answers.f1", "refusal.false"]
    better = replace(before, metrics=metrics(answers_f1=0.9, refusal_false=0.0, failed=0.0))
    assert failed(better, before) == []
    absent = replace(before, metrics=metrics(answers_f1=0.6, refusal_false=0.3))
    assert failed(absent, before) == ["refusal.false", "failed"]


def test_thresholds_of_the_suite() -> None:
    now = report(
        {},
        metrics=metrics(answers_f1=0.6),
        times={"total": Times(1200, 5.0, 900.0, 990.0), "plan": Times(20, 1.0, 2.0)},
        thresholds={
            "answers.f1": ">= 0.6",
            "answers.exact": ">= 0.1",
            "time.total.p95": "<= 1000",
            "time.total.p99": "<= 980",
            "time.plan.p99": "<= 10",
            "time.plan.index": ">= 0",
        },
    )
    assert failed(now, None) == [
        *("answers.exact", "time.total.p99", "time.plan.p99", "time.plan.index")
    ]


def test_what_the_gate_cannot_judge_is_refused() -> None:
    now = report({}, metrics=metrics(answers_f1=0.6))
    with pytest.raises(BadRequest, match="nothing to check"):
        gate(now, None)
    with pytest.raises(BadRequest, match="another suite"):
        gate(now, replace(now, suite="other"))
