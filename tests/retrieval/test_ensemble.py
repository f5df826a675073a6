"""Ensembles: what they compute, and which ones are refused."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from msgspec.structs import replace

from headrace.retrieval.ensemble import Linear, Tree, Trees

TREE = Tree((0, 1), (1.0, 0.0), (1, -1), (-2, -3), (1.0, 20.0, 3.0))
"""Feature 0 above 1 gives 20; else feature 1 above 0 gives 3, or 1."""


def test_a_weighted_sum() -> None:
    scores = Linear((2.0, -1.0)).compiled()(np.array([[1, 1], [0, 3]], np.float32))
    assert scores.tolist() == [1.0, -3.0]


def test_a_tree_goes_left_where_the_feature_is_at_most_the_threshold() -> None:
    rows = np.array([[1, 0], [1, 0.5], [1.5, 0], [-9, -9]], np.float32)
    assert Trees((TREE,)).compiled()(rows).tolist() == [1.0, 3.0, 20.0, 1.0]
    leaf = Tree((), (), (), (), (5.0,))
    assert Trees((TREE, leaf)).compiled()(rows).tolist() == [6.0, 8.0, 25.0, 6.0]


def test_a_threshold_between_two_float32_values_divides_as_in_double_precision() -> None:
    threshold = 0.1  # np.float32(0.1) lies above it
    tree = Tree((0,), (threshold,), (-1,), (-2,), (1.0, 2.0))
    row = np.array([[0.1]], np.float32)
    assert float(row[0, 0]) > threshold
    assert Trees((tree,)).compiled()(row).tolist() == [2.0]


@st.composite
def trees(draw: st.DrawFn) -> Tree:
    """A tree grown leaf by leaf."""
    feature: list[int] = []
    threshold: list[float] = []
    children: tuple[list[int], list[int]] = ([], [])
    leaves: list[tuple[int, int, int]] = [(-1, -1, 0)]  # leaf, parent, side
    for number in range(draw(st.integers(0, 9))):
        leaf, parent, side = leaves.pop(draw(st.integers(0, len(leaves) - 1)))
        feature.append(draw(st.integers(0, 3)))
        threshold.append(draw(st.sampled_from([-1.0, 0.0, 0.5, 1.0])))
        children[0].append(leaf)
        children[1].append(-2 - number)
        if parent >= 0:
            children[side][parent] = number
        leaves += [(leaf, number, 0), (-2 - number, number, 1)]
    values = tuple(float(v) for v in range(len(leaves)))
    return Tree(tuple(feature), tuple(threshold), tuple(children[0]), tuple(children[1]), values)


def walked(tree: Tree, row: list[float]) -> float:
    node = 0 if tree.feature else -1
    while node >= 0:
        left = row[tree.feature[node]] <= tree.threshold[node]
        node = tree.left[node] if left else tree.right[node]
    return tree.value[-1 - node]


ROW = st.lists(st.sampled_from([-2.0, -1.0, 0.0, 0.25, 0.5, 1.0, 3.0]), min_size=4, max_size=4)


@given(st.lists(trees(), min_size=1, max_size=4), st.lists(ROW, min_size=1, max_size=6))
def test_all_at_once_is_what_a_walk_gives(forest: list[Tree], rows: list[list[float]]) -> None:
    ensemble = Trees(tuple(forest))
    assert ensemble.problem(4) == ""
    found = ensemble.compiled()(np.array(rows, np.float32))
    assert found.tolist() == [sum(walked(tree, row) for tree in forest) for row in rows]


@pytest.mark.parametrize(
    ("tree", "problem"),
    [
        (replace(TREE, left=(0, -1)), "hang together"),
        (replace(TREE, right=(-2, -9)), "hang together"),
        (Tree((0, 0), (0.0, 0.0), (-1, 1), (-2, -3), (1.0, 1.0, 1.0)), "circle"),
        (replace(TREE, threshold=(1.0,)), "different lengths"),
        (replace(TREE, feature=(0, 7)), "beyond the 2"),
        (replace(TREE, value=(1.0, float("nan"), 3.0)), "finite"),
        (Tree((0,) * 64, (0.0,) * 64, (1,) * 64, (1,) * 64, (0.0,) * 65), "65 leaves"),
    ],
)
def test_trees_that_no_walk_would_leave_are_refused(tree: Tree, problem: str) -> None:
    assert problem in Trees((tree,)).problem(2)


def test_sums_that_do_not_fit_are_refused() -> None:
    assert "2 weights for 3" in Linear((1.0, 2.0)).problem(3)
    assert "finite" in Linear((float("inf"),)).problem(1)
    assert "0 trees" in Trees(()).problem(1)
