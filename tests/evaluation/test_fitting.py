"""Fitting: what is learned, and that a question never judges what it taught."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import pytest

from headrace.evaluation.fitting import KINDS, Example, fit_linear, fit_trees, held_out
from headrace.retrieval.ensemble import Linear


def examples(count: int, seed: int = 0) -> list[Example]:
    """The gold candidate has the most of feature 1 (and feature 2 never varies)."""
    generator = np.random.default_rng(seed)
    made = []
    for _ in range(count):
        rows = generator.random((20, 3)).astype(np.float32)
        rows[:, 2] = 4.0
        made.append(Example(rows, rows[:, 1] == rows[:, 1].max()))
    return made


@pytest.mark.parametrize("kind", KINDS)
def test_what_tells_gold_from_others_is_found(kind: str) -> None:
    ensemble = KINDS[kind](examples(120))
    assert ensemble.problem(3) == ""
    score = ensemble.compiled()
    right = [bool(one.gold[int(score(one.rows).argmax())]) for one in examples(40, seed=1)]
    assert np.mean(right) > 0.7  # by chance .05


def test_a_feature_that_never_varies_has_no_weight() -> None:
    weights = fit_linear(examples(20)).weights
    assert weights[2] == 0.0
    assert weights[1] > 3 * abs(weights[0])


def test_trees_say_what_lightgbm_says() -> None:
    import lightgbm

    from headrace.evaluation.fitting import TREE_SETTINGS, TREES

    known = examples(60)
    data = lightgbm.Dataset(
        np.concatenate([one.rows for one in known]),
        np.concatenate([one.gold for one in known]).astype(int),
        group=[20] * 60,
    )
    booster = lightgbm.train(TREE_SETTINGS, data, TREES)
    rows = examples(5, seed=2)[3].rows
    assert fit_trees(known).compiled()(rows) == pytest.approx(booster.predict(rows), abs=1e-4)


def test_no_question_is_scored_by_what_it_taught() -> None:
    known = examples(6)
    seen: list[set[int]] = []

    def fit(some: Sequence[Example]) -> Linear:
        taught = {i for i, one in enumerate(known) for other in some if one is other}
        seen.append(taught)
        return Linear((float(len(seen)), 0.0, 0.0))

    folds = [0, 1, 0, 1, 2, 2]
    scores = held_out(fit, known, folds)
    assert seen == [{1, 3, 4, 5}, {0, 2, 4, 5}, {0, 1, 2, 3}]
    for one, fold, mine in zip(known, folds, scores, strict=True):
        assert mine == pytest.approx(one.rows[:, 0] * (fold + 1))


def test_without_gold_elsewhere_the_order_stays() -> None:
    nothing = [one._replace(gold=np.zeros(20, np.bool_)) for one in examples(2)]
    assert (np.diff(held_out(fit_linear, nothing, [0, 1])[0]) < 0).all()
