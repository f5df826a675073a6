"""How much passages speak for an answer, by the rule and by a calibration."""

from __future__ import annotations

import math
from collections.abc import Iterable

import pytest
from hits import hit

from headrace.config.model_options import ModelOptions
from headrace.pipeline.calibration import Calibration, Quality
from headrace.pipeline.evidence import passages
from headrace.pipeline.relevance import by_rule, judge
from headrace.pipeline.support import Measures, measures
from headrace.retrieval.base import Snapshot
from headrace.types import Filter, Role


class Rare:
    """A snapshot in which every term is equally rare, but for `common` ones."""

    generation = 1

    def rarity(self, wanted: Iterable[str]) -> dict[str, float]:
        return {token: 0.1 if token == "common" else 1.0 for token in wanted}

    def search_dense(self, vector: object, k: int, where: Filter) -> list[object]:
        raise AssertionError("nothing is searched")

    search_lexical = search_dense


SNAPSHOT: Snapshot = Rare()  # type: ignore[assignment]
EMBEDDER = ModelOptions(
    role=Role.EMBEDDER, engine="echo", near_cosine=0.88, near_cosine_across=0.81
)


def scores(dense: float, lexical: float | None = None) -> dict[str, float]:
    return {"dense": dense} if lexical is None else {"dense": dense, "lexical": lexical}


def test_measures_of_a_result() -> None:
    found = measures(
        "zebra kitten common",
        passages(
            [
                hit("A zebra eats.", 1, scores=scores(0.9, 4.0)),
                hit("A kitten sleeps.", 2, scores=scores(0.8)),
                hit("Nothing at all.", 3, scores=scores(0.7, 1.0)),
            ]
        ),
        SNAPSHOT,
    )
    assert found.near == 0.9
    assert found.stands_out == pytest.approx(0.15)
    assert found.covered == pytest.approx(1 / 2.1)
    assert found.joint == pytest.approx(2 / 2.1)
    assert found.words == pytest.approx(4 / 2.1)
    assert found.words_stand_out == pytest.approx(0.75)
    assert found.agreed == pytest.approx(2 / 3)
    assert not found.foreign
    assert not found.rerank


def test_only_the_first_passages_count() -> None:
    hits = [hit("Nothing.", n, scores=scores(0.5)) for n in range(5)]
    hits.append(hit("A zebra.", 9, scores=scores(0.99)))
    assert measures("zebra", passages(hits), SNAPSHOT).covered == 0


def test_shared_words_are_enough_and_so_is_nearness() -> None:
    shares = passages([hit("A zebra eats.", scores=scores(0.5))])
    assert judge("zebra", shares, SNAPSHOT, EMBEDDER).enough
    near = passages([hit("Other words here.", scores=scores(0.88))])
    assert judge("zebra", near, SNAPSHOT, EMBEDDER).enough
    neither = passages([hit("Other words here.", scores=scores(0.87))])
    assert not judge("zebra", neither, SNAPSHOT, EMBEDDER).enough


def test_less_nearness_is_enough_in_another_language() -> None:
    near = passages([hit("The fee is due in May.", scores=scores(0.82))])
    assert judge("费用什么时候交", near, SNAPSHOT, EMBEDDER).enough
    assert not judge("zebra kitten", near, SNAPSHOT, EMBEDDER).enough
    one_language = ModelOptions(role=Role.EMBEDDER, engine="echo", near_cosine=0.8)
    assert not judge("费用什么时候交", near, SNAPSHOT, one_language).enough


def test_nothing_found_is_never_enough() -> None:
    assert not judge("zebra", [], SNAPSHOT, EMBEDDER, least=0.0).enough


def calibration(**more: object) -> Calibration:
    given = {
        "version": 1,
        "embedder": "toy-1",
        "reranker": None,
        "weights": {"covered": 4.0},
        "bias": -3.0,
        "within_rule": True,
        "threshold": 0.5,
        "quality": Quality(100, 100, 0.9, 0.8, 0.04, 0.6),
        "suite": "s",
        "made": "2026-01-01T00:00:00+00:00",
        **more,
    }
    return Calibration(**given)  # type: ignore[arg-type]


def test_a_calibration_judges_in_place_of_the_rule() -> None:
    half = passages([hit("A zebra eats.", scores=scores(0.5))])
    assert judge("zebra kitten", half, SNAPSHOT, EMBEDDER).enough
    support = judge("zebra kitten", half, SNAPSHOT, EMBEDDER, calibration())
    assert support.value == pytest.approx(1 / (1 + math.exp(1)))
    assert support.calibrated
    assert not support.enough
    assert judge("zebra kitten", half, SNAPSHOT, EMBEDDER, calibration(), least=0.2).enough


def test_what_the_rule_refuses_has_no_calibrated_support_within_it() -> None:
    off = passages([hit("Other words.", scores=scores(0.5))])
    generous = calibration(bias=5.0)
    assert judge("zebra", off, SNAPSHOT, EMBEDDER, generous).value == 0
    assert judge("zebra", off, SNAPSHOT, EMBEDDER, calibration(bias=5.0, within_rule=False)).enough


def test_the_rule_takes_the_greater_share() -> None:
    assert by_rule(Measures(near=0.44, covered=0.15), EMBEDDER) == pytest.approx(0.5)
    assert by_rule(Measures(near=0.88, covered=0.0), EMBEDDER) == pytest.approx(1.0)
    assert by_rule(Measures(near=0.9), ModelOptions(role=Role.EMBEDDER, engine="echo")) == 0
