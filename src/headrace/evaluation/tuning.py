"""Retrieval fitted to a user's questions: fusion weights, depth, and a learned ranker.

Everything is judged by cross-validation over questions: what is reported of a question comes from
numbers that were fitted without it and without any question of its fold. A change is kept only if
the whole interval of its gain lies above zero.
"""

from __future__ import annotations

import itertools
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from typing import NamedTuple

import numpy as np
import numpy.typing as npt
from msgspec.structs import replace

from headrace.config.answering import RetrievalOptions
from headrace.evaluation.collecting import DEPTHS, FOLDS, Asked, Found, fold_of, past_of
from headrace.evaluation.compare import interval
from headrace.evaluation.fitting import Example, Fit, fit_linear, fit_trees
from headrace.retrieval.base import Scored
from headrace.retrieval.embedded import EmbeddedIndex
from headrace.retrieval.ensemble import Ensemble
from headrace.retrieval.features import NAMES, OWN
from headrace.retrieval.order import fused
from headrace.retrieval.past import MAX_PASSAGES, MAX_QUESTIONS, PastQuestions
from headrace.retrieval.ranker import FORMAT, Fitted, digest
from headrace.retrieval.snapshot import CollectionSnapshot

DENSE_WEIGHTS = (0.5, 0.6, 0.7, 0.8, 0.9)
DOCUMENT_WEIGHTS = (0.0, 0.1, 0.15, 0.2, 0.3)
CUTOFFS = (1, 5, 10, 50, 100)
MEASURES = (*(f"R@{k}" for k in CUTOFFS), "nDCG@10", "RR@10")

Values = npt.NDArray[np.float64]
"""float64 [questions, len(MEASURES)]."""


class Row(NamedTuple):
    """One way to order hits: means of `MEASURES` over all questions, the objective by fold, and
    the mean gain in it over the configured way, with its 95 % interval."""

    name: str
    means: tuple[float, ...]
    folds: tuple[float, ...]
    gain: float
    low: float
    high: float


class Tuned(NamedTuple):
    """`fitted` is None if nothing pays."""

    rows: list[Row]
    chosen: str
    fitted: Fitted | None


def measures(needs: Sequence[frozenset[int]], count: int) -> tuple[float, ...]:
    """`MEASURES` of one list of hits, given the needs that each satisfies, of `count` needs. A need
    is met by the first hit that satisfies it (as `headrace eval run` counts)."""
    seen: set[int] = set()
    gains: list[int] = []
    recalls = dict.fromkeys(CUTOFFS, 0.0)
    for rank, one in enumerate(needs[: CUTOFFS[-1]], 1):
        gains.append(len(one - seen))
        seen |= one
        for cutoff in CUTOFFS:
            if rank <= cutoff:
                recalls[cutoff] = len(seen) / count
    discounts = 1 / np.log2(np.arange(2, 12))
    ideal = discounts[: min(count, 10)].sum()
    ndcg = sum(min(g, 1) * d for g, d in zip(gains, discounts, strict=False)) / ideal
    first = next((rank for rank, gain in enumerate(gains[:10], 1) if gain), 0)
    return (*recalls.values(), float(ndcg), 1 / first if first else 0.0)


def objective(values: Values) -> npt.NDArray[np.float64]:
    """float64 [questions]: the mean of nDCG@10 (what the answer is written from) and R@100 (what a
    reranker can still find)."""
    found: npt.NDArray[np.float64] = (
        values[:, MEASURES.index("nDCG@10")] + values[:, MEASURES.index("R@100")]
    ) / 2
    return found


# Judging -----------------------------------------------------------------------------------------


def judged(found: Sequence[Found], lists: Sequence[Sequence[int]]) -> Values:
    """The measures of one list of chunk ids for each question."""
    nothing: frozenset[int] = frozenset()
    return np.array(
        [
            measures([one.needs.get(i, nothing) for i in listed], len(one.question.gold))
            for one, listed in zip(found, lists, strict=True)
        ]
    )


def _ordered(ids: Sequence[int], scores: npt.NDArray[np.float32]) -> list[int]:
    return [ids[i] for i in np.argsort(-scores, kind="stable")]


def _row(name: str, values: Values, before: Values, folds: Sequence[int]) -> Row:
    mine, gains = objective(values), objective(values) - objective(before)
    by_fold = [float(mine[np.asarray(folds) == fold].mean()) for fold in sorted(set(folds))]
    low, high = interval(gains)
    means = tuple(values.mean(axis=0).tolist())
    return Row(name, means, tuple(by_fold), float(gains.mean()), low, high)


def joined(snapshot: CollectionSnapshot, one: Found, options: RetrievalOptions) -> list[Scored]:
    """A question's lists, cut at the options' depth and fused as they say."""
    near, by_words = one.dense[: options.depth], one.lexical[: options.depth]
    return fused(snapshot, near, by_words, one.question.text, options)


def fused_lists(
    snapshot: CollectionSnapshot, found: Sequence[Found], options: RetrievalOptions
) -> list[list[int]]:
    return [[hit.chunk_id for hit in joined(snapshot, one, options)] for one in found]


class Weights(NamedTuple):
    """One choice of what fusion can be told."""

    dense: float
    document: float
    depth: int

    def options(self, base: RetrievalOptions) -> RetrievalOptions:
        update = {
            "dense_weight": self.dense,
            "document_weight": self.document,
            "depth": self.depth,
        }
        return base.model_copy(update=update)


def tune_weights(
    snapshot: CollectionSnapshot,
    found: Sequence[Found],
    folds: Sequence[int],
    base: RetrievalOptions,
) -> tuple[Values, Weights]:
    """The measures with the weights that are best on the other folds, and the weights that are best
    on all questions."""
    grid = [Weights(*one) for one in itertools.product(DENSE_WEIGHTS, DOCUMENT_WEIGHTS, DEPTHS)]
    values = [judged(found, fused_lists(snapshot, found, one.options(base))) for one in grid]
    gains = np.array([objective(each) for each in values])  # [grid, questions]
    of_fold = np.asarray(folds)
    out = np.empty_like(values[0])
    for fold in set(folds):
        best = int(gains[:, of_fold != fold].mean(axis=1).argmax())
        out[of_fold == fold] = values[best][of_fold == fold]
    return out, grid[int(gains.mean(axis=1).argmax())]


# Fitting -----------------------------------------------------------------------------------------


class Way(NamedTuple):
    """One kind of ranker. With `past`, it remembers the questions it is fitted to, and looks at
    what they bring in; with `reranked`, it orders what a reranker has scored, by that too."""

    fit: Fit
    past: bool = False
    reranked: bool = False

    @property
    def features(self) -> tuple[str, ...]:
        return NAMES if self.past else OWN


WAYS = {
    "linear": Way(fit_linear),
    "trees": Way(fit_trees),
    "linear+past": Way(fit_linear, past=True),
    "trees+past": Way(fit_trees, past=True),
}
"""The simple ones first: a later one is taken only where it beats the earlier ones by more than
chance."""


class View(NamedTuple):
    """A question's candidates as a ranker sees them that does not know it: which of them are there,
    bool [n], and all their features."""

    there: npt.NDArray[np.bool_]
    rows: npt.NDArray[np.float32]


class Views:
    """Questions as rankers see them that were fitted without some. What past questions say of one
    is computed as if it, and the others of its fold, had never been asked; of one that a ranker is
    fitted to, as if the others of an inner fold had not. Without the latter a ranker would learn
    that the right passage is one that was asked for once less than the others."""

    def __init__(
        self, asked: Sequence[Asked], folds: Sequence[int], snapshot: CollectionSnapshot
    ) -> None:
        self.asked = asked
        self.folds = np.asarray(folds)
        self._inner = np.array([fold_of(one.found.question, FOLDS, b"inner") for one in asked])
        self._past = past_of([one.found for one in asked], snapshot)

    def without(self, fold: int | None) -> list[View]:
        """Every question, seen without the questions of a fold."""
        kept = self.folds != fold
        return [self._view(i, kept) for i in range(len(self.asked))]

    def _view(self, number: int, kept: npt.NDArray[np.bool_]) -> View:
        one = self.asked[number]
        known = kept & (self._inner != self._inner[number]) if kept[number] else kept
        near = self._past.nearness(one.found.vector, known)
        there = np.isin(one.ids, self._past.nearest(near))
        there[: one.pooled] = True
        rows = one.rows.copy()
        rows[:, len(OWN) :] = self._past.rows(near, one.ids, one.documents, known)
        return View(there, rows)


class Chosen(NamedTuple):
    """What a way looks at of one question: ids, and the example; `rest` comes after it."""

    ids: list[int]
    example: Example
    rest: list[int]


def _seen(way: Way, one: Asked, view: View) -> Chosen:
    mine = view.there.copy()
    if not way.past:
        mine[one.pooled :] = False
    rows, rest = view.rows[:, : len(way.features)], []
    if way.reranked:
        scored = np.array([i in one.found.reranked for i in one.ids.tolist()], np.bool_)
        rest, mine = one.ids[mine & ~scored].tolist(), mine & scored
        given = [one.found.reranked.get(i, 0.0) for i in one.ids.tolist()]
        rows = np.column_stack([rows, np.asarray(given, np.float32)])
    return Chosen(one.ids[mine].tolist(), Example(rows[mine], one.gold()[mine]), rest)


def held_out(ways: Mapping[str, Way], views: Views) -> dict[str, list[list[int]]]:
    """For each way the ids of each question's candidates, ordered by a ranker that was fitted
    without its fold. Where there is no gold candidate to learn from, they keep their order."""
    lists: dict[str, list[list[int]]] = {name: [[] for _ in views.asked] for name in ways}
    for fold in sorted(set(views.folds.tolist())):
        seen, mine = views.without(fold), views.folds == fold
        for name, way in ways.items():
            chosen = [_seen(way, *each) for each in zip(views.asked, seen, strict=True)]
            known = [each.example for each, held in zip(chosen, mine, strict=True) if not held]
            ranker = None
            if any(example.gold.any() for example in known):
                ranker = way.fit(known).compiled()
            for i in np.flatnonzero(mine).tolist():
                ids, example, rest = chosen[i]
                ordered = ids if ranker is None else _ordered(ids, ranker(example.rows))
                lists[name][i] = ordered + rest
    return lists


def _fit(way: Way, views: Views) -> Ensemble:
    """To all questions."""
    seen = zip(views.asked, views.without(None), strict=True)
    return way.fit([_seen(way, *each).example for each in seen])


# Choosing ----------------------------------------------------------------------------------------


def tune(
    index: EmbeddedIndex,
    asked: Sequence[Asked],
    base: RetrievalOptions,
    fingerprint: str,
    reranker: str | None = None,
    folds: Sequence[int] | None = None,
) -> Tuned:
    """Fit everything, judge it on held-out folds (by default `fold_of`), and keep what pays. Blocks
    for some seconds per hundred questions.

    1. Weights and depth. 2. The `WAYS` to rank. 3. A ranker is chosen over weights if its gain is
    larger. 4. With a reranker, a weighted sum once more over its hits, with its score."""
    if folds is None:
        folds = [fold_of(one.found.question) for one in asked]
    snapshot = index.snapshot()
    found = [one.found for one in asked]
    before = judged(found, fused_lists(snapshot, found, base))
    rows = [_row("configured", before, before, folds)]
    weighed, weights = tune_weights(snapshot, found, folds, base)
    rows.append(_row("weights", weighed, before, folds))
    views = Views(asked, folds, snapshot)
    values = {name: judged(found, lists) for name, lists in held_out(WAYS, views).items()}
    rows += [_row(name, each, before, folds) for name, each in values.items()]
    fitted = Fitted(
        format=FORMAT,
        embedder=fingerprint,
        made=datetime.now(UTC).isoformat(timespec="seconds"),
        questions=len(asked),
        taught=tuple(sorted({digest(one.question.text) for one in found})),
    )
    by_name = {row.name: row for row in rows}
    kind = _best(values)
    chosen = kind if by_name[kind].gain > by_name["weights"].gain else "weights"
    if by_name[chosen].low <= 0:
        chosen = "configured"
    elif chosen == "weights":
        fitted = replace(
            fitted,
            dense_weight=weights.dense,
            document_weight=weights.document,
            depth=weights.depth,
        )
    else:
        way = WAYS[chosen]
        past = _remembered(index, found) if way.past else None
        fitted = replace(fitted, features=way.features, ranker=_fit(way, views), past=past)
    if chosen != "configured":
        fitted = replace(fitted, measured=dict(zip(MEASURES, by_name[chosen].means, strict=True)))
    if reranker and any(one.reranked for one in found):
        way = Way(fit_linear, WAYS.get(chosen, WAYS["linear"]).past, reranked=True)
        again = _reranked_rows(way, views, folds)
        rows += again
        if again[-1].low > 0 and chosen in WAYS:
            fitted = replace(fitted, reranker=reranker, reranked=_fit(way, views))
    return Tuned(rows, chosen, None if chosen == "configured" else fitted)


def _reranked_rows(way: Way, views: Views, folds: Sequence[int]) -> list[Row]:
    """The reranker's order, and the way's in its place."""
    found = [one.found for one in views.asked]
    lists = []
    for one in views.asked:
        pool = one.ids[: one.pooled].tolist()
        scored = [i for i in pool if i in one.found.reranked]
        given = np.asarray([one.found.reranked[i] for i in scored], np.float32)
        lists.append(_ordered(scored, given) + [i for i in pool if i not in one.found.reranked])
    before = judged(found, lists)
    after = judged(found, held_out({"reranker+": way}, views)["reranker+"])
    return [_row("reranker", before, before, folds), _row("reranker+", after, before, folds)]


def _remembered(index: EmbeddedIndex, found: Sequence[Found]) -> PastQuestions:
    """The last `MAX_QUESTIONS` of a suite: logs grow at their end."""
    found = found[-MAX_QUESTIONS:]
    keys = index.keys(list(dict.fromkeys(chunk for one in found for chunk in one.gold)))
    vectors = np.stack([one.vector for one in found])
    return PastQuestions(
        dimensions=vectors.shape[1],
        vectors=vectors.astype("<f2").tobytes(),
        passages=tuple(
            tuple(keys[i] for i in one.gold[:MAX_PASSAGES] if i in keys) for one in found
        ),
    )


def _best(values: Mapping[str, Values]) -> str:
    best = next(iter(values))
    for name in values:
        low, _ = interval(objective(values[name]) - objective(values[best]))
        if low > 0:
            best = name
    return best
