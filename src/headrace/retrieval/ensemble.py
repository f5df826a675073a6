"""The two kinds of learned scoring functions, evaluated with numpy: a weighted sum, and boosted
regression trees.

Trees are evaluated for all rows at once and without a branch, as matrix products (Nakandala and
others, "A Tensor Compiler for Unified Machine Learning Prediction Serving", OSDI 2020): one
comparison per inner node; a leaf is reached if exactly those comparisons hold that turn left on the
way to it. 150 rows through 60 trees of 8 leaves take 0.15 ms.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import TypeAlias

import msgspec
import numpy as np
import numpy.typing as npt

Rows: TypeAlias = npt.NDArray[np.float32]
"""float32 [rows, features]."""

Scores: TypeAlias = npt.NDArray[np.float32]

MAX_TREES = 500
MAX_LEAVES = 64
"""More would take longer than a search; a file that says more is not one of ours."""


class Linear(msgspec.Struct, frozen=True, tag="linear", forbid_unknown_fields=True):
    """The sum of the features, each times its weight."""

    weights: tuple[float, ...]

    def problem(self, features: int) -> str:
        """What is wrong with it for rows of so many features; empty if nothing is."""
        if len(self.weights) != features:
            return f"{len(self.weights)} weights for {features} features"
        if not all(map(math.isfinite, self.weights)):
            return "a weight is not a finite number"
        return ""

    def compiled(self) -> CompiledLinear:
        return CompiledLinear(np.asarray(self.weights, np.float32))


class Tree(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """Inner node i asks whether `feature[i]` is at most `threshold[i]`; if so `left[i]` is next,
    else `right[i]`: an inner node of a higher number, or leaf n written as -1 - n. Node 0 is the
    root; a tree without inner nodes is its only leaf."""

    feature: tuple[int, ...]
    threshold: tuple[float, ...]
    left: tuple[int, ...]
    right: tuple[int, ...]
    value: tuple[float, ...]

    def problem(self, features: int) -> str:
        inner, leaves = len(self.feature), len(self.value)
        if not inner == len(self.threshold) == len(self.left) == len(self.right) == leaves - 1:
            return "a tree's lists have different lengths"
        if leaves > MAX_LEAVES:
            return f"a tree has {leaves} leaves, at most {MAX_LEAVES}"
        if not all(0 <= feature < features for feature in self.feature):
            return f"a tree asks for a feature beyond the {features} there are"
        if not all(map(math.isfinite, (*self.threshold, *self.value))):
            return "a tree holds what is not a finite number"
        children = (*self.left, *self.right)
        if sorted(children) != sorted((*range(1, inner), *range(-leaves, 0))) and inner:
            return "a tree's nodes do not hang together"
        if any(0 <= child <= i for i in range(inner) for child in (self.left[i], self.right[i])):
            return "a tree goes round in a circle"
        return ""

    def ways(self) -> Iterator[tuple[int, list[tuple[int, bool]]]]:
        """Every leaf, with the inner nodes on the way to it and whether it goes left there."""
        open_: list[tuple[int, list[tuple[int, bool]]]] = [(0 if self.feature else -1, [])]
        while open_:
            node, way = open_.pop()
            if node < 0:
                yield -1 - node, way
            else:
                open_.append((self.left[node], [*way, (node, True)]))
                open_.append((self.right[node], [*way, (node, False)]))


class Trees(msgspec.Struct, frozen=True, tag="trees", forbid_unknown_fields=True):
    """The sum of what the trees say."""

    trees: tuple[Tree, ...]

    def problem(self, features: int) -> str:
        if not 1 <= len(self.trees) <= MAX_TREES:
            return f"{len(self.trees)} trees; 1 to {MAX_TREES} are allowed"
        return next(filter(None, (tree.problem(features) for tree in self.trees)), "")

    def compiled(self) -> CompiledTrees:
        nodes = max(1, *(len(tree.feature) for tree in self.trees))
        leaves = max(len(tree.value) for tree in self.trees)
        count = len(self.trees)
        feature = np.zeros((count, nodes), np.int64)
        threshold = np.full((count, nodes), -np.inf, np.float32)  # holds for no row
        ways = np.zeros((count, leaves, nodes), np.float32)
        wanted = np.full((count, leaves, 1), -1e6, np.float32)  # of a leaf that is not there
        value = np.zeros((count, leaves), np.float32)
        for t, tree in enumerate(self.trees):
            feature[t, : len(tree.feature)] = tree.feature
            threshold[t, : len(tree.threshold)] = _rounded_down(tree.threshold)
            value[t, : len(tree.value)] = tree.value
            for leaf, way in tree.ways():
                wanted[t, leaf, 0] = sum(left for _, left in way)
                for node, left in way:
                    ways[t, leaf, node] = 1.0 if left else -1.0
        return CompiledTrees(feature, threshold, ways, wanted, value)


Ensemble: TypeAlias = Linear | Trees


@dataclass(frozen=True)
class CompiledLinear:
    weights: npt.NDArray[np.float32]

    def __call__(self, rows: Rows) -> Scores:
        """float32 [rows]."""
        scores: Scores = (rows * self.weights).sum(axis=1)  # a matrix product would wake all cores
        return scores


@dataclass(frozen=True)
class CompiledTrees:
    """`feature`, `threshold` [trees, nodes]; `ways` [trees, leaves, nodes]: 1 where the way to the
    leaf turns left at the node, -1 where right; `wanted` [trees, leaves, 1]: how often it turns
    left; `value` [trees, leaves]."""

    feature: npt.NDArray[np.int64]
    threshold: npt.NDArray[np.float32]
    ways: npt.NDArray[np.float32]
    wanted: npt.NDArray[np.float32]
    value: npt.NDArray[np.float32]

    def __call__(self, rows: Rows) -> Scores:
        """float32 [rows]."""
        asked = rows.T[self.feature]  # [trees, nodes, rows]
        holds = (asked <= self.threshold[:, :, None]).astype(np.float32)
        reached = np.matmul(self.ways, holds) == self.wanted  # [trees, leaves, rows]
        scores: Scores = np.einsum("tlr,tl->r", reached, self.value, dtype=np.float32)
        return scores


def _rounded_down(thresholds: Sequence[float]) -> npt.NDArray[np.float32]:
    """The greatest float32 values not above: a float32 feature is at most the one exactly if it is
    at most the other."""
    exact = np.asarray(thresholds, np.float64)
    near = exact.astype(np.float32)
    return np.where(near > exact, np.nextafter(near, np.float32(-np.inf)), near)
