"""Fitting the judge of support: on numbers made by hand, and on a collection."""

from __future__ import annotations

import contextlib
from pathlib import Path

import numpy as np
import pytest
from evaluating import handbook, question, suite
from msgspec.structs import replace

from headrace.config.model_options import DefaultModels, ModelOptions
from headrace.config.options import Config
from headrace.errors import BadRequest
from headrace.evaluation.calibrating import (
    Example,
    arrays,
    calibrate,
    check_enough,
    examples,
    fitted,
    out_of_fold,
    quality,
)
from headrace.evaluation.format import Gold
from headrace.evaluation.logistic import area_under_curve, fit, threshold_for
from headrace.ingest.reindex import Places, Wanted, reindex
from headrace.ingest.stamps import Cut
from headrace.pipeline.answer import answer
from headrace.pipeline.calibration import load
from headrace.pipeline.support import Measures
from headrace.retrieval.ensemble import Linear
from headrace.retrieval.ranker import FORMAT, Fitted, digest
from headrace.types import BULK, DoneEvent, Role


def made(count: int, gap: float, *, rule: float = 1.0, seed: int = 0) -> list[Example]:
    """Pairs whose cosines differ by `gap` spreads."""
    noise = np.random.default_rng(seed).normal(size=(count, 2))
    return [
        Example(n, bool(answers), Measures(near=float(noise[n, answers] + gap * answers)), rule)
        for n in range(count)
        for answers in (1, 0)
    ]


def test_area_under_curve() -> None:
    assert area_under_curve(np.array([2.0, 3.0]), np.array([0.0, 1.0])) == 1.0
    assert area_under_curve(np.array([0.0]), np.array([1.0])) == 0.0
    assert area_under_curve(np.array([1.0, 1.0]), np.array([1.0])) == 0.5
    assert area_under_curve(np.array([1.0, 3.0]), np.array([2.0, 0.0])) == 0.75


def test_weights_recover_what_made_the_labels() -> None:
    rng = np.random.default_rng(1)
    rows = rng.normal(size=(4000, 2))
    chance = 1 / (1 + np.exp(-(2 * rows[:, 0] + 1 * rows[:, 1])))
    found = fit(rows, (rng.random(4000) < chance).astype(float))
    assert found.weights == pytest.approx([2, 1], abs=0.2)
    assert found.bias == pytest.approx(0, abs=0.15)


def test_no_measure_speaks_against_support_unless_it_may() -> None:
    rng = np.random.default_rng(1)
    rows = rng.normal(size=(500, 2))
    labels = (rows[:, 0] - rows[:, 1] > 0).astype(float)
    assert fit(rows, labels).weights[1] == 0
    assert fit(rows, labels).weights[0] > 0
    assert fit(rows, labels, np.array([False, True])).weights[1] < 0


def test_a_measure_that_never_changes_has_no_weight() -> None:
    rows = np.column_stack([np.arange(40.0), np.full(40, 7.0)])
    assert fit(rows, (rows[:, 0] > 20).astype(float)).weights[1] == 0


def test_the_threshold_keeps_a_distance() -> None:
    scores = np.arange(1000.0)
    assert 40 <= threshold_for(scores, 0.05) < 50
    assert threshold_for(np.arange(20.0), 0.05) == 0.0


def test_what_separates_is_learned_and_what_does_not_is_not() -> None:
    clear, none = quality(arrays(made(300, 3.0))), quality(arrays(made(300, 0.0)))
    assert clear.auc > 0.97
    assert clear.refused_unanswerable > 0.8
    assert clear.refused_answerable <= 0.06
    assert 0.4 < none.auc < 0.6
    assert none.refused_unanswerable < 0.2


def test_both_of_a_pair_are_in_one_fold() -> None:
    data = arrays(made(50, 1.0))
    assert (data.fold[::2] == data.fold[1::2]).all()
    assert set(data.fold) == set(range(5))


def test_what_the_rule_refuses_stays_refused_unless_it_refuses_too_much() -> None:
    given = made(200, 1.0)
    off = [Example(1000 + n, False, Measures(near=9.0), 0.2) for n in range(20)]
    data = arrays([*given, *off])
    judge, threshold = fitted(data)
    assert judge.within_rule
    assert (out_of_fold(data, 0.05)[-20:] < threshold).all()
    judge, _ = fitted(arrays(made(200, 1.0, rule=0.5)))
    assert not judge.within_rule


def test_too_few_questions() -> None:
    with pytest.raises(BadRequest, match="3 questions with an answer and 3 without are too few"):
        check_enough(suite())


def config(folder: Path) -> Config:
    return Config(
        data_dir=folder / "data",
        cache_dir=folder / "cache",
        models={"echo-vector": ModelOptions(role=Role.EMBEDDER, engine="echo")},
        defaults=DefaultModels(generator=None, embedder="echo-vector"),
    )


async def test_gold_passages_are_taken_out(tmp_path: Path) -> None:
    given = suite(
        question(1, "Who keeps the keys of the gates?", gold=((Gold(place="Keys"),),)),
        question(2, "Who is the mayor?", answerable=False),
        question(3, "Nobody says whether this has an answer"),
        question(4, "How long is annual leave?", answers=("24 days",)),
    )
    async with handbook(config(tmp_path), tmp_path) as services:
        found = await examples(services, given)
    assert [(e.question, e.answerable) for e in found] == [
        (0, True),
        (0, False),
        (1, False),
        (3, True),
    ]
    with_gold, without = found[0], found[1]
    assert with_gold.found.covered > without.found.covered
    assert with_gold.rule > without.rule


async def test_what_the_search_knows_by_heart_teaches_no_calibration(tmp_path: Path) -> None:
    given = suite(
        question(1, "Who keeps the keys?", gold=((Gold(place="Keys"),),)),
        question(2, "How many days?", gold=((Gold(place="Leave"),),)),
    )
    async with handbook(config(tmp_path), tmp_path) as services:
        more = tmp_path / "more.md"
        more.write_text("".join(f"## Gate {n}\n\nIt is {'very ' * n}old.\n\n" for n in range(9)))
        await services.jobs.run("book", [more])
        index = services.collections.open("book")
        plain = await examples(services, given)
        longest_first = Fitted(
            format=FORMAT,
            embedder=index.embedder().fingerprint,
            features=("length",),
            ranker=Linear((1.0,)),
        )
        index.ranker.write(longest_first)
        assert await examples(services, given) != plain
        taught = (digest(given.questions[0].text),)
        index.ranker.write(replace(longest_first, taught=taught))
        assert await examples(services, given) == plain


async def test_an_embedder_that_is_not_the_configured_one(tmp_path: Path) -> None:
    """After `reindex --embedder`, answers are judged by what the collection holds."""
    gold = ((Gold(place="Keys"),),)
    asked = suite(*(question(n, f"Who keeps the keys of gate {n}?", gold=gold) for n in range(25)))
    given = config(tmp_path)
    other = ModelOptions(role=Role.EMBEDDER, engine="echo", source="dimensions=32")
    given = given.model_copy(update={"models": {**given.models, "other": other}})
    async with handbook(given, tmp_path) as services:
        cut = Cut("auto", given.ingest.chunk_tokens)
        places = Places(services.collections, services.models, 4)
        await reindex(places, "book", Wanted("other", cut, cut))
        await calibrate(services, asked)
        request = asked.request(asked.questions[0], asked.questions[0].text, BULK)
        async with contextlib.aclosing(answer(services, request)) as events:
            (done,) = [event async for event in events if isinstance(event, DoneEvent)]
    assert not [what for what in done.skipped if what.startswith("calibration")]


async def test_a_collection_is_calibrated(tmp_path: Path) -> None:
    gold = ((Gold(place="Keys"),),)
    asked = [question(n, f"Who keeps the keys of gate {n}?", gold=gold) for n in range(40)]
    told: list[int] = []
    async with handbook(config(tmp_path), tmp_path) as services:
        with pytest.raises(BadRequest, match="too few"):
            await calibrate(services, suite(*asked[:5]))
        made = await calibrate(
            services, suite(*asked), progress=lambda done, total: told.append(done)
        )
        index = services.collections.open("book")
        kept = load(index.folder, index.embedder().fingerprint, None)
    assert kept.calibration == made
    assert told[-1] == 40
    assert made.quality.auc > 0.95
    assert made.quality.answerable == made.quality.unanswerable == 40
