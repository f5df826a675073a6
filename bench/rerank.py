"""Cost of reranking 50 candidates on one core, loss by compression, and pairs of many users.

Candidates are the 50 articles nearest to a law question by the given vectors. Quality: late
interaction over texts (exact) and over compressed passages, by the reranker's order alone and
blended with the dense scores (0.3 to 0.7, both min-max normalised). Cost: wall and CPU time of one
engine with one thread on one core, a new question each time, its own tokens included. Sharing:
16 users with a question each, through a group with one worker, at once and one after the other.
"""

from __future__ import annotations

import asyncio
import os
import statistics
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from bench.harness import Result, Table, percentile
from bench.law_corpus import Question, articles, questions, vectors
from headrace.config.load import load
from headrace.engines.base import Engine, ModelSpec, Passage, Vectors, pairs
from headrace.engines.llamacpp import LlamaCppEngine
from headrace.engines.onnx import OnnxEngine
from headrace.errors import HeadraceError
from headrace.retrieval.base import embedding_text
from headrace.serving.group import Group
from headrace.types import USER, Role

CANDIDATES = 50
USERS = 16
USERS_PASSAGES = 10
SHARE = 0.3  # of the reranker in the blend
TOGETHER = 20  # questions whose texts are read once
BUDGET_MS = 60.0


class Case(NamedTuple):
    """A question, its candidates by article number, and their cosines, best first."""

    question: Question
    ids: list[int]
    cosines: Vectors


def run(quick: bool) -> Result:
    """200 questions; with `quick` 4, and 2 documents for the decoder."""
    result = Result()
    texts = {a.number: embedding_text((a.law, a.name), f"{a.name} {a.text}") for a in articles()}
    asked = questions()[:: 250 if quick else 5]
    engine = _onnx("e5-late")
    cases = _cases(asked)
    codes = _quality(engine, cases, texts, result)
    engine.unload()
    _cost(cases, texts, codes, result, quick)
    asyncio.run(_sharing(cases, texts, codes, result, 2 if quick else 8))
    return result


def _spec(name: str, **options: object) -> ModelSpec:
    config = load()
    given = config.models[name]
    made = given.model_dump(mode="json") | options
    role = Role(made["role"])
    return ModelSpec(name, role, given.engine, given.source, str(config.cache_dir), made)


def _onnx(name: str, **options: object) -> OnnxEngine:
    engine = OnnxEngine()
    engine.load(_spec(name, **options))
    return engine


def _cases(asked: Sequence[Question]) -> list[Case]:
    embedder = _onnx("e5-small")
    queries = embedder.embed([question.text for question in asked], "query")
    embedder.unload()
    given = vectors()
    cases = []
    for question, query in zip(asked, queries, strict=True):
        cosines = given @ query
        best = np.argsort(-cosines, kind="stable")[:CANDIDATES]
        cases.append(Case(question, best.tolist(), cosines[best]))
    return cases


# Quality -----------------------------------------------------------------------------------------


def _quality(
    engine: Engine, cases: Sequence[Case], texts: dict[int, str], result: Result
) -> dict[int, bytes]:
    """Tables of recall; what `compress` made of all candidates."""
    ids = sorted({number for case in cases for number in case.ids})
    made = engine.compress([texts[number] for number in ids])
    codes = dict(zip(ids, made, strict=True))
    exact: list[Vectors] = []
    for start in range(0, len(cases), TOGETHER):
        some = cases[start : start + TOGETHER]
        asked = [pair for c in some for pair in pairs(c.question.text, [texts[n] for n in c.ids])]
        exact += np.split(engine.score(asked), len(some))
    near = [engine.score(pairs(c.question.text, [codes[n] for n in c.ids])) for c in cases]

    ways: dict[str, list[Vectors]] = {"dense": [c.cosines for c in cases]}
    for name, scores in (("exact", exact), ("compressed", near)):
        ways[name] = scores
        ways[f"{name}_blend"] = [
            (1 - SHARE) * _normal(c.cosines) + SHARE * _normal(s)
            for c, s in zip(cases, scores, strict=True)
        ]
    rows = []
    for name, scores in ways.items():
        found = [_recall(cases, scores, k) for k in (1, 5, 10)]
        rows.append((name, *found))
        for k, value in zip((1, 5, 10), found, strict=True):
            result.add(f"{name}_r{k}", value)
    result.tables.append(Table("Recall of gold articles", ("order", "R@1", "R@5", "R@10"), rows))
    together = [float(np.corrcoef(a, b)[0, 1]) for a, b in zip(exact, near, strict=True)]
    result.add("compressed_correlation", statistics.fmean(together), ">=", 0.98)
    for k in (1, 5, 10):
        loss = result.metrics[f"exact_r{k}"] - result.metrics[f"compressed_r{k}"]
        result.add(f"compression_loss_r{k}", loss)
    result.add("bytes_per_passage", statistics.fmean(map(len, made)))
    result.notes.append(f"{len(cases)} questions, {len(ids)} different candidates compressed")
    return codes


def _normal(scores: Vectors) -> Vectors:
    spread: Vectors = (scores - scores.min()) / max(float(np.ptp(scores)), 1e-9)
    return spread


def _recall(cases: Sequence[Case], scores: Sequence[Vectors], k: int) -> float:
    def share(case: Case, given: npt.NDArray[np.float32]) -> float:
        best = {case.ids[place] for place in np.argsort(-given, kind="stable")[:k]}
        return len(case.question.gold & best) / len(case.question.gold)

    return statistics.fmean(map(share, cases, scores))


# Cost --------------------------------------------------------------------------------------------


def _cost(
    cases: Sequence[Case],
    texts: dict[int, str],
    codes: dict[int, bytes],
    result: Result,
    quick: bool,
) -> None:
    rows = []
    with _one_core():
        engine = _onnx("e5-late", threads=1)
        measured = cases[: 4 if quick else 40]

        def given(known: dict[int, str] | dict[int, bytes]) -> list[Callable[[], object]]:
            def work(case: Case) -> Callable[[], object]:
                passages: list[Passage] = [known[number] for number in case.ids]
                return lambda: engine.score(pairs(case.question.text, passages))

            return [work(case) for case in measured]

        engine.score(pairs("warm up", list(codes.values())[:CANDIDATES]))
        few = given(texts)[: 1 if quick else 4]
        rows.append(_row("late interaction, compressed", "compressed", given(codes), 1.0, result))
        engine.unload()  # its memory of the questions must not help
        engine = _onnx("e5-late", threads=1)
        rows.append(_row("late interaction, exact", "exact", few, 1.0, result))
        engine.unload()
        rows += _decoder(cases, texts, 2 if quick else 8, result)
    result.tables.append(Table("50 candidates on one core", ("way", "wall ms", "CPU ms"), rows))
    result.add("compressed_cpu_ms", result.metrics["compressed_cpu_ms"], "<=", BUDGET_MS)
    result.notes.append(
        "medians; the decoder's cost is that of a few documents times 50 or, behind late "
        "interaction that prunes 100 to 30, times 30"
    )


def _decoder(
    cases: Sequence[Case], texts: dict[int, str], count: int, result: Result
) -> list[tuple[object, ...]]:
    """The default generator asked for yes or no, alone and at the end of a cascade."""
    engine = LlamaCppEngine()
    options = {"role": "reranker", "scoring": "yes_no", "threads": 1, "slots": 1}
    engine.load(_spec("smollm2", **options))
    passages = [texts[number] for number in cases[0].ids[:count]]
    work = [lambda: engine.score(pairs(cases[0].question.text, passages))]
    alone = _row("decoder, yes or no", "decoder", work, CANDIDATES / count, result)
    engine.unload()
    wall = alone[1] * 0.6 + 2 * result.metrics["compressed_ms"]
    cpu = alone[2] * 0.6 + 2 * result.metrics["compressed_cpu_ms"]
    result.add("cascade_ms", wall)
    result.add("cascade_cpu_ms", cpu)
    return [alone, ("late interaction prunes 100 to 30 for it", wall, cpu)]


def _row(
    label: str, key: str, work: Sequence[Callable[[], object]], times: float, result: Result
) -> tuple[str, float, float]:
    walls, cpus = [], []
    for each in work:
        wall, cpu = time.perf_counter(), time.process_time()
        each()
        walls.append(1e3 * times * (time.perf_counter() - wall))
        cpus.append(1e3 * times * (time.process_time() - cpu))
    found = percentile(walls, 50), percentile(cpus, 50)
    result.add(f"{key}_ms", found[0])
    result.add(f"{key}_cpu_ms", found[1])
    return (label, *found)


@contextmanager
def _one_core() -> Iterator[None]:
    """This thread, and those that it starts from here on."""
    before = os.sched_getaffinity(0)
    os.sched_setaffinity(0, {min(before)})
    try:
        yield
    finally:
        os.sched_setaffinity(0, before)


# Sharing -----------------------------------------------------------------------------------------


async def _sharing(
    cases: Sequence[Case],
    texts: dict[int, str],
    codes: dict[int, bytes],
    result: Result,
    rounds: int,
) -> None:
    group = Group(_spec("e5-late"), on_death=_fatal)
    rows = []
    try:
        await group.bring("cpu")
        for kind, known in (("texts", texts), ("compressed", codes)):
            count = USERS_PASSAGES if kind == "texts" else CANDIDATES
            speeds: dict[str, list[float]] = {"together": [], "one by one": []}
            for turn in range(rounds):
                for way, found in speeds.items():
                    users = [
                        # A question of its own each time: its tokens are read anew.
                        (f"{cases[n % len(cases)].question.text} {turn} {way} {n}", known, count)
                        for n in range(USERS)
                    ]
                    found.append(await _users(group, cases, users, way))
            together, single = (statistics.median(found) for found in speeds.values())
            rows.append((kind, together, single, together / single))
            result.add(f"sharing_{kind}_gain", together / single)
            result.add(f"sharing_{kind}_pairs_s", together)
    finally:
        await group.leave()
    columns = ("passages", "together", "one by one", "gain")
    result.tables.append(Table(f"Pairs a second of {USERS} users", columns, rows))


async def _users(
    group: Group,
    cases: Sequence[Case],
    users: Sequence[tuple[str, dict[int, str] | dict[int, bytes], int]],
    way: str,
) -> float:
    """Pairs a second."""

    async def user(number: int) -> int:
        query, known, count = users[number]
        passages = [known[n] for n in cases[number % len(cases)].ids[:count]]
        return len(await group.score(query, passages, USER))

    began = time.perf_counter()
    if way == "together":
        done = sum(await asyncio.gather(*map(user, range(len(users)))))
    else:
        done = sum([await user(number) for number in range(len(users))])
    return done / (time.perf_counter() - began)


def _fatal(error: HeadraceError) -> None:
    raise error
