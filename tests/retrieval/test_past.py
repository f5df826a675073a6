"""Past questions: by hand, and with whatever a file may hold."""

from __future__ import annotations

from math import log1p

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from headrace.retrieval.past import MAX_PASSAGES, NAMES, NEAREST, Past, PastQuestions

VECTORS = np.array([[1, 0, 0], [0.6, 0.8, 0], [0, 1, 0], [0, 0, 1]], np.float32)
ANSWERS = [[11], [11, 12], [21], []]
"""Chunks 10 to 19 are document 1, 20 to 29 document 2."""


def past() -> Past:
    return Past(VECTORS, ANSWERS, lambda ids: ids // 10)


def columns(
    asked: Past, vector: np.ndarray, ids: list[int], known: np.ndarray | None = None
) -> dict[str, list[float]]:
    near = asked.nearness(vector, known)
    chunks = np.array(ids, np.int64)
    rows = asked.rows(near, chunks, chunks // 10, known)
    assert rows.shape == (len(ids), len(NAMES))
    return {name: rows[:, i].tolist() for i, name in enumerate(NAMES)}


def test_nearness_is_in_standard_deviations_above_the_median() -> None:
    near = past().nearness(VECTORS[0])
    cosines = np.array([1, 0.6, 0, 0])
    assert near == pytest.approx(np.maximum((cosines - 0.3) / cosines.std(), 0))


def test_features_by_hand() -> None:
    found = columns(past(), VECTORS[0], [11, 12, 13, 21, 99])
    near = past().nearness(VECTORS[0])
    assert found["asked_document"] == pytest.approx([log1p(2), log1p(2), log1p(2), log1p(1), 0])
    assert found["asked_passage"] == pytest.approx([log1p(1.5), log1p(0.5), 0, log1p(1), 0])
    assert found["alike_passage"] == pytest.approx([near[0], near[1], 0, near[2], 0])
    assert found["alike_document"] == pytest.approx([near[0], near[0], near[0], near[2], 0])
    assert found["alike_neighbour"] == pytest.approx([near[1], near[0], near[1], 0, 0])


def test_a_neighbour_stands_in_the_same_document() -> None:
    asked = Past(VECTORS[:2], [[19], [30]], lambda ids: ids // 10)
    assert columns(asked, VECTORS[0], [20, 18])["alike_neighbour"][0] == 0
    assert columns(asked, VECTORS[0], [20, 18])["alike_neighbour"][1] > 0


def test_what_is_not_known_says_nothing() -> None:
    known = np.array([False, True, True, True])
    found = columns(past(), VECTORS[0], [11, 12, 21], known)
    assert found["asked_passage"] == pytest.approx([log1p(0.5), log1p(0.5), log1p(1)])
    near = past().nearness(VECTORS[0], known)
    assert near[0] == 0
    assert found["alike_passage"][0] == pytest.approx(near[1])
    nobody = columns(past(), VECTORS[0], [11, 21], np.zeros(4, np.bool_))
    assert all(value == [0, 0] for value in nobody.values())


def test_the_nearest_questions_bring_in_their_passages() -> None:
    asked = past()
    assert asked.nearest(asked.nearness(VECTORS[0])).tolist() == [11, 12]
    assert asked.nearest(asked.nearness(VECTORS[2])).tolist() == [11, 12, 21]
    assert asked.nearest(asked.nearness(VECTORS[0]), 1).tolist() == [11]
    assert asked.nearest(np.zeros(4)).tolist() == []
    generator = np.random.default_rng(1)
    many = generator.normal(size=(40, 8)).astype(np.float32)
    wide = Past(many, [[n] for n in range(40)], lambda ids: ids)
    assert len(wide.nearest(wide.nearness(many[0]))) == NEAREST


def test_no_answer_is_there_any_more() -> None:
    asked = Past(VECTORS, [[], [], [], []], lambda ids: ids // 10)
    assert asked.nearest(asked.nearness(VECTORS[0])).tolist() == []
    assert all(value == [0] for value in columns(asked, VECTORS[0], [11]).values())


def kept(**changes: object) -> PastQuestions:
    given = {
        "dimensions": 3,
        "vectors": VECTORS.astype("<f2").tobytes(),
        "passages": ((b"a",), (b"a", b"b"), (b"c",), ()),
    }
    return PastQuestions(**{**given, **changes})  # type: ignore[arg-type]


def test_what_is_kept_is_what_was_known() -> None:
    assert kept().problem() == ""
    assert kept().unit_vectors() == pytest.approx(VECTORS, abs=1e-3)


@pytest.mark.parametrize(
    ("changes", "problem"),
    [
        ({"passages": ()}, "0 past questions"),
        ({"dimensions": 4}, "another size"),
        ({"dimensions": 0, "vectors": b""}, "another size"),
        ({"vectors": b"\x00" * 23}, "another size"),
        ({"vectors": b"\xff" * 24}, "not a finite number"),
        ({"passages": ((b"a",) * (MAX_PASSAGES + 1), (), (), ())}, "more than"),
    ],
)
def test_damaged_files_are_refused(changes: dict[str, object], problem: str) -> None:
    assert problem in kept(**changes).problem()


@given(
    st.lists(st.lists(st.integers(0, 50), max_size=4), min_size=1, max_size=12),
    st.lists(st.integers(0, 50), min_size=1, max_size=20, unique=True),
)
def test_features_are_finite_whatever_is_asked(answers: list[list[int]], ids: list[int]) -> None:
    generator = np.random.default_rng(len(ids))
    vectors = generator.normal(size=(len(answers), 4)).astype(np.float32)
    asked = Past(vectors, answers, lambda given: given // 10)
    found = columns(asked, vectors[0], ids)
    there = {chunk for chunks in answers for chunk in chunks}
    for i, chunk in enumerate(ids):
        assert all(np.isfinite(found[name][i]) and found[name][i] >= 0 for name in NAMES)
        assert (found["asked_passage"][i] > 0) == (chunk in there)
