"""Logistic regression with weights that cannot be negative, and how well scores separate.

Small on purpose: a dozen measures and some thousand questions need no library. Weights that are not
negative keep the sum readable (each measure can only speak for support), and safe where it is used
on questions unlike those it was fitted to.
"""

from __future__ import annotations

import math
from typing import NamedTuple

import numpy as np
import numpy.typing as npt

Array = npt.NDArray[np.float64]

RIDGE = 3.0
"""Strength of the penalty on the standardised weights, as a number of questions."""

_ROUNDS = 50


class Fit(NamedTuple):
    """For raw measures: `weights` [measures], `bias`."""

    weights: Array
    bias: float

    def scores(self, rows: Array) -> Array:
        """Log-odds, float64 [rows]."""
        found: Array = rows @ self.weights + self.bias
        return found


def fit(rows: Array, labels: Array, signed: npt.NDArray[np.bool_] | None = None) -> Fit:
    """Newton's method on the penalised likelihood (iteratively reweighted least squares); whatever
    weight comes out negative is left out, and the rest fitted again, until none does. `rows`
    float64 [n, measures], `labels` 0 or 1 [n]; `signed` bool [measures] marks those whose weight
    may be negative. Both classes weigh the same in the end: the bias is for equal numbers."""
    mean, spread = rows.mean(axis=0), rows.std(axis=0)
    kept = spread > 1e-9
    free = np.zeros(len(kept), bool) if signed is None else signed
    while True:
        scaled = (rows[:, kept] - mean[kept]) / spread[kept]
        solution = _newton(scaled, labels)
        negative = (solution[:-1] < 0) & ~free[kept]
        if not negative.any():
            break
        kept[np.flatnonzero(kept)[negative]] = False
    weights = np.zeros(len(kept))
    weights[kept] = solution[:-1] / spread[kept]
    return Fit(weights, float(solution[-1] - weights @ mean))


def _newton(scaled: Array, labels: Array) -> Array:
    share = labels.mean()
    importance = np.where(labels > 0, 0.5 / max(share, 1e-9), 0.5 / max(1 - share, 1e-9))
    design = np.column_stack([scaled, np.ones(len(scaled))])
    penalty = np.diag([RIDGE] * scaled.shape[1] + [1e-6])
    solution = np.zeros(design.shape[1])
    for _ in range(_ROUNDS):
        chance = 1 / (1 + np.exp(-np.clip(design @ solution, -60, 60)))
        slope = design.T @ (importance * (chance - labels)) + penalty @ solution
        curve = (design * (importance * chance * (1 - chance))[:, None]).T @ design + penalty
        step = np.linalg.solve(curve, slope)
        solution -= step
        if np.abs(step).max() < 1e-8:
            break
    return solution


def area_under_curve(with_answer: Array, without: Array) -> float:
    """The probability that one of the first scores is greater than one of the second, equal ones
    counting half (Mann and Whitney's U over its greatest value)."""
    everything = np.concatenate([with_answer, without])
    _, place, counts = np.unique(everything, return_inverse=True, return_counts=True)
    ranks = (np.cumsum(counts) - (counts - 1) / 2)[place]
    first = len(with_answer)
    wins = ranks[:first].sum() - first * (first + 1) / 2
    return float(wins / (first * len(without)))


def threshold_for(with_answer: Array, share: float) -> float:
    """The score below which at most `share` of new questions with an answer should fall: the
    quantile one standard error below, since it is estimated from these few."""
    n = len(with_answer)
    careful = max(0.0, share - math.sqrt(share * (1 - share) / n))
    return float(np.sort(with_answer)[int(careful * n)])
