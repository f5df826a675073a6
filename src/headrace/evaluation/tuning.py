"""Retrieval fitted to a user's questions: fusion weights, depth, and a learned ranker.

Everything is judged by cross-validation over questions: what is reported of a question comes from
numbers that were fitted without it and without any question of its fold. A change is kept only if
the whole interval of its gain lies above zero.
"""

from __future__ import annotations

import asyncio
import hashlib
import itertools
from collections.abc import Callable, Sequence
from datetime import UTC, datetime
from typing import NamedTuple

import numpy as np
import numpy.typing as npt
from msgspec.structs import replace

from headrace.config.answering import RetrievalOptions
from headrace.errors import BadRequest
from headrace.evaluation.compare import interval
from headrace.evaluation.fitting import KINDS, Example, fit_linear, held_out
from headrace.evaluation.format import Question, Suite
from headrace.evaluation.gold import gold_of
from headrace.pipeline.services import Services
from headrace.retrieval.base import Scored
from headrace.retrieval.embedded import EmbeddedIndex
from headrace.retrieval.ensemble import Linear
from headrace.retrieval.features import NAMES, feature_rows
from headrace.retrieval.order import candidates, fused
from headrace.retrieval.ranker import FORMAT, Fitted
from headrace.retrieval.search import search
from headrace.retrieval.snapshot import CollectionSnapshot
from headrace.types import BULK, Filter

FOLDS = 5
LEAST_QUESTIONS = 50
STEP = 32
"""Questions embedded at once."""

DENSE_WEIGHTS = (0.5, 0.6, 0.7, 0.8, 0.9)
DOCUMENT_WEIGHTS = (0.0, 0.1, 0.15, 0.2, 0.3)
DEPTHS = (150, 200)
CUTOFFS = (1, 5, 10, 50, 100)
MEASURES = (*(f"R@{k}" for k in CUTOFFS), "nDCG@10", "RR@10")

Values = npt.NDArray[np.float64]
"""float64 [questions, len(MEASURES)]."""


class Asked(NamedTuple):
    """One question with all that fitting needs: both lists, which needs each chunk satisfies, the
    candidates of the configured fusion with their features, and a reranker's scores by chunk id."""

    question: Question
    dense: list[Scored]
    lexical: list[Scored]
    needs: dict[int, frozenset[int]]
    ids: list[int]
    rows: npt.NDArray[np.float32]
    reranked: dict[int, float]

    def example(self) -> Example:
        return Example(self.rows, np.array([bool(self.needs.get(i)) for i in self.ids], np.bool_))


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


def fold_of(question: Question) -> int:
    """Equal texts share a fold, so that no question is learned from its twin."""
    text = "".join(question.text.split())
    return int.from_bytes(hashlib.blake2b(text.encode(), digest_size=8).digest()) % FOLDS


# Collecting --------------------------------------------------------------------------------------


async def collect(
    services: Services, suite: Suite, progress: Callable[[int, int], None] | None = None
) -> tuple[list[Asked], str]:
    """Every question of the suite that has gold passages, searched, in the bulk lane; and the
    fingerprint of the collection's embedder. Raises `BadRequest` for too few questions."""
    questions = [question for question in suite.questions if question.gold]
    if len(questions) < LEAST_QUESTIONS:
        raise BadRequest(
            f"{len(questions)} questions of the suite name their gold passages; fitting to fewer "
            f"than {LEAST_QUESTIONS} would be fitting to chance"
        )
    options = services.config.collection(suite.collection)
    retrieval = options.retrieval or services.config.retrieval
    embedder = options.embedder or services.config.defaults.embedder
    index = await asyncio.to_thread(services.collections.open, suite.collection)
    fingerprint = (await services.models.info(embedder)).fingerprint
    where = Filter(access=suite.access)
    asked: list[Asked] = []
    for start in range(0, len(questions), STEP):
        some = questions[start : start + STEP]
        texts = [question.text for question in some]
        vectors = await services.models.embed(embedder, texts, "query", call=BULK)
        snapshot = await asyncio.to_thread(index.snapshot)
        for question, vector in zip(some, vectors, strict=True):
            reranked: dict[int, float] = {}
            if options.reranker:
                result = await search(
                    index,
                    services.models,
                    embedder,
                    question.text,
                    options=retrieval.model_copy(update={"ranker": "off"}),
                    where=where,
                    k=retrieval.rerank_depth,
                    reranker=options.reranker,
                    call=BULK,
                )
                reranked = {
                    h.chunk_id: h.scores["rerank"] for h in result.hits if "rerank" in h.scores
                }
            asked.append(
                await asyncio.to_thread(
                    _asked, index, snapshot, question, vector, retrieval, where, reranked
                )
            )
            if progress:
                progress(len(asked), len(questions))
    return asked, fingerprint


def _asked(
    index: EmbeddedIndex,
    snapshot: CollectionSnapshot,
    question: Question,
    vector: npt.NDArray[np.float32],
    options: RetrievalOptions,
    where: Filter,
    reranked: dict[int, float],
) -> Asked:
    dense = snapshot.search_dense(vector, max(DEPTHS), where)
    lexical = snapshot.search_lexical(question.text, max(DEPTHS), where)
    depth = options.depth
    found = fused(snapshot, dense[:depth], lexical[:depth], question.text, options)
    pool = candidates(index, snapshot, found, lexical[:depth])
    ids = dict.fromkeys(one.chunk_id for one in (*dense, *lexical))
    hits = index.get({chunk_id: {"stage": 0.0} for chunk_id in ids}, where)
    needs = dict(zip((hit.chunk_id for hit in hits), gold_of(question, hits), strict=True))
    rows = feature_rows(question.text, vector, pool)
    return Asked(question, dense, lexical, needs, pool.ids.tolist(), rows, reranked)


# Judging -----------------------------------------------------------------------------------------


def judged(asked: Sequence[Asked], lists: Sequence[Sequence[int]]) -> Values:
    """The measures of one list of chunk ids for each question."""
    nothing: frozenset[int] = frozenset()
    return np.array(
        [
            measures([one.needs.get(i, nothing) for i in listed], len(one.question.gold))
            for one, listed in zip(asked, lists, strict=True)
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


def joined(snapshot: CollectionSnapshot, one: Asked, options: RetrievalOptions) -> list[Scored]:
    """A question's lists, cut at the options' depth and fused as they say."""
    near, by_words = one.dense[: options.depth], one.lexical[: options.depth]
    return fused(snapshot, near, by_words, one.question.text, options)


def fused_lists(
    snapshot: CollectionSnapshot, asked: Sequence[Asked], options: RetrievalOptions
) -> list[list[int]]:
    return [[hit.chunk_id for hit in joined(snapshot, one, options)] for one in asked]


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
    asked: Sequence[Asked],
    folds: Sequence[int],
    base: RetrievalOptions,
) -> tuple[Values, Weights]:
    """The measures with the weights that are best on the other folds, and the weights that are best
    on all questions."""
    grid = [Weights(*one) for one in itertools.product(DENSE_WEIGHTS, DOCUMENT_WEIGHTS, DEPTHS)]
    found = [judged(asked, fused_lists(snapshot, asked, one.options(base))) for one in grid]
    gains = np.array([objective(values) for values in found])  # [grid, questions]
    of_fold = np.asarray(folds)
    out = np.empty_like(found[0])
    for fold in set(folds):
        best = int(gains[:, of_fold != fold].mean(axis=1).argmax())
        out[of_fold == fold] = found[best][of_fold == fold]
    return out, grid[int(gains.mean(axis=1).argmax())]


# Choosing ----------------------------------------------------------------------------------------


def tune(
    index: EmbeddedIndex,
    asked: Sequence[Asked],
    base: RetrievalOptions,
    fingerprint: str,
    reranker: str | None = None,
) -> Tuned:
    """Fit everything, judge it on held-out folds, and keep what pays. Blocks for some seconds per
    hundred questions.

    1. Weights and depth. 2. A weighted sum, and trees, over the candidates' features: trees are
    chosen only where they beat the sum beyond chance. 3. A ranker is chosen over weights if its
    gain is larger. 4. With a reranker, the same once more over its hits, with its score."""
    folds = [fold_of(one.question) for one in asked]
    snapshot = index.snapshot()
    before = judged(asked, fused_lists(snapshot, asked, base))
    rows = [_row("configured", before, before, folds)]
    weighed, weights = tune_weights(snapshot, asked, folds, base)
    rows.append(_row("weights", weighed, before, folds))
    examples = [one.example() for one in asked]
    values = {}
    for kind, fit in KINDS.items():
        scores = held_out(fit, examples, folds)
        lists = [_ordered(one.ids, mine) for one, mine in zip(asked, scores, strict=True)]
        values[kind] = judged(asked, lists)
        rows.append(_row(kind, values[kind], before, folds))
    kind = _better("linear", "trees", values)
    fitted = Fitted(
        format=FORMAT,
        embedder=fingerprint,
        made=datetime.now(UTC).isoformat(timespec="seconds"),
        questions=len(asked),
    )
    by_name = {row.name: row for row in rows}
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
        fitted = replace(fitted, features=NAMES, ranker=KINDS[kind](examples))
    if chosen != "configured":
        fitted = replace(fitted, measured=dict(zip(MEASURES, by_name[chosen].means, strict=True)))
    if reranker and any(one.reranked for one in asked):
        again, learned = _tune_reranked(asked, folds)
        rows += again
        if learned is not None and chosen in KINDS:
            fitted = replace(fitted, reranker=reranker, reranked=learned)
    return Tuned(rows, chosen, None if chosen == "configured" else fitted)


def _tune_reranked(asked: Sequence[Asked], folds: Sequence[int]) -> tuple[list[Row], Linear | None]:
    """The reranker's order against a weighted sum of its score and the features, over the hits
    that it scored; the sum if it pays."""
    places = [[i for i, id_ in enumerate(one.ids) if id_ in one.reranked] for one in asked]
    ids = [[one.ids[i] for i in mine] for one, mine in zip(asked, places, strict=True)]
    scores = [
        np.asarray([one.reranked[id_] for id_ in mine], np.float32)
        for one, mine in zip(asked, ids, strict=True)
    ]
    rests = [[i for i in one.ids if i not in one.reranked] for one in asked]

    def lists(by: Sequence[npt.NDArray[np.float32]]) -> list[list[int]]:
        return [_ordered(a, b) + c for a, b, c in zip(ids, by, rests, strict=True)]

    examples = [
        Example(np.column_stack([one.rows[mine], given]), one.example().gold[mine])
        for one, mine, given in zip(asked, places, scores, strict=True)
    ]
    before = judged(asked, lists(scores))
    after = judged(asked, lists(held_out(fit_linear, examples, folds)))
    rows = [_row("reranker", before, before, folds), _row("reranker+", after, before, folds)]
    return rows, fit_linear(examples) if rows[1].low > 0 else None


def _better(simple: str, other: str, values: dict[str, Values]) -> str:
    low, _ = interval(objective(values[other]) - objective(values[simple]))
    return other if low > 0 else simple
