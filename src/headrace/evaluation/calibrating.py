"""Fitting a collection's judge of support to questions with and without an answer.

Where a question's gold passages are known, it gives both: once with them among the passages, as it
is found, and once with them taken out, as if the documents did not hold its answer. Questions that
the suite itself says have no answer are added. All rows of a question are in one fold of the
cross-validation, so that nothing is known of a question that is judged.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Mapping, Sequence
from datetime import UTC, datetime
from typing import NamedTuple

import msgspec
import numpy as np
import numpy.typing as npt

from headrace.config.model_options import ModelOptions
from headrace.errors import BadRequest
from headrace.evaluation.format import Question, Suite
from headrace.evaluation.gold import gold_of
from headrace.evaluation.logistic import Array, Fit, area_under_curve, fit, threshold_for
from headrace.evaluation.taught import taught
from headrace.pipeline.calibration import VERSION, Calibration, Quality, probability, save
from headrace.pipeline.evidence import passages
from headrace.pipeline.plan import Plan, cycle_call, make_plan
from headrace.pipeline.relevance import by_rule
from headrace.pipeline.services import Services
from headrace.pipeline.support import FIRST, NAMES, Measures, measures
from headrace.retrieval.collections import held_embedder
from headrace.retrieval.embedded import EmbeddedIndex
from headrace.retrieval.search import search_many
from headrace.types import BULK, Hit

FOLDS = 5
FEWEST = 20
"""Questions with an answer, and as many without: fewer say nothing of a share of a twentieth."""

SPARE = 40
"""Passages fetched beyond those that are looked at, to take the place of the gold ones."""

AT_ONCE = 16
REFUSED = 0.05
"""Share of questions with an answer that may be refused."""

NOTHING = -60.0
"""Log-odds of no support."""

_MAY_BE_NEGATIVE = np.array([name == "foreign" for name in NAMES])


class Example(NamedTuple):
    """A search result with (`answerable`) or without the answer, of question number `question`;
    `rule` is the support that the rule for any collection sees."""

    question: int
    answerable: bool
    found: Measures
    rule: float


async def examples(
    services: Services, suite: Suite, progress: Callable[[int, int], None] | None = None
) -> list[Example]:
    """What is found for the suite's questions; empty ones, and those of which it does not say
    whether they have an answer, are left out. Raises what the search raises."""
    index, held = await asyncio.to_thread(services.collections.opened, suite.collection)
    learned = await asyncio.to_thread(taught, index, suite.questions)
    update = {"ranker": "off"} if learned.known else {}  # it would find what it knows by heart
    made: list[Example] = []
    numbered = usable(suite)
    for start in range(0, len(numbered), AT_ONCE):
        some = numbered[start : start + AT_ONCE]
        plans = [
            make_plan(services.config, suite.request(question, question.text, BULK))
            for _, question in some
        ]
        lists = await _found(services, suite, index, plans, update)
        name = await held_embedder(services.models, held, plans[0].embedder)
        embedder = services.config.models[name]
        made += await asyncio.to_thread(_examples, index, some, plans, lists, embedder)
        if progress is not None:
            progress(some[-1][0] + 1, len(suite.questions))
    return made


def usable(suite: Suite) -> list[tuple[int, Question]]:
    """The questions that say something, with their places in the suite."""
    return [
        (number, question)
        for number, question in enumerate(suite.questions)
        if question.has_answer is not None and any(map(str.isalnum, question.text))
    ]


async def _found(
    services: Services,
    suite: Suite,
    index: EmbeddedIndex,
    plans: Sequence[Plan],
    update: Mapping[str, str],
) -> list[tuple[Hit, ...]]:
    first = plans[0]  # they differ in the question alone
    results = await search_many(
        index,
        services.models,
        first.embedder,
        [plan.lookup for plan in plans],
        options=first.retrieval.model_copy(update=update),
        where=suite.where,
        k=FIRST + SPARE,
        reranker=first.reranker,
        call=cycle_call(BULK),
        paces=services.paces,
    )
    return [result.hits for result in results]


def _examples(
    index: EmbeddedIndex,
    some: Sequence[tuple[int, Question]],
    plans: Sequence[Plan],
    lists: Sequence[tuple[Hit, ...]],
    embedder: ModelOptions,
) -> list[Example]:
    """Blocks."""
    snapshot = index.snapshot()
    made: list[Example] = []

    def note(number: int, answerable: bool, lookup: str, hits: Sequence[Hit]) -> None:
        found = measures(lookup, passages(hits), snapshot)
        made.append(Example(number, answerable, found, by_rule(found, embedder)))

    for (number, question), plan, hits in zip(some, plans, lists, strict=True):
        answers = bool(question.has_answer)
        note(number, answers, plan.lookup, hits)
        if answers and question.gold:
            needs = gold_of(question, hits)
            left = [hit for hit, gold in zip(hits, needs, strict=True) if not gold]
            note(number, False, plan.lookup, left)
    return made


class Judge(NamedTuple):
    """Log-odds of support. `within_rule`: what the rule refuses has none."""

    fit: Fit
    within_rule: bool

    def scores(self, data: Data) -> Array:
        found = self.fit.scores(data.rows)
        return np.where(data.rule >= 1, found, NOTHING) if self.within_rule else found


class Data(NamedTuple):
    """Examples side by side, float64 and int64 [examples]; `rows` [examples, measures]."""

    rows: Array
    answerable: npt.NDArray[np.bool_]
    rule: Array
    fold: npt.NDArray[np.int64]

    def only(self, which: npt.NDArray[np.bool_]) -> Data:
        return Data(self.rows[which], self.answerable[which], self.rule[which], self.fold[which])


def arrays(given: Sequence[Example]) -> Data:
    """The folds are drawn by question, the same in every run."""
    numbers = np.array([example.question for example in given])
    shuffled = np.random.default_rng(0).permutation(int(numbers.max()) + 1)
    return Data(
        np.array([msgspec.structs.astuple(example.found) for example in given], np.float64),
        np.array([example.answerable for example in given]),
        np.array([example.rule for example in given], np.float64),
        (shuffled % FOLDS)[numbers],
    )


def judge_of(data: Data, may_be_refused: float) -> Judge:
    """Fitted to all of the data. The rule keeps out what is on another subject altogether, which
    weights fitted to neighbouring passages know nothing of; it is left aside only where it alone
    would refuse half of what may be refused."""
    refused = float((data.rule[data.answerable] < 1).mean())
    made = fit(data.rows, data.answerable.astype(np.float64), _MAY_BE_NEGATIVE)
    return Judge(made, within_rule=refused <= may_be_refused / 2)


def out_of_fold(data: Data, may_be_refused: float) -> Array:
    """Each example's log-odds by a judge that was not fitted to its question."""
    scores = np.zeros(len(data.rows))
    for number in np.unique(data.fold):
        here = data.fold == number
        scores[here] = judge_of(data.only(~here), may_be_refused).scores(data.only(here))
    return scores


def fitted(data: Data, may_be_refused: float = REFUSED) -> tuple[Judge, float]:
    """The judge from all examples, and its threshold in log-odds: that of the cross-validation,
    since the scores of what it was fitted to are too good."""
    scores = out_of_fold(data, may_be_refused)[data.answerable]
    return judge_of(data, may_be_refused), threshold_for(scores, may_be_refused)


def check_enough(suite: Suite) -> None:
    """Raises `BadRequest` if the questions make too few examples of either kind."""
    questions = [question for _, question in usable(suite)]
    with_answer = sum(bool(question.has_answer) for question in questions)
    without = sum(not question.has_answer or bool(question.gold) for question in questions)
    if min(with_answer, without) < FEWEST:
        raise BadRequest(
            f"{with_answer} questions with an answer and {without} without are too few: at least "
            f"{FEWEST} of each are needed (a question whose `gold` is given counts for both)",
            field="questions",
        )


def quality(data: Data, may_be_refused: float = REFUSED) -> Quality:
    """By cross-validation within cross-validation: neither the weights nor the threshold that an
    example is judged by know its question."""
    scores, refused = np.zeros(len(data.rows)), np.zeros(len(data.rows), bool)
    for number in np.unique(data.fold):
        here = data.fold == number
        judge, threshold = fitted(data.only(~here), may_be_refused)
        scores[here] = judge.scores(data.only(here))
        refused[here] = scores[here] < threshold
    yes = data.answerable
    return Quality(
        answerable=int(yes.sum()),
        unanswerable=int((~yes).sum()),
        auc=area_under_curve(scores[yes], scores[~yes]),
        auc_rule=area_under_curve(data.rule[yes], data.rule[~yes]),
        refused_answerable=float(refused[yes].mean()),
        refused_unanswerable=float(refused[~yes].mean()),
    )


async def calibrate(
    services: Services,
    suite: Suite,
    *,
    may_be_refused: float = REFUSED,
    progress: Callable[[int, int], None] | None = None,
) -> Calibration:
    """Fit a collection's judge to a suite, and keep it in the collection's folder. Raises
    `BadRequest` for too few questions, `StorageError`, and what the search raises."""
    check_enough(suite)
    index, held = await asyncio.to_thread(services.collections.opened, suite.collection)
    data = arrays(await examples(services, suite, progress))
    judge, threshold = await asyncio.to_thread(fitted, data, may_be_refused)
    weights = zip(NAMES, judge.fit.weights.tolist(), strict=True)
    made = Calibration(
        version=VERSION,
        embedder=held.fingerprint,
        reranker=services.config.collection(suite.collection).reranker,
        weights={name: weight for name, weight in weights if weight},
        bias=judge.fit.bias,
        within_rule=judge.within_rule,
        threshold=probability(threshold),
        quality=await asyncio.to_thread(quality, data, may_be_refused),
        suite=suite.name,
        made=datetime.now(UTC).isoformat(timespec="seconds"),
    )
    await asyncio.to_thread(save, index.folder, made)
    return made
