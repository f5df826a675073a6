"""What a record says in numbers, for one question and on average. Definitions and sources stand in
`docs/evaluation.md`."""

from __future__ import annotations

import importlib.util
import math
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import msgspec

from headrace.errors import ConfigError
from headrace.evaluation.format import Question, Suite
from headrace.evaluation.journal import Record
from headrace.evaluation.texts import best_f1, exact

CUTOFFS = (1, 5, 10, 50, 100)
STAGES = ("dense", "lexical", "fused", "rerank", "answered")
"""`answered` are the hits that the answer was made from."""

LOWER_IS_BETTER = frozenset({"failed", "refusal.false", "refusal.missed", "answers.unsupported"})

Values = dict[str, dict[str, float]]
"""By question id: values by metric. A metric that says nothing about a question is absent."""


class Metric(msgspec.Struct, frozen=True):
    """A mean over the `n` questions that it says something about."""

    value: float
    n: int


def require() -> None:
    """Raises `ConfigError` if the libraries of the extra `eval` are not installed."""
    missing = [name for name in ("ir_measures", "matplotlib") if not importlib.util.find_spec(name)]
    if missing:
        raise ConfigError(f"evaluation needs {' and '.join(missing)}: pip install 'headrace[eval]'")


def measure(suite: Suite, records: Sequence[Record]) -> Values:
    """The values of every question of the suite that has a record. One that failed found, quoted
    and answered nothing."""
    by_id = {question.id: question for question in suite.questions}
    pairs = [(by_id[record.id], record) for record in records if record.id in by_id]
    values: Values = {record.id: {"failed": float(bool(record.failed))} for _, record in pairs}
    if "retrieval" in suite.kinds:
        _retrieval(pairs, values, [s for s in STAGES if s != "answered"])
    answered = "answers" in suite.kinds or "choice" in suite.kinds
    if answered:
        _retrieval(pairs, values, ["answered"])
    for question, record in pairs:
        mine = values[record.id]
        if answered:
            mine |= _quotes(question, record)
        if "answers" in suite.kinds:
            mine |= _answers(question, record) | _refusal(question, record)
        if "choice" in suite.kinds and question.choices:
            mine["choice.accuracy"] = float(
                record.chosen is not None and record.chosen == question.correct
            )
            mine["choice.chosen"] = float(record.chosen is not None)
    return values


def means(values: Values) -> dict[str, Metric]:
    """Averages over the questions, in the order in which the metrics first occur."""
    collected: dict[str, list[float]] = {}
    for one in values.values():
        for name, value in one.items():
            collected.setdefault(name, []).append(value)
    return {
        name: Metric(math.fsum(found) / len(found), len(found))
        for name, found in sorted(collected.items(), key=lambda item: _order(item[0]))
    }


def _order(name: str) -> tuple[int, int]:
    groups = (*STAGES, "quotes", "answers", "refusal", "choice", "failed")
    group = name.split(".")[0]
    cutoff = name.partition("@")[2]
    return (
        groups.index(group) if group in groups else len(groups),
        int(cutoff) if name.split(".")[-1].startswith("R@") else 1000,
    )


# Retrieval ---------------------------------------------------------------------------------------


def _retrieval(
    pairs: Iterable[tuple[Question, Record]], values: Values, stages: Sequence[str]
) -> None:
    """Fill in the measures of each stage for the questions that have gold passages; `All@10` for
    those that need several: whether all of them are among the first 10."""
    asked = [(question, record) for question, record in pairs if question.gold]
    seen = {stage for _, record in asked for stage in record.ranks}
    for stage in stages:
        if stage not in seen:
            continue
        deepest = max(record.depths.get(stage, 0) for _, record in asked)
        runs = {
            record.id: (
                record.ranks.get(stage, (0,) * len(question.gold)),
                record.depths.get(stage, 0),
            )
            for question, record in asked
        }
        for name, per_question in retrieval(runs, deepest).items():
            for identifier, value in per_question.items():
                values[identifier][f"{stage}.{name}"] = value
        for question, record in asked:
            recall = values[record.id].get(f"{stage}.R@10")
            if recall is not None and len(question.gold) > 1:
                values[record.id][f"{stage}.All@10"] = float(recall == 1.0)


def retrieval(
    runs: Mapping[str, tuple[Sequence[int], int]], deepest: int
) -> dict[str, dict[str, float]]:
    """R@k, nDCG@10 and RR@10 by ir-measures: measure -> question id -> value.

    `runs` has for each question the ranks of its needs (from 1; 0: not found) and the length of
    the list. Cutoffs that no list reaches are left out. A hit that satisfies several needs takes
    as many places, one for each, since a run has one document at a rank."""
    import ir_measures
    from ir_measures import RR, R, nDCG

    cutoffs = [k for k in CUTOFFS if k <= deepest] or [CUTOFFS[0]]
    measures: list[Any] = [*(R @ k for k in cutoffs), nDCG @ 10, RR @ 10]
    qrels = {
        identifier: {f"need{number}": 1 for number in range(len(ranks))}
        for identifier, (ranks, _) in runs.items()
    }
    listed = {identifier: _run(ranks, depth) for identifier, (ranks, depth) in runs.items()}
    found: dict[str, dict[str, float]] = {str(one): {} for one in measures}
    for row in ir_measures.iter_calc(measures, qrels, listed):
        found[str(row.measure)][row.query_id] = float(row.value)
    return found


def _run(ranks: Sequence[int], depth: int) -> dict[str, float]:
    """A run in which each need stands at its rank, and what is not gold between them."""
    order: list[str] = []
    for rank in range(1, min(depth, CUTOFFS[-1]) + 1):
        needs = [f"need{number}" for number, at in enumerate(ranks) if at == rank]
        order += needs or [f"other{rank}"]
    return {name: -float(place) for place, name in enumerate(order or ["nothing"])}


# Answers -----------------------------------------------------------------------------------------


def _quotes(question: Question, record: Record) -> dict[str, float]:
    found: dict[str, float] = {}
    if record.quotes:
        found["quotes.identical"] = record.quotes_identical / record.quotes
    if question.gold:
        if record.quotes:
            found["quotes.precision"] = record.quotes_gold / record.quotes
        found["quotes.recall"] = len(record.needs_quoted) / len(question.gold)
    return found


def _answers(question: Question, record: Record) -> dict[str, float]:
    found: dict[str, float] = {}
    if not record.failed and not record.refusal:
        found["answers.unsupported"] = float(record.unsupported)
    if question.answers:
        given = "" if record.refusal else record.answer
        found["answers.exact"] = float(any(exact(given, gold) for gold in question.answers))
        found["answers.f1"] = best_f1(given, question.answers)
    return found


def _refusal(question: Question, record: Record) -> dict[str, float]:
    if question.has_answer is None:
        return {}
    if record.failed:
        return {"refusal.correct": 0.0}
    refused = bool(record.refusal)
    wrong = "refusal.false" if question.has_answer else "refusal.missed"
    right = refused is not question.has_answer
    return {"refusal.correct": float(right), wrong: float(not right)}
