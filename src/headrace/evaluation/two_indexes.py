"""Two indexes of one collection on a suite's questions: is the new one at least as good?"""

from __future__ import annotations

import asyncio
from typing import NamedTuple

import numpy as np

from headrace.errors import ConfigError
from headrace.evaluation.compare import LEVEL, holm, randomisation
from headrace.evaluation.format import Question, Suite
from headrace.evaluation.gold import ranks
from headrace.evaluation.metrics import retrieval
from headrace.pipeline.plan import cycle_call, make_plan
from headrace.pipeline.services import Services
from headrace.retrieval.embedded import EmbeddedIndex
from headrace.retrieval.search import search
from headrace.types import BULK

DEEPEST = 10
"""Hits looked at: the cutoffs R@1, R@5 and R@10, nDCG@10 and RR@10."""


class Measured(NamedTuple):
    """Means over the questions with gold passages; `p` is that of the paired randomisation test,
    corrected for the number of metrics."""

    metric: str
    n: int
    before: float
    after: float
    p: float

    @property
    def worse(self) -> bool:
        return self.after < self.before and self.p < LEVEL


async def compare_indexes(
    services: Services, suite: Suite, before: EmbeddedIndex, after: EmbeddedIndex
) -> list[Measured]:
    """Both asked the same, with the collection's retrieval settings and in the bulk lane. Raises
    `ConfigError` if no question of the suite has gold passages, and what searches raise."""
    questions = [question for question in suite.questions if question.gold]
    if not questions:
        raise ConfigError(f"suite {suite.name!r}: no question has `gold`: nothing can be compared")
    runs = []
    for index in (before, after):
        found = {q.id: (await _ranks(services, suite, q, index), DEEPEST) for q in questions}
        runs.append(await asyncio.to_thread(retrieval, found, DEEPEST))
    measured = []
    for metric, values in runs[0].items():
        pairs = np.array([(values[q.id], runs[1][metric][q.id]) for q in questions])
        p = await asyncio.to_thread(randomisation, pairs[:, 1] - pairs[:, 0])
        old, new = pairs.mean(axis=0).tolist()
        measured.append(Measured(metric, len(questions), old, new, p))
    corrected = holm([one.p for one in measured])
    return [one._replace(p=p) for one, p in zip(measured, corrected, strict=True)]


async def _ranks(
    services: Services, suite: Suite, question: Question, index: EmbeddedIndex
) -> tuple[int, ...]:
    request = suite.request(question, question.text, BULK)
    plan = make_plan(services.config, request)
    result = await search(
        index,
        services.models,
        plan.embedder,
        plan.lookup,
        options=plan.retrieval,
        where=request.where,
        k=DEEPEST,
        reranker=plan.reranker,
        call=cycle_call(request.call),
        paces=services.paces,
    )
    return ranks(question, result.hits)
