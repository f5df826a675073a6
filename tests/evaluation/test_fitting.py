"""Fitting: what is learned."""

from __future__ import annotations

import numpy as np
import pytest

from headrace.evaluation.fitting import Example, Fit, fit_linear, fit_trees


def examples(count: int, seed: int = 0) -> list[Example]:
    """The gold candidate has the most of feature 1 (and feature 2 never varies)."""
    generator = np.random.default_rng(seed)
    made = []
    for _ in range(count):
        rows = generator.random((20, 3)).astype(np.float32)
        rows[:, 2] = 4.0
        made.append(Example(rows, rows[:, 1] == rows[:, 1].max()))
    return made


@pytest.mark.parametrize("fit", [fit_linear, fit_trees])
def test_what_tells_gold_from_others_is_found(fit: Fit) -> None:
    ensemble = fit(examples(120))
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
