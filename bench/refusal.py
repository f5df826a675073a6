"""Telling questions that the documents answer from those they do not; false alarms of conflicts.

The law questions are judged twice: with their gold articles among the candidates, and with these
taken out, which leaves the neighbours of the answer. *Calibrated* numbers are cross-validated:
neither weights nor threshold know the question that is judged. Questions on radio networks put to
the laws, and the examples' questions, are judged as an answer judges them.
"""

from __future__ import annotations

import asyncio
import gzip
import json
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np
from ruamel.yaml import YAML

from bench.harness import ROOT, Result, Table, shared_data
from bench.law_corpus import Article, articles, fill, questions, vectors
from headrace.app import application
from headrace.config.load import load
from headrace.evaluation.calibrating import (
    Data,
    arrays,
    calibrate,
    examples,
    out_of_fold,
    quality,
)
from headrace.evaluation.format import Gold, Question, Suite
from headrace.evaluation.logistic import area_under_curve
from headrace.pipeline.calibration import Calibration
from headrace.pipeline.conflicts import clashes
from headrace.pipeline.evidence import Passage, passages
from headrace.pipeline.language import language
from headrace.pipeline.relevance import Support, judge
from headrace.pipeline.services import Services
from headrace.pipeline.support import FIRST
from headrace.pipeline.versions import current
from headrace.retrieval.search import search_many
from headrace.types import ALL_ACCESS, Filter

WHERE = Filter(access=ALL_ACCESS)
EVERYDAY = (
    *("How do I bake a chocolate cake?", "What is the tallest mountain in Africa?"),
    *("How many moons does Jupiter have?", "How do I knit a scarf?"),
    *("怎么做巧克力蛋糕？", "非洲最高的山是哪座？", "木星有几颗卫星？", "围巾怎么织？"),
)
"""Neither the laws nor the examples answer these."""


class Judged(NamedTuple):
    support: Support
    sources: list[Passage]
    superseded: int


def run(quick: bool) -> Result:
    """`quick` asks 200 of the 1,000 law questions."""
    with tempfile.TemporaryDirectory(prefix="headrace-bench-") as folder:
        return asyncio.run(_measure(Path(folder), 5 if quick else 1))


async def _measure(folder: Path, step: int) -> Result:
    result = Result()
    config = load().model_copy(update={"data_dir": folder})
    async with application(config) as services:
        await _laws(services, step, result)
        await _examples(services, result)
    return result


async def _laws(services: Services, step: int, result: Result) -> None:
    embedder = services.config.defaults.embedder
    index = services.collections.create("laws", embedder, await services.models.info(embedder))
    corpus = articles()
    await asyncio.to_thread(fill, index, corpus, vectors())
    asked = questions()[::step]
    suite = Suite(
        name="laws",
        collection="laws",
        questions=tuple(
            Question(id=str(n), text=one.text, gold=_gold(corpus, one.gold))
            for n, one in enumerate(asked)
        ),
    )
    data = arrays(await examples(services, suite))
    _separation(data, result)
    made = await calibrate(services, suite)
    off = [*_radio(100), *EVERYDAY]
    by_rule = await _judged(services, "laws", off)
    calibrated = await _judged(services, "laws", off, made)
    result.add("oran_passed", sum(one.support.enough for one in by_rule[:100]), "<=", 0)
    result.add(
        "oran_passed_calibrated", sum(one.support.enough for one in calibrated[:100]), "<=", 0
    )
    result.add("everyday_passed", sum(one.support.enough for one in by_rule[100:]))
    result.add("everyday_passed_calibrated", sum(one.support.enough for one in calibrated[100:]))
    some = [one.text for one in asked[:: max(1, len(asked) // 200)]]
    _alarms("laws", await _judged(services, "laws", some), some, result)


def _gold(corpus: Sequence[Article], numbers: frozenset[int]) -> tuple[tuple[Gold, ...], ...]:
    return tuple(
        (Gold(title=corpus[number].law, place=corpus[number].name),) for number in sorted(numbers)
    )


def _separation(data: Data, result: Result) -> None:
    found = quality(data)
    result.add("auc_default", found.auc_rule)
    result.add("auc_calibrated", found.auc, ">=", 0.80)
    result.add("refused_answerable", found.refused_answerable, "<=", 0.05)
    result.add("refused_unanswerable", found.refused_unanswerable)
    result.add("refused_answerable_default", float((data.rule[data.answerable] < 1).mean()))
    changed = (data.rows[data.answerable] != data.rows[~data.answerable]).any(axis=1)
    scores = out_of_fold(data, 0.05)
    result.add("gold_among_hits", float(changed.mean()))
    result.add(
        "auc_gold_among_hits",
        area_under_curve(scores[data.answerable][changed], scores[~data.answerable][changed]),
    )
    rows = [
        ("by the rule", found.auc_rule, result.metrics["refused_answerable_default"]),
        ("calibrated, cross-validated", found.auc, found.refused_answerable),
    ]
    result.tables.append(
        Table("Law questions", ("judge", "area under the curve", "answerable refused"), rows)
    )
    result.notes.append(
        f"{found.answerable} law questions with their gold articles, and the same without; of "
        f"{1 - changed.mean():.0%} no gold article is among the {FIRST} passages that are judged, "
        "so taking it out changes nothing"
    )


def _radio(count: int) -> list[str]:
    with gzip.open(shared_data() / "oran" / "easy.jsonl.gz", "rt", encoding="utf-8") as lines:
        rows = [json.loads(line) for line in lines]
    return [str(row[0]) for row in rows[:: len(rows) // count][:count]]


async def _judged(
    services: Services,
    collection: str,
    asked: Sequence[str],
    calibration: Calibration | None = None,
) -> list[Judged]:
    """As an answer judges them."""
    embedder = services.config.defaults.embedder
    index = services.collections.open(collection)
    results = await search_many(
        index,
        services.models,
        embedder,
        asked,
        options=services.config.retrieval,
        where=WHERE,
        k=FIRST,
    )

    def each() -> list[Judged]:
        model, snapshot = services.config.models[embedder], index.snapshot()
        made = []
        for question, found in zip(asked, results, strict=True):
            hits, superseded = current(found.hits, index)
            sources = passages(hits)
            support = judge(question, sources, snapshot, model, calibration)
            made.append(Judged(support, sources, len(superseded)))
        return made

    return await asyncio.to_thread(each)


def _alarms(name: str, judged: Sequence[Judged], asked: Sequence[str], result: Result) -> None:
    """How often a conflict is claimed."""
    claimed = sum(
        bool(clashes(question, one.sources))
        for question, one in zip(asked, judged, strict=True)
        if one.support.enough
    )
    result.add(f"{name}_contradictions_claimed", claimed / len(asked), "<=", 0.01)
    result.add(f"{name}_superseded_claimed", sum(bool(one.superseded) for one in judged))


async def _examples(services: Services, result: Result) -> None:
    """The examples' own questions, then those in another language than the documents."""
    documents = ROOT / "examples" / "docs"
    text = (ROOT / "examples" / "questions.yaml").read_text(encoding="utf-8")
    asked = YAML(typ="safe").load(text)["questions"]
    texts = [one["question"] for one in asked]
    answerable = np.array(["gold" in one for one in asked])
    await services.jobs.run("examples", [documents])
    judged = await _judged(services, "examples", texts)
    enough = np.array([one.support.enough for one in judged])
    result.add("examples_answered", float(enough[answerable].mean()), ">=", 0.95)
    result.add("examples_refused", float((~enough[~answerable]).mean()), ">=", 0.5)
    _alarms("examples", judged, texts, result)

    rows = []
    for code in ("en", "zh"):
        await services.jobs.run(code, [documents / f"municipal-code.{code}.md"])
        foreign = [one for one in asked if language(one["question"]) != code]
        answers = np.array([_in_the_code(one) for one in foreign] + [False] * len(EVERYDAY))
        judged = await _judged(services, code, [*(one["question"] for one in foreign), *EVERYDAY])
        enough = np.array([one.support.enough for one in judged])
        right, wrong = int(enough[answers].sum()), int(enough[~answers].sum())
        rows.append((code, f"{right} of {answers.sum()}", f"{wrong} of {(~answers).sum()}"))
        result.add(f"across_to_{code}_answered", right / int(answers.sum()))
        result.add(f"across_to_{code}_wrongly", wrong, "<=", 0)
    columns = ("documents in", "answered", "answered, though the documents do not")
    result.tables.append(Table("Questions in another language", columns, rows))


def _in_the_code(question: dict[str, list[dict[str, str]]]) -> bool:
    """Both languages' municipal codes say the same."""
    return any(one["document"].startswith("municipal") for one in question.get("gold", []))
