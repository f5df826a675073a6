"""Which law articles are found, stage by stage: 1,000 lay questions over 58,594 articles.

Stages: dense and lexical search; both fused with the default options; fusion weights, and rankers
over the stages' scores, fitted to the questions by `headrace eval tune-retrieval`. What is fitted
is measured by five-fold cross-validation over questions: no question is judged by numbers that it,
or a question of its fold, took part in. `HEADRACE_RERANKER` names a configured reranker that looks
at the first hits as well; without one, its targets are asked of the learned ranker.
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
from headrace.evaluation.fitting import KINDS
from headrace.evaluation.format import Gold, Suite
from headrace.evaluation.format import Question as Asked
from headrace.pipeline.services import Services
from headrace.retrieval.embedded import EmbeddedIndex
from headrace.retrieval.features import NAMES as FEATURES
from headrace.retrieval.order import ranked
from headrace.retrieval.ranker import FORMAT, Fitted, Ranker
from headrace.types import ALL_ACCESS

NAMES = {
    "configured": "fused",
    "weights": "fused_tuned",
    "linear": "linear",
    "trees": "trees",
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
    found, fingerprint = await tuning.collect(services, _suite(asked))
    options = services.config.retrieval
    began = time.perf_counter()
    tuned = await asyncio.to_thread(tuning.tune, index, found, options, fingerprint, reranker)
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
    _cost(index, found, result)
    result.notes += [
        f"{len(found)} questions; weights, rankers and what follows a reranker by five-fold "
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
            Asked(
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
    for measure_, target in TARGETS.items():
        key = measure_.replace("@", "").lower()
        result.add(f"fused_{key}", metrics[f"fused_{key}"], ">=", target)
        best = tuned.chosen if tuned.chosen in ("linear", "trees") else "linear"
        result.add(f"learned_{key}", metrics[f"{best}_{key}"], ">=", target)
    last = "reranked" if "reranked_r1" in metrics else "trees"
    for measure_, target in RANKED_TARGETS.items():
        key = measure_.replace("@", "").lower()
        result.add(f"best_{key}", metrics[f"{last}_{key}"], ">=", target)


def _cost(index: EmbeddedIndex, found: Sequence[tuning.Asked], result: Result) -> None:
    """CPU time of ranking one query's candidates, features and texts included."""
    snapshot, options = index.snapshot(), load().retrieval
    examples = [one.example() for one in found[:300]]
    vector = snapshot.dense.vectors(np.array(found[0].ids[:1]))[0]
    for kind, fit in KINDS.items():
        fitted = Fitted(format=FORMAT, embedder="", features=FEATURES, ranker=fit(examples))
        ranker = Ranker(fitted)
        spent, scoring = [], []
        for one in found[:100]:
            joined = tuning.joined(snapshot, one, options)
            start = time.process_time()
            ranked(index, snapshot, ranker, one.question.text, vector, joined, one.lexical)
            spent.append(time.process_time() - start)
            start = time.process_time()
            ranker.scores(one.rows)
            scoring.append(time.process_time() - start)
        result.add(f"{kind}_rank_cpu_ms", 1e3 * statistics.median(spent))
        result.add(f"{kind}_scores_cpu_ms", 1e3 * statistics.median(scoring), "<=", 2.0)
