"""Quality, CPU time and latency of search over 58,594 law articles.

The articles are stored through the real index with their given vectors; the questions are embedded
by the default embedder in its worker process. Recall is the share of a question's gold articles
among the first k hits, averaged over the questions.
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

from bench.harness import Result, Table, percentile, tree_memory
from bench.law_corpus import Question, articles, fill, questions, vectors
from headrace.app import application
from headrace.config.load import load
from headrace.engines.base import Vectors
from headrace.pipeline.services import Services
from headrace.retrieval.base import Ranking, Scored
from headrace.retrieval.embedded import EmbeddedIndex
from headrace.retrieval.fuse import convex, reciprocal_ranks
from headrace.retrieval.search import search
from headrace.types import Filter

DEPTHS = (1, 5, 10, 50, 100)
WHERE = Filter()
"""What a caller without a key may read: the label filter is part of what is measured."""

Lists = dict[str, list[list[Scored]]]


def run(quick: bool) -> Result:
    """Load everything, then measure; `quick` asks 200 of the 1,000 questions."""
    asked = questions()[:: 5 if quick else 1]
    with tempfile.TemporaryDirectory(prefix="headrace-bench-") as folder:
        return asyncio.run(_measure(Path(folder), asked, quick))


async def _measure(folder: Path, asked: Sequence[Question], quick: bool) -> Result:
    result = Result()
    config = load().model_copy(update={"data_dir": folder})
    async with application(config) as services:
        embedder = config.defaults.embedder
        info = await services.models.info(embedder)
        index = services.collections.create("laws", embedder, info)
        await asyncio.to_thread(_load, index, result, quick)
        batches = [
            await services.models.embed(embedder, [question.text], "query") for question in asked
        ]
        queries = np.concatenate(batches)
        lists = await asyncio.to_thread(_lists, index, asked, queries, result)
        _quality(lists, asked, result)
        await _latency(services, index, asked, result)
    return result


def _load(index: EmbeddedIndex, result: Result, quick: bool) -> None:
    found, given = articles(), vectors()
    before = _own_pss()
    start = time.perf_counter()
    fill(index, found, given)
    result.add("load_s", time.perf_counter() - start)
    del given, found
    if not quick:
        start = time.perf_counter()
        index.rebuild()
        result.add("rebuild_s", time.perf_counter() - start)
    start = time.perf_counter()
    index.snapshot()
    result.add("open_s", time.perf_counter() - start)
    report = index.verify()
    result.add("differences", len(report.differences), "<=", 0)
    result.add("size_mib", index.info().size / 2**20)
    result.add("index_pss_mib", _own_pss() - before)


def _lists(
    index: EmbeddedIndex, asked: Sequence[Question], queries: Vectors, result: Result
) -> Lists:
    """Both searches for every question, and their CPU time, all threads of this process counted;
    the first 50 questions warm up."""
    depth = load().retrieval.depth
    lists: Lists = {"dense": [], "lexical": []}
    for question, vector in zip(asked[:50], queries, strict=False):
        index.search_dense(vector, depth, WHERE)
        index.search_lexical(question.text, depth, WHERE)
    spent = {"dense": 0.0, "lexical": 0.0}
    for question, vector in zip(asked, queries, strict=True):
        start = time.process_time()
        dense = index.search_dense(vector, depth, WHERE)
        middle = time.process_time()
        lexical = index.search_lexical(question.text, depth, WHERE)
        end = time.process_time()
        spent["dense"] += middle - start
        spent["lexical"] += end - middle
        lists["dense"].append(dense)
        lists["lexical"].append(lexical)
    each = {name: 1e3 * seconds / len(asked) for name, seconds in spent.items()}
    result.add("dense_cpu_ms", each["dense"])
    result.add("lexical_cpu_ms", each["lexical"])
    result.add("search_cpu_ms", sum(each.values()), "<=", 1.5)
    return lists


def _quality(lists: Lists, asked: Sequence[Question], result: Result) -> None:
    options = load().retrieval
    pairs = list(zip(lists["dense"], lists["lexical"], strict=True))
    fusions = {
        "fused": [
            convex(Ranking.of(dense), Ranking.of(lexical), options.dense_weight).listed()
            for dense, lexical in pairs
        ],
        "rrf": [reciprocal_ranks(pair, options.rrf_k) for pair in pairs],
    }
    rows: list[tuple[str | float, ...]] = []
    for name, found in {**lists, **fusions}.items():
        values = [_recall(found, asked, k) for k in DEPTHS]
        rows.append((name, *values))
        for k, value in zip(DEPTHS, values, strict=True):
            result.add(f"{name}_r{k}", value)
    result.tables.append(Table("Recall", ("search", *(f"R@{k}" for k in DEPTHS)), rows))
    metrics = result.metrics
    result.add("lexical_r10", metrics["lexical_r10"], ">=", 0.45)
    result.add("lexical_r100", metrics["lexical_r100"], ">=", 0.65)
    for k in (10, 100):
        best = max(metrics[f"dense_r{k}"], metrics[f"lexical_r{k}"])
        result.add(f"fused_gain_r{k}", metrics[f"fused_r{k}"] - best, ">=", 0.001)
    result.notes.append(f"{len(asked)} questions; the chunk ids are the articles' in order")


def _recall(found: Sequence[Sequence[Scored]], asked: Sequence[Question], k: int) -> float:
    shares = [
        len(question.gold & {scored.chunk_id - 1 for scored in hits[:k]}) / len(question.gold)
        for question, hits in zip(asked, found, strict=True)
    ]
    return statistics.fmean(shares)


async def _latency(
    services: Services, index: EmbeddedIndex, asked: Sequence[Question], result: Result
) -> None:
    """One search after the other, embedding included; the first 50 warm up."""
    config = services.config
    stages: dict[str, list[float]] = {}
    for i, question in enumerate((*asked[:50], *asked)):
        found = await search(
            index,
            services.models,
            config.defaults.embedder,
            question.text,
            options=config.retrieval,
            where=WHERE,
            k=config.retrieval.hits,
        )
        if i >= 50:
            for stage, ms in found.timings.items():
                stages.setdefault(stage, []).append(ms)
    rows = [(stage, percentile(ms, 50), percentile(ms, 90)) for stage, ms in stages.items()]
    result.tables.append(Table("Latency in ms", ("stage", "p50", "p90"), rows))
    result.add("search_p50_ms", percentile(stages["total"], 50), "<=", 10.0)
    result.add("search_p90_ms", percentile(stages["total"], 90))
    result.add("tree_pss_mib", sum(one.pss for one in tree_memory(os.getpid())))


def _own_pss() -> float:
    return tree_memory(os.getpid())[0].pss
