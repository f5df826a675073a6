"""Features of candidates, against values computed by hand."""

from __future__ import annotations

from math import log, log1p, sqrt

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from headrace.retrieval.base import Scored
from headrace.retrieval.features import (
    NAMES,
    Candidates,
    Texts,
    coverage,
    feature_rows,
    lexical_scores,
)

VECTORS = np.array([[1, 0], [0.6, 0.8], [0, 1]], np.float32)


def found() -> Candidates:
    return Candidates(
        ids=np.array([5, 6, 9]),
        documents=np.array([1, 1, 2]),
        vectors=VECTORS,
        fused=np.array([0.9, 0.5, 0.2], np.float32),
        lexical=np.array([0, 8, 4], np.float32),
        titles=["租赁", "租赁", "Law"],
        texts=["租金", "房屋租金", "x"],
    )


def column(name: str, query: str = "租金") -> list[float]:
    rows = feature_rows(query, np.array([1, 0], np.float32), found())
    assert rows.shape == (3, len(NAMES))
    values: list[float] = rows[:, NAMES.index(name)].tolist()
    return values


def test_scores_shares_and_ranks() -> None:
    assert column("dense") == pytest.approx([1, 0.6, 0])
    assert column("dense_share") == pytest.approx([1, 0.6, 0])
    assert column("lexical_share") == pytest.approx([0, 1, 0.5])
    assert column("lexical_rank") == pytest.approx([log(3), 0, log(2)])
    assert column("fused_rank") == pytest.approx([0, log(2), log(3)])
    assert column("length") == pytest.approx([log1p(2), log1p(4), log1p(1)])


def test_documents_and_neighbours() -> None:
    assert column("document") == pytest.approx([1, 1, sqrt(0.2 / 1.4)])
    assert column("document_best") == pytest.approx([0.9, 0.9, 0.2])
    assert column("document_place") == pytest.approx([0, log(2), 0])
    assert column("neighbour_best") == pytest.approx([0.5, 0.9, 0])
    assert column("neighbour_sum") == pytest.approx([0.5, 0.9, 0])


def test_texts_that_cover_the_question_s_characters() -> None:
    assert column("bigrams") == pytest.approx([1, 1, 0])
    assert column("characters", "租房") == pytest.approx(
        [log1p(1.5 / 2.5) / (log1p(1.5 / 2.5) + log1p(2.5 / 1.5)), 1, 0]
    )
    assert column("titles", "租赁") == pytest.approx([1, 1, 0])
    assert column("characters_gap", "租房")[1] == 0


def test_nothing_found_and_nothing_asked() -> None:
    empty = Candidates(
        *(np.empty(0, np.int64), np.empty(0, np.int64), np.empty((0, 2), np.float32)),
        *(np.empty(0, np.float32), np.empty(0, np.float32), [], []),
    )
    assert feature_rows("x", np.array([1, 0], np.float32), empty).shape == (0, len(NAMES))
    assert np.isfinite(feature_rows("?!", np.array([1, 0], np.float32), found())).all()


TEXT = st.text(st.sampled_from("甲乙丙ab\0 \n"), max_size=12)


@given(st.lists(TEXT, min_size=1, max_size=5), st.lists(TEXT.filter(bool), max_size=6, unique=True))
def test_all_at_once_is_what_one_by_one_finds(texts: list[str], terms: list[str]) -> None:
    terms = [term for term in terms if "\0" not in term]
    plain = [text.replace("\0", " ") for text in texts]
    has = [[float(term in text) for term in terms] for text in plain]
    assert Texts(texts).having(terms).tolist() == has
    assert np.isfinite(coverage(terms, Texts(texts))).all()


def test_full_width_letters_are_letters() -> None:
    assert Texts(["ＡＢ１"]).having(["ab", "1"]).tolist() == [[1, 1]]


def test_scores_of_who_is_not_in_the_list() -> None:
    assert lexical_scores([3, 4], [Scored(4, 2.5)]).tolist() == [0, 2.5]
