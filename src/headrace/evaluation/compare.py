"""Two runs of one suite, question by question: what differs, and whether by chance.

The test is the paired randomisation test (Fisher 1935; recommended for retrieval by Smucker, Allan
and Carterette 2007): if both runs were equally good, each question's difference could as well have
the other sign. p is the share of random signs whose mean is at least as far from zero as the one
measured, with one added to both counts (Phipson and Smyth 2010), so it is never 0. Holm's method
(1979) corrects for testing many metrics; a metric in which no question differs can show nothing and
is not counted among them (Tarone 1990). The interval is a percentile bootstrap over questions
(Efron 1979). Seeds are fixed: the same two runs give the same numbers.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from headrace.errors import BadRequest
from headrace.evaluation.metrics import LOWER_IS_BETTER
from headrace.evaluation.report import Report

ROUNDS = 10_000
LEVEL = 0.05
_STEP = 250
"""Rounds computed at once: bounds the memory to some tens of MB for 14,000 questions."""

Array = npt.NDArray[np.float64]


class Difference(NamedTuple):
    """B minus A over the `n` questions that have the metric in both; the 95 % interval of the
    mean difference; `p` of the randomisation test, and `holm`, p corrected for all metrics."""

    metric: str
    n: int
    a: float
    b: float
    difference: float
    low: float
    high: float
    p: float
    holm: float

    @property
    def verdict(self) -> str:
        """`better` or `worse` where the difference is significant at 5 % after the correction."""
        if self.holm >= LEVEL:
            return "no difference shown"
        improved = (self.difference < 0) == (self.metric in LOWER_IS_BETTER)
        return "better" if improved else "worse"


class Comparison(NamedTuple):
    """`only` counts questions that just one of the two has. Without `same_suite`, the two were not
    judged by the same: another gold, other settings of the answers, or only other questions."""

    differences: list[Difference]
    shared: int
    only: tuple[int, int]
    same_suite: bool


def compare(a: Report, b: Report) -> Comparison:
    """Every metric that both runs have. Raises `BadRequest` if they share no question."""
    left = {row.id: row for row in a.rows}
    right = {row.id: row for row in b.rows}
    shared = [name for name in left if name in right]
    if not shared:
        raise BadRequest(
            "the two runs share no question; compare runs of one suite, each with the "
            "questions.jsonl that `headrace eval run` wrote beside its report.json"
        )
    changed = [name for name in shared if left[name].text != right[name].text]
    if changed:
        raise BadRequest(
            f"{len(changed)} questions have one id and two texts ({changed[0]!r} first); compare "
            "runs of one suite"
        )
    pairs: dict[str, list[tuple[float, float]]] = {}
    for name in shared:
        other = right[name].values
        for metric, value in left[name].values.items():
            if metric in other:
                pairs.setdefault(metric, []).append((value, other[metric]))
    metrics = [metric for metric in a.metrics if metric in pairs]
    found = [_difference(metric, np.asarray(pairs[metric])) for metric in metrics]
    tested = [one for one in found if one.p < 1]
    corrected = dict(
        zip((one.metric for one in tested), holm([one.p for one in tested]), strict=True)
    )
    return Comparison(
        [one._replace(holm=corrected.get(one.metric, 1.0)) for one in found],
        len(shared),
        (len(left) - len(shared), len(right) - len(shared)),
        a.suite == b.suite,
    )


def _difference(metric: str, values: Array) -> Difference:
    """`values` is [n, 2]: A and B."""
    differences = values[:, 1] - values[:, 0]
    p = randomisation(differences)
    low, high = interval(differences)
    a, b = values.mean(axis=0).tolist()
    return Difference(metric, len(values), a, b, b - a, low, high, p, p)


def randomisation(differences: Array, rounds: int = ROUNDS, seed: int = 0) -> float:
    """Two-sided p of the paired randomisation test."""
    apart = differences[differences != 0]
    if not len(apart):
        return 1.0
    generator = np.random.default_rng(seed)
    measured = abs(apart.sum()) - 1e-12  # sums of other signs differ in their last digits
    extreme = 0
    for start in range(0, rounds, _STEP):
        signs = generator.integers(0, 2, (min(_STEP, rounds - start), len(apart)), np.int8) * 2 - 1
        extreme += int((np.abs(signs @ apart) >= measured).sum())
    return (extreme + 1) / (rounds + 1)


def interval(differences: Array, rounds: int = ROUNDS, seed: int = 0) -> tuple[float, float]:
    """The 2.5th and 97.5th percentile of the mean over questions drawn with replacement."""
    if not differences.any():
        return 0.0, 0.0
    generator = np.random.default_rng(seed)
    means: list[Array] = []
    for start in range(0, rounds, _STEP):
        shape = (min(_STEP, rounds - start), len(differences))
        drawn = generator.integers(0, len(differences), shape, np.int32)
        means.append(differences[drawn].mean(axis=1))
    low, high = np.percentile(np.concatenate(means), [2.5, 97.5]).tolist()
    return low, high


def holm(ps: Sequence[float]) -> list[float]:
    """p values corrected for each other: the i-th smallest of m is multiplied by m - i, never
    below a smaller one's, at most 1."""
    corrected = [0.0] * len(ps)
    highest = 0.0
    for place, index in enumerate(sorted(range(len(ps)), key=ps.__getitem__)):
        highest = max(highest, min(1.0, (len(ps) - place) * ps[index]))
        corrected[index] = highest
    return corrected
