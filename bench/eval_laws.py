"""Which law articles are found, stage by stage: 1,000 lay questions over 58,594 articles.

Stages: dense and lexical search; both fused with the default options; fusion weights, and rankers
over the stages' scores, fitted to the questions by `headrace eval tune-retrieval`, with and without
remembering past questions (`+past`). What is fitted is measured by five-fold cross-validation over
questions: no question is judged by numbers that it, or a question of its fold, took part in. That
is what users get who ask again what was asked before. *Unseen passages* is stricter:
all questions that share a gold passage are in one fold, so what is right for one of them was never
right before. `HEADRACE_RERANKER` names a configured reranker that looks at the first hits as well;
without one, its targets are asked of the learned ranker.
"""

from __future__ import annotations

import asyncio
import os
import statistics
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from bench.harness import Result, Table
from bench.law_corpus import Question, articles, fill, questions, vectors
from headrace.app import application
from headrace.config.load import load
from headrace.evaluation import tuning
from headrace.evaluation.collecting import FOLDS, Asked, Found, collect
from headrace.evaluation.format import Gold, Suite
from headrace.evaluation.format import Question as SuiteQuestion
from headrace.pipeline.services import Services
from headrace.retrieval.embedded import EmbeddedIndex
from headrace.retrieval.order import ranked
from headrace.retrieval.ranker import Ranker
from headrace.types import ALL_ACCESS, Filter

NAMES = {
    "configured": "fused",
    "weights": "fused_tuned",
    "linear": "linear",
    "trees": "trees",
    "linear+past": "linear_past",
    "trees+past": "trees_past",
    "reranker": "reranker",
    "reranker+": "reranked",
}
TARGETS = {"R@10": 0.57, "R@100": 0.79}
RANKED_TARGETS = {"R@1": 0.32, "R@5": 0.51, "R@10": 0.60}


def run(quick: bool) -> Result:
    """Load everything, search, fit, judge; `quick` asks 200 of the 1,000 questions."""
    asked = questions()[:: 5 if quick else 1]
    with tempfile.TemporaryDirectory(prefix="headrace-bench-") as folder:
        return asyncio.run(_measure(Path(folder), asked))


async def _measure(folder: Path, asked: Sequence[Question]) -> Result:
    result = Result()
    config = load().model_copy(update={"data_dir": folder})
    if reranker := os.environ.get("HEADRACE_RERANKER"):
        defaults = config.defaults.model_copy(update={"reranker": reranker})
        config = config.model_copy(update={"defaults": defaults})
    async with application(config) as services:
        embedder = config.defaults.embedder
        index = services.collections.create("laws", embedder, await services.models.info(embedder))
        await asyncio.to_thread(fill, index, articles(), vectors())
        await measure(services, index, asked, result)
    return result


async def measure(
    services: Services, index: EmbeddedIndex, asked: Sequence[Question], result: Result
) -> None:
    """Everything after loading."""
    reranker = services.config.defaults.reranker
    collected, fingerprint = await collect(services, _suite(asked))
    found = [one.found for one in collected]
    options = services.config.retrieval
    began = time.perf_counter()
    tuned = await asyncio.to_thread(tuning.tune, index, collected, options, fingerprint, reranker)
    result.add("tune_s", time.perf_counter() - began)
    by_list = {
        "dense": [[hit.chunk_id for hit in one.dense] for one in found],
        "lexical": [[hit.chunk_id for hit in one.lexical] for one in found],
        "fused_alone": tuning.fused_lists(
            index.snapshot(), found, options.model_copy(update={"document_weight": 0.0})
        ),
    }
    rows: list[tuple[object, ...]] = []
    for name, lists in by_list.items():
        means = tuning.judged(found, lists).mean(axis=0).tolist()
        rows.append((name, *means, "", ""))
        _add(result, name, means)
    for row in tuned.rows:
        name = NAMES[row.name]
        rows.append((name, *row.means, row.gain, f"{row.low:+.4f} to {row.high:+.4f}"))
        _add(result, name, row.means)
    head = ("stage", *tuning.MEASURES, "gain", "95 % interval")
    result.tables.append(Table("Law articles found", head, rows))
    _targets(result, tuned)
    await asyncio.to_thread(_unseen, index, collected, result)
    await asyncio.to_thread(_cost, index, tuned, found, result)
    result.notes += [
        f"{len(collected)} questions; weights, rankers and what follows a reranker by five-fold "
        "cross-validation",
        f"tune-retrieval keeps: {tuned.chosen}; gain: mean of nDCG@10 and R@100 against `fused`",
        f"reranker: {reranker or 'none configured'}",
    ]


def _suite(asked: Sequence[Question]) -> Suite:
    found = articles()
    return Suite(
        name="laws",
        collection="laws",
        access=ALL_ACCESS,
        questions=tuple(
            SuiteQuestion(
                id=str(number),
                text=question.text,
                gold=tuple(
                    (Gold(path=(found[row].law, found[row].name)),) for row in sorted(question.gold)
                ),
            )
            for number, question in enumerate(asked)
        ),
    )


def _add(result: Result, name: str, means: Sequence[float]) -> None:
    for measure_, value in zip(tuning.MEASURES, means, strict=True):
        result.add(f"{name}_{measure_.replace('@', '').lower()}", value)


def _targets(result: Result, tuned: tuning.Tuned) -> None:
    """The fused targets are asked of the default options and of what was fitted without a
    reranker; those with reranking of the best ordering there is, the reranker's if there is one."""
    metrics = result.metrics
    best = NAMES[tuned.chosen if tuned.chosen in tuning.WAYS else "linear"]
    for measure_, target in TARGETS.items():
        key = measure_.replace("@", "").lower()
        result.add(f"fused_{key}", metrics[f"fused_{key}"], ">=", target)
        result.add(f"learned_{key}", metrics[f"{best}_{key}"], ">=", target)
    last = "reranked" if "reranked_r1" in metrics else best
    for measure_, target in RANKED_TARGETS.items():
        key = measure_.replace("@", "").lower()
        result.add(f"best_{key}", metrics[f"{last}_{key}"], ">=", target)


def _unseen(index: EmbeddedIndex, asked: Sequence[Asked], result: Result) -> None:
    """Learned ranking of questions whose gold passages no question of another fold has."""
    found = [one.found for one in asked]
    views = tuning.Views(asked, _apart(found), index.snapshot())
    rows = []
    for name, lists in tuning.held_out(tuning.WAYS, views).items():
        means = tuning.judged(found, lists).mean(axis=0).tolist()
        rows.append((NAMES[name], *means))
        _add(result, f"unseen_{NAMES[name]}", means)
    result.tables.append(Table("Unseen passages", ("stage", *tuning.MEASURES), rows))


def _apart(found: Sequence[Found]) -> list[int]:
    """Folds of about the same size, no two of which share a gold passage."""
    parts: dict[int, set[int]] = {}  # by question: all that are tied to it
    first: dict[int, int] = {}
    for number, one in enumerate(found):
        parts[number] = {number}
        for passage in one.gold:
            other = parts[first.setdefault(passage, number)]
            if other is not parts[number]:
                other |= parts[number]
                for member in other:
                    parts[member] = other
    folds, sizes = [0] * len(found), [0] * FOLDS
    for part in sorted({min(part): part for part in parts.values()}.values(), key=len)[::-1]:
        fold = sizes.index(min(sizes))
        sizes[fold] += len(part)
        for member in part:
            folds[member] = fold
    return folds


def _cost(
    index: EmbeddedIndex, tuned: tuning.Tuned, found: Sequence[Found], result: Result
) -> None:
    """CPU time of ranking one query's candidates by what is kept, features and texts included."""
    if tuned.fitted is None:
        return
    snapshot, options = index.snapshot(), load().retrieval
    ranker = Ranker(tuned.fitted)
    where = Filter(access=ALL_ACCESS)
    spent, scoring = [], []
    for one in found[:100]:
        joined = tuning.joined(snapshot, one, options)
        given = (one.question.text, one.vector, joined, one.lexical, where)
        start = time.process_time()
        seen = ranked(index, snapshot, ranker, *given)
        spent.append(time.process_time() - start)
        rows = np.array(list(seen.rows.values()))
        start = time.process_time()
        ranker.scores(rows)
        scoring.append(time.process_time() - start)
    result.add("rank_cpu_ms", 1e3 * statistics.median(spent))
    result.add("scores_cpu_ms", 1e3 * statistics.median(scoring), "<=", 2.0)
