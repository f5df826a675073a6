"""Cost of reranking 50 candidates on one core, loss by compression, and pairs of many users.

Candidates are the 50 articles nearest to a law question by the given vectors. Quality: late
interaction over texts (exact) and over compressed passages, by the reranker's order alone and
blended with the dense scores (0.3 to 0.7, both min-max normalised). The 8-bit encoder's activations
share one scale in a batch, so a text's tokens depend a little on its company: the correlation of
exact and compressed scores is taken over the same batches, and that of exact scores over batches of
one question and of many stands beside it. Cost: wall time, and CPU time
of a worker with one thread on one core, a new question each time, its own tokens included. Sharing:
16 users with a question each, through a group with one worker, at once and one after the other.
"""

from __future__ import annotations

import asyncio
import statistics
import time
from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
import numpy.typing as npt
import psutil

from bench.harness import Result, Table
from bench.law_corpus import Question, articles, questions, vectors
from headrace.config.load import load
from headrace.engines.base import Engine, ModelSpec, Passage, Vectors, pairs
from headrace.engines.onnx import OnnxEngine
from headrace.errors import HeadraceError
from headrace.retrieval.base import embedding_text
from headrace.serving.group import Group
from headrace.types import USER, Role

CANDIDATES = 50
USERS = 16
USERS_PASSAGES = 5
SHARE = 0.3  # of the reranker in the blend
TOGETHER = 20  # questions whose texts are read once
ALONE = 40  # questions whose texts are read once more, each question's by themselves
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
    asyncio.run(_served(cases, texts, codes, result, quick))
    return result


async def _served(
    cases: Sequence[Case],
    texts: dict[int, str],
    codes: dict[int, bytes],
    result: Result,
    quick: bool,
) -> None:
    await _cost(cases, texts, codes, result, quick)
    await _sharing(cases, texts, codes, result, 1 if quick else 8)


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
    _correlations(engine, cases[:ALONE], texts, exact, result)
    for k in (1, 5, 10):
        loss = result.metrics[f"exact_r{k}"] - result.metrics[f"compressed_r{k}"]
        result.add(f"compression_loss_r{k}", loss)
    result.add("bytes_per_passage", statistics.fmean(map(len, made)))
    result.notes.append(f"{len(cases)} questions, {len(ids)} different candidates compressed")
    return codes


def _correlations(
    engine: Engine,
    cases: Sequence[Case],
    texts: dict[int, str],
    exact: Sequence[Vectors],
    result: Result,
) -> None:
    compressed, company = [], []
    for case, among_many in zip(cases, exact, strict=False):
        read = [texts[number] for number in case.ids]
        alone = engine.score(pairs(case.question.text, read))
        kept = engine.score(pairs(case.question.text, engine.compress(read)))
        compressed.append(float(np.corrcoef(alone, kept)[0, 1]))
        company.append(float(np.corrcoef(alone, among_many)[0, 1]))
    result.add("compressed_correlation", statistics.fmean(compressed), ">=", 0.98)
    result.add("batch_correlation", statistics.fmean(company))


def _normal(scores: Vectors) -> Vectors:
    spread: Vectors = (scores - scores.min()) / max(float(np.ptp(scores)), 1e-9)
    return spread


def _recall(cases: Sequence[Case], scores: Sequence[Vectors], k: int) -> float:
    def share(case: Case, given: npt.NDArray[np.float32]) -> float:
        best = {case.ids[place] for place in np.argsort(-given, kind="stable")[:k]}
        return len(case.question.gold & best) / len(case.question.gold)

    return statistics.fmean(map(share, cases, scores))


# Cost --------------------------------------------------------------------------------------------


async def _cost(
    cases: Sequence[Case],
    texts: dict[int, str],
    codes: dict[int, bytes],
    result: Result,
    quick: bool,
) -> None:
    late = _spec("e5-late", threads=1, cores=["0"])
    decoder = _spec("smollm2", role="reranker", scoring="yes_no", threads=1, slots=1, cores=["0"])
    documents = 2 if quick else 8
    rows = [
        await _row("compressed", late, _asked(cases[: 4 if quick else 40], codes), result),
        await _row("exact", late, _asked(cases[: 1 if quick else 4], texts), result),
        await _row("decoder", decoder, _asked(cases[:1], texts, documents), result),
    ]
    for kind in ("ms", "cpu_ms"):
        cheap, dear = (result.metrics[f"{way}_{kind}"] for way in ("compressed", "decoder"))
        result.add(f"cascade_{kind}", 2 * cheap + 0.6 * dear)
    rows.append(("cascade", result.metrics["cascade_ms"], result.metrics["cascade_cpu_ms"]))
    result.tables.append(Table("50 candidates on one core", ("way", "wall ms", "CPU ms"), rows))
    result.add("compressed_cpu_ms", result.metrics["compressed_cpu_ms"], "<=", BUDGET_MS)
    result.notes.append(
        f"decoder: the default generator asked for yes or no about {documents} documents, times "
        f"{CANDIDATES // documents}; cascade, from the two: compressed late interaction prunes 100 "
        "to 30 for the decoder"
    )


Asked = list[tuple[str, list[Passage]]]


def _asked(
    cases: Sequence[Case], known: dict[int, str] | dict[int, bytes], count: int = CANDIDATES
) -> Asked:
    return [(case.question.text, [known[n] for n in case.ids[:count]]) for case in cases]


async def _row(key: str, spec: ModelSpec, asked: Asked, result: Result) -> tuple[str, float, float]:
    """Milliseconds for 50 candidates, each question asked once, after one to warm up."""
    group = Group(spec, on_death=_fatal)
    try:
        await group.bring("cpu")
        (pid,) = group.pids()
        await group.score("warm up", asked[0][1][:2], USER)
        wall, cpu = time.perf_counter(), _cpu_seconds(pid)
        for query, passages in asked:
            await group.score(query, passages, USER)
        times = 1e3 * CANDIDATES / sum(len(passages) for _, passages in asked)
        found = times * (time.perf_counter() - wall), times * (_cpu_seconds(pid) - cpu)
    finally:
        await group.leave()
    result.add(f"{key}_ms", found[0])
    result.add(f"{key}_cpu_ms", found[1])
    return (key, *found)


def _cpu_seconds(pid: int) -> float:
    times = psutil.Process(pid).cpu_times()
    return float(times.user + times.system)


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
