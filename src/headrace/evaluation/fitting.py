"""Fitting a ranker to questions with known answers. Pure: arrays in, ensembles out.

Two kinds are fitted. The weighted sum maximises the likelihood that a gold passage is drawn when
candidates are drawn in proportion to exp(score) (listwise softmax: Cao and others, "Learning to
Rank", ICML 2007), with a squared penalty on the weights of standardised features. The trees are
LambdaMART (Burges 2010) by LightGBM, small ones and few, since users have hundreds of questions and
not millions.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, NamedTuple, TypeAlias

import numpy as np
import numpy.typing as npt

from headrace.retrieval.ensemble import Ensemble, Linear, Tree, Trees

Rows: TypeAlias = npt.NDArray[np.float32]
Flags: TypeAlias = npt.NDArray[np.bool_]
Floats: TypeAlias = npt.NDArray[np.float64]

PENALTY = 0.01
"""Of the squared weights. .001 to .1 give the same within chance on 1,000 law questions."""

TREES = 150
TREE_SETTINGS = {
    "objective": "lambdarank",
    "num_leaves": 6,
    "learning_rate": 0.05,
    "min_data_in_leaf": 100,
    "lambdarank_truncation_level": 20,
    "feature_fraction": 0.7,
    "bagging_fraction": 0.8,
    "bagging_freq": 1,
    "lambda_l2": 1.0,
    "label_gain": [0, 1],
    "num_threads": 1,
    "seed": 1,
    "deterministic": True,
    "verbose": -1,
}


class Example(NamedTuple):
    """The candidates of one question: features float32 [n, features], and bool [n], which are
    gold."""

    rows: Rows
    gold: Flags


Fit: TypeAlias = Callable[[Sequence[Example]], Ensemble]


def fit_linear(examples: Sequence[Example]) -> Linear:
    """Questions whose gold passages are not among the candidates teach nothing and are left out."""
    from scipy.optimize import minimize

    used = [example for example in examples if example.gold.any()]
    rows = np.concatenate([example.rows for example in used]).astype(np.float64)
    mean, spread = rows.mean(axis=0), rows.std(axis=0)
    rows = (rows - mean) / np.where(spread > 1e-9, spread, 1.0)
    sizes = np.array([len(example.gold) for example in used])
    starts = np.concatenate([[0], np.cumsum(sizes)[:-1]])
    wanted = np.concatenate([example.gold / example.gold.sum() for example in used])

    def loss(weights: Floats) -> tuple[float, Floats]:
        scores = np.einsum("nf,f->n", rows, weights)
        highest = np.maximum.reduceat(scores, starts)
        raised = np.exp(scores - np.repeat(highest, sizes))
        sums = np.add.reduceat(raised, starts)
        value = float(np.sum(highest + np.log(sums)) - np.sum(wanted * scores)) / len(used)
        gradient = np.einsum("nf,n->f", rows, raised / np.repeat(sums, sizes) - wanted) / len(used)
        penalty = PENALTY / 2 * float(np.sum(weights * weights))
        return value + penalty, gradient + PENALTY * weights

    found = minimize(loss, np.zeros(rows.shape[1]), jac=True, method="L-BFGS-B")
    weights = np.where(spread > 1e-9, found.x / np.where(spread > 1e-9, spread, 1.0), 0.0)
    return Linear(tuple(map(float, weights)))


def fit_trees(examples: Sequence[Example]) -> Trees:
    import lightgbm

    used = [example for example in examples if example.gold.any()]
    data = lightgbm.Dataset(
        np.concatenate([example.rows for example in used]),
        np.concatenate([example.gold for example in used]).astype(int),
        group=[len(example.gold) for example in used],
    )
    booster = lightgbm.train(TREE_SETTINGS, data, TREES)
    return Trees(tuple(_tree(one["tree_structure"]) for one in booster.dump_model()["tree_info"]))


def _tree(root: dict[str, Any]) -> Tree:
    """LightGBM's nested nodes as lists, inner nodes in the order of a walk from the root."""
    feature: list[int] = []
    threshold: list[float] = []
    children: tuple[list[int], list[int]] = ([], [])
    value: list[float] = []
    waiting: list[tuple[dict[str, Any], int, int]] = [(root, -1, 0)]
    while waiting:
        node, parent, side = waiting.pop()
        if "leaf_value" in node:
            number = -1 - len(value)
            value.append(float(node["leaf_value"]))
        else:
            number = len(feature)
            feature.append(int(node["split_feature"]))
            threshold.append(float(node["threshold"]))
            children[0].append(0)
            children[1].append(0)
            waiting.append((node["right_child"], number, 1))
            waiting.append((node["left_child"], number, 0))
        if parent >= 0:
            children[side][parent] = number
    return Tree(
        tuple(feature), tuple(threshold), tuple(children[0]), tuple(children[1]), tuple(value)
    )
