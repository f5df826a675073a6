"""Whether quality dropped: the rule that CI follows."""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import NamedTuple

from headrace.errors import BadRequest
from headrace.evaluation.metrics import LOWER_IS_BETTER
from headrace.evaluation.report import Report, Times

TOLERANCE = 0.01
"""How much worse a mean may be than the baseline's; processors differ in their last digits."""

_THRESHOLD = re.compile(r"^(>=|<=) *(-?\d+(?:\.\d+)?)$")


class Check(NamedTuple):
    """One line of the gate's table."""

    metric: str
    wanted: str
    value: float | None
    ok: bool


def gate(report: Report, baseline: Report | None, tolerance: float = TOLERANCE) -> list[Check]:
    """Every threshold of the suite, and every metric of the baseline.

    1. A threshold must be met. 2. No metric may be worse than the baseline's by more than
    `tolerance`. 3. A metric that is absent now fails. Raises `BadRequest` if there is nothing to
    check, or the baseline is of another suite: its numbers would say nothing."""
    checks = [
        Check(name, threshold, value_of(report, name), met(report, name, threshold))
        for name, threshold in report.thresholds.items()
    ]
    if baseline is not None:
        if baseline.suite != report.suite:
            raise BadRequest(
                f"the baseline is of another suite or of another state of it ({baseline.name} "
                f"{baseline.suite}, this is {report.name} {report.suite}): make a new baseline"
            )
        checks += _against(report, baseline, tolerance)
    if not checks:
        raise BadRequest(
            "there is nothing to check: give --baseline REPORT, or write `thresholds` into the "
            "suite and run it again"
        )
    return checks


def _against(report: Report, baseline: Report, tolerance: float) -> Iterator[Check]:
    for name, before in baseline.metrics.items():
        now = value_of(report, name)
        if name in LOWER_IS_BETTER:
            limit, op = before.value + tolerance, "<="
            ok = now is not None and now <= limit
        else:
            limit, op = before.value - tolerance, ">="
            ok = now is not None and now >= limit
        yield Check(name, f"{op} {limit:.3f}", now, ok)


def met(report: Report, name: str, threshold: str) -> bool:
    """Whether a threshold (`>= 0.57`) is met; it is not if its metric is absent."""
    value, found = value_of(report, name), _THRESHOLD.match(threshold)
    if value is None or found is None:
        return False
    return value >= float(found[2]) if found[1] == ">=" else value <= float(found[2])


def value_of(report: Report, name: str) -> float | None:
    """A metric, or a time in milliseconds: `time.total.p95`."""
    if name.startswith("time."):
        stage, _, which = name.removeprefix("time.").rpartition(".")
        found = report.times.get(stage)
        value: float | None = (
            getattr(found, which, None) if which in Times.__struct_fields__ else None
        )
        return value
    metric = report.metrics.get(name)
    return None if metric is None else metric.value
