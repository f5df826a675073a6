"""Two-hop questions: how often both supporting passages are found, in one search and in deep mode.

The 994 passages of the English two-hop set are ingested as documents, each with its title, by the
default embedder. Every question is answered without a generator, once with effort `balanced` and
once with `deep`, in turns; what counts are the hits of the answer, ten of them. A passage counts as
found if any of its chunks is.

The kinds of links were found by looking at what one search misses of all questions; the constants
lie on a plateau that is the same for the questions with even and with odd numbers, so both halves
are told apart here.
"""

from __future__ import annotations

import asyncio
import html
import json
import random
import statistics
import tempfile
from collections.abc import Sequence
from contextlib import aclosing
from dataclasses import replace
from pathlib import Path
from typing import Literal, NamedTuple

from bench.harness import Result, Table, percentile, shared_data
from headrace.app import application
from headrace.config.load import load
from headrace.engines.base import Vectors
from headrace.pipeline.answer import answer
from headrace.pipeline.plan import AnswerRequest
from headrace.pipeline.services import Services
from headrace.serving.models import Models
from headrace.types import ALL_ACCESS, USER, Call, DoneEvent, EmbedKind, Filter, Hit, HitsEvent

COLLECTION = "multihop"
HITS = 10
SIDES: tuple[Literal["balanced", "deep"], ...] = ("balanced", "deep")
WARM_UP = 5
RESAMPLED = 10_000
QUICK = 20


class Asked(NamedTuple):
    text: str
    gold: frozenset[str]


class Outcome(NamedTuple):
    """One answer: the titles of its hits in order, milliseconds of the search and of the whole,
    and how often the search called the embedder."""

    titles: list[str]
    search: float
    total: float
    calls: int


class Counting:
    """The models, with a count of the embedder's calls."""

    def __init__(self, models: Models) -> None:
        self._models = models
        self.calls = 0

    def __getattr__(self, name: str) -> object:
        return getattr(self._models, name)

    async def embed(
        self, model: str, texts: Sequence[str], kind: EmbedKind, *, call: Call = USER
    ) -> Vectors:
        self.calls += kind == "query"
        return await self._models.embed(model, texts, kind, call=call)


def run(quick: bool) -> Result:
    """`quick` asks 20 questions over the passages that stand with them in the set."""
    folder = shared_data() / "multihop"
    rows = json.loads((folder / "hotpotqa_train.json").read_text(encoding="utf-8"))
    texts = json.loads((folder / "hotpotqa_train_corpus.json").read_text(encoding="utf-8"))
    if quick:
        rows = rows[:QUICK]
        near = {title for row in rows for title, _ in row["context"]}
        texts = {title: text for title, text in texts.items() if title in near}
    asked = [
        Asked(
            row["question"].strip(),
            frozenset(html.unescape(title) for title, _ in row["supporting_facts"]),
        )
        for row in rows
    ]
    with tempfile.TemporaryDirectory(prefix="headrace-bench-") as name:
        documents = Path(name) / "documents"
        documents.mkdir()
        for number, (title, sentences) in enumerate(texts.items()):
            text = f"# {title}\n\n{''.join(sentences).strip()}\n"
            (documents / f"{number:04d}.md").write_text(text, encoding="utf-8")
        outcomes = asyncio.run(_measure(Path(name) / "data", documents, asked))
    return _result(asked, outcomes, len(texts))


async def _measure(data: Path, documents: Path, asked: Sequence[Asked]) -> dict[str, list[Outcome]]:
    config = load()
    uncached = config.cache.model_copy(update={"embeddings_size": None})  # asked twice
    config = config.model_copy(update={"data_dir": data, "cache": uncached})
    outcomes: dict[str, list[Outcome]] = {side: [] for side in SIDES}
    async with application(config) as services:
        await services.jobs.run(COLLECTION, [documents])
        for number, question in enumerate((*asked[:WARM_UP], *asked)):
            sides = SIDES if number % 2 else SIDES[::-1]
            for side in sides:
                outcome = await _ask(services, question.text, side)
                if number >= WARM_UP:
                    outcomes[side].append(outcome)
    return outcomes


async def _ask(services: Services, question: str, effort: Literal["balanced", "deep"]) -> Outcome:
    counting = Counting(services.models)
    request = AnswerRequest(
        COLLECTION,
        question,
        Filter(access=ALL_ACCESS),
        generate="none",
        effort=effort,
        hits=HITS,
    )
    hits: tuple[Hit, ...] = ()
    done: DoneEvent | None = None
    calls = 0
    counted = replace(services, models=counting)  # type: ignore[arg-type]  # the rest is passed on
    async with aclosing(answer(counted, request)) as events:
        async for event in events:
            if isinstance(event, HitsEvent):
                hits, calls = event.hits, counting.calls  # quoting embeds the question again
            elif isinstance(event, DoneEvent):
                done = event
    assert done is not None, "the answer failed"
    titles = list(dict.fromkeys(hit.title for hit in hits))
    return Outcome(titles, done.timings["retrieve"], done.timings["total"], calls)


def _result(asked: Sequence[Asked], outcomes: dict[str, list[Outcome]], passages: int) -> Result:
    result = Result()
    rows: list[tuple[str, str, float, float, float, str]] = []
    parts = {"all": slice(None), "even": slice(0, None, 2), "odd": slice(1, None, 2)}
    for k in (10, 5, 2):
        found = {
            side: [
                question.gold <= set(outcome.titles[:k])
                for question, outcome in zip(asked, outcomes[side], strict=True)
            ]
            for side in SIDES
        }
        for part, some in parts.items():
            one, deep = found["balanced"][some], found["deep"][some]
            gain = 100 * (statistics.fmean(deep) - statistics.fmean(one))
            low, high = _interval([int(d) - int(o) for o, d in zip(one, deep, strict=True)])
            shown = f"{low:+.0f} to {high:+.0f}"
            rows.append(
                (f"top {k}", part, statistics.fmean(one), statistics.fmean(deep), gain, shown)
            )
            suffix = {"all": "", "even": "_even", "odd": "_odd"}[part]
            result.add(f"one_shot_both_{k}{suffix}", statistics.fmean(one))
            result.add(f"deep_both_{k}{suffix}", statistics.fmean(deep))
            if k == 10 and part == "all":
                result.add("gain_points_10", gain, ">=", 15.0)
                result.add("gain_low_10", low)
                result.add("gain_high_10", high)
                result.add("possible_points_10", 100 * (1 - statistics.fmean(one)))
            elif part == "all":
                result.add(f"gain_points_{k}", gain)
    columns = ("hits", "questions", "one search", "deep", "points", "95 % interval")
    result.tables.append(Table("Both supporting passages found", columns, rows))
    _times(outcomes, result)
    result.notes.append(
        f"{len(asked)} questions over {passages} passages, {WARM_UP} to warm up; the interval is a "
        f"paired bootstrap of {RESAMPLED}; `possible_points_10` is what one search leaves to gain"
    )
    return result


def _times(outcomes: dict[str, list[Outcome]], result: Result) -> None:
    rows: list[tuple[str | float, ...]] = []
    for name in ("search", "whole answer"):
        medians = []
        for side in SIDES:
            values = [o.search if name == "search" else o.total for o in outcomes[side]]
            medians.append(percentile(values, 50))
            rows.append((name, side, medians[-1], percentile(values, 90)))
        key = "search" if name == "search" else "answer"
        result.add(f"{key}_one_shot_p50_ms", medians[0])
        result.add(f"{key}_deep_p50_ms", medians[1])
        result.add(f"{key}_latency_ratio", medians[1] / medians[0], "<=", 2.0)
    for side, name in zip(SIDES, ("one_shot", "deep"), strict=True):
        calls = statistics.fmean(outcome.calls for outcome in outcomes[side])
        result.add(f"embedding_calls_{name}", calls)
    result.tables.append(Table("Milliseconds", ("what", "effort", "p50", "p90"), rows))


def _interval(differences: Sequence[int]) -> tuple[float, float]:
    """95 % of the mean difference, in points, by resampling the questions."""
    draw = random.Random(4)
    means = [
        100 * statistics.fmean(draw.choices(differences, k=len(differences)))
        for _ in range(RESAMPLED)
    ]
    return percentile(means, 2.5), percentile(means, 97.5)
