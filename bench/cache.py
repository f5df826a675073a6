"""Cached answers end to end: what a hit and a miss cost over HTTP, and what is taken for the same.

`headrace up` with the default embedder serves the project's example documents; answers are made of
quotations alone, so what a hit saves here is the least that it can save. One client on one kept-
alive connection. Every semantic hit has a text that was never sent before (more question marks), so
its vector is computed; a plain search of such a text, which costs mostly that vector, stands beside
it. A miss is compared with the same kind of question with the cache switched off. All are asked in
turns. Paraphrases and twins (one detail changed) were written by hand; two rules were changed after
what they showed, so none wrongly shared among them is no proof for other questions.

At the end many clients ask a question at once that nobody asked before: they share one run.

The full run also looks at all pairs among 1,000 questions on Chinese law, of which no two are the
same: a pair with different gold articles that would share an answer is a wrong one.
"""

from __future__ import annotations

import asyncio
import http.client
import itertools
import json
import statistics
import tempfile
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np

from bench.cache_questions import GROUPS
from bench.harness import ROOT, Result, Table, summary
from bench.law_corpus import Question, articles, fill, questions, vectors
from bench.running import Running, headrace_up
from headrace.app import application
from headrace.config.load import load
from headrace.pipeline.sameness import same_question

COLLECTION = "examples"
WARMUP = 20
BURST = 16
"""Clients that ask the same at once."""
SETTINGS = {"cache": {"answers": "semantic"}}


def run(quick: bool) -> Result:
    """1,000 hits of each kind and 200 pairs of misses; 200 and 30 with `quick`."""
    result = Result()
    with tempfile.TemporaryDirectory(prefix="headrace-bench-") as folder:
        asyncio.run(_prepare(Path(folder)))
        with headrace_up(Path(folder), SETTINGS) as running:
            client = Client(running)
            _hits(client, 200 if quick else 1000, result)
            _misses(client, 30 if quick else 200, result)
            _sameness(client, result)
            _bursts(running, 3 if quick else 20, result)
            _report(client, result)
    if not quick:
        with tempfile.TemporaryDirectory(prefix="headrace-bench-") as folder:
            asyncio.run(_pairs(Path(folder), result))
    return result


async def _prepare(data: Path) -> None:
    config = load().model_copy(update={"data_dir": data})
    async with application(config) as services:
        await services.jobs.run(COLLECTION, [ROOT / "examples" / "docs"])


class Client:
    """Asks, and says how long it took and where the answer came from (`""`: it was made)."""

    def __init__(self, running: Running) -> None:
        self._connection = http.client.HTTPConnection(running.address, timeout=120)

    def ask(self, question: str, *, cache: bool = True) -> tuple[float, str]:
        body = {
            "model": f"headrace/{COLLECTION}",
            "messages": [{"role": "user", "content": question}],
            "headrace": {"generate": "none", "cache": cache},
        }
        began = time.perf_counter()
        answer = self.call("POST", "/v1/chat/completions", body)
        seconds = time.perf_counter() - began
        found = answer["choices"][0]["message"]["headrace"]["cached"]
        return seconds, found["kind"] if found else ""

    def search(self, query: str) -> float:
        """Seconds of a plain search: the query's vector and the hits, nothing else."""
        began = time.perf_counter()
        self.call("POST", f"/api/collections/{COLLECTION}/search", {"query": query, "k": 5})
        return time.perf_counter() - began

    def call(self, method: str, path: str, body: object = None) -> Any:
        encoded = None if body is None else json.dumps(body)
        headers = {"Content-Type": "application/json"}
        self._connection.request(method, path, encoded, headers)
        response = self._connection.getresponse()
        raw = response.read()
        if response.status != 200:
            raise SystemExit(f"{path}: {response.status} {raw!r}")
        return json.loads(raw)


def _hits(client: Client, rounds: int, result: Result) -> None:
    known = [group.question for group in GROUPS]
    fresh = [client.ask(question, cache=False)[0] for question in known * 3]
    for question in known:
        client.ask(question)
    exact: list[float] = []
    semantic: list[float] = []
    searches: list[float] = []
    for turn in range(WARMUP + rounds):
        question = known[turn % len(known)]
        for times, text, kind in (
            (exact, question, "exact"),
            (semantic, _unseen(question, turn), "semantic"),
        ):
            seconds, came_from = client.ask(text)
            if came_from != kind:
                raise SystemExit(f"{text!r} was not a hit of the kind {kind}, but {came_from!r}")
            if turn >= WARMUP:
                times.append(seconds)
        searches.append(client.search(_unseen(question, turn) + "…"))
    rows = []
    sides = {"exact": exact, "semantic": semantic, "made": fresh, "a search": searches[WARMUP:]}
    for name, times in sides.items():
        ms = summary(times)
        rows.append((name, len(times), ms["p50"], ms["p90"], ms.get("p99", "")))
        result.add(f"{name.removeprefix('a ')}_p50_ms", ms["p50"])
        if "p99" in ms:
            result.add(f"{name.removeprefix('a ')}_p99_ms", ms["p99"])
    result.add("semantic_p50_ms", result.metrics["semantic_p50_ms"], "<=", 15.0)
    result.add("exact_p50_ms", result.metrics["exact_p50_ms"], "<=", 15.0)
    head = ("answer", "n", "p50", "p90", "p99")
    result.tables.append(Table("Milliseconds over HTTP", head, rows))
    ratio = result.metrics["semantic_p50_ms"] / result.metrics["search_p50_ms"]
    result.add("semantic_over_search", ratio)
    result.notes.append(f"the first {WARMUP} rounds warm up")


def _unseen(question: str, turn: int) -> str:
    """The same question in a text of its own."""
    marks = "？" if question.endswith("？") else "?"
    return f"{question}{marks * (turn % 40 + 1)}{' ' * (turn // 40)}{marks}"


def _misses(client: Client, rounds: int, result: Result) -> None:
    """Questions that name a provision which no other one names, so none is like another."""
    numbers = itertools.count(1000)

    def question() -> str:
        return f"第{next(numbers)}条对居住区夜间噪声是怎么规定的？"

    differences, on = [], []
    for turn in range(5 + rounds):
        plain, _ = client.ask(question(), cache=False)
        cached, came_from = client.ask(question())
        if came_from:
            raise SystemExit(f"a question about another provision was a {came_from} hit")
        if turn >= 5:
            differences.append((cached - plain) * 1e3)
            on.append(cached * 1e3)
    result.add("miss_p50_ms", statistics.median(on))
    result.add("miss_overhead_ms", statistics.median(differences))


def _sameness(client: Client, result: Result) -> None:
    """Every group's question is in the cache by now, and what misses is kept as well, so a twin is
    compared with all that came before it."""
    counts = {"paraphrases": [0, 0], "twins": [0, 0]}
    wrong = []
    for group in GROUPS:
        for kind, texts in (("paraphrases", group.paraphrases), ("twins", group.twins)):
            for text in texts:
                hit = bool(client.ask(text)[1])
                counts[kind][0] += hit
                counts[kind][1] += 1
                if hit and kind == "twins":
                    wrong.append((group.question, text))
    for kind, (hits, all_) in counts.items():
        result.add(f"{kind}_hit_rate", hits / all_)
        result.notes.append(f"{kind}: {hits} of {all_} hit")
    result.add("twins_hit_rate", result.metrics["twins_hit_rate"], "<=", 0.0)
    if wrong:
        result.tables.append(Table("Twins that hit", ("question", "twin"), wrong))


def _bursts(running: Running, rounds: int, result: Result) -> None:
    """One client asks a new question, then all at once another one; in turns. Numbers from 5000 on,
    which `_misses` does not reach, name the provisions."""
    clients = [Client(running) for _ in range(BURST)]
    alone, together, made = [], [], 0
    with ThreadPoolExecutor(BURST) as pool:
        for turn in range(rounds):
            texts = [f"第{5000 + 2 * turn + n}条对居住区夜间噪声是怎么规定的？" for n in range(2)]
            alone.append(clients[0].ask(texts[0])[0])
            answers = list(pool.map(lambda client, text=texts[1]: client.ask(text), clients))
            together.append(max(seconds for seconds, _ in answers))
            made += sum(kind == "" for _, kind in answers)
    result.add("burst_runs", made / rounds, "<=", 1.0)
    result.add("burst_over_one", statistics.median(together) / statistics.median(alone))
    result.notes.append(f"bursts: {BURST} clients ask the same at once, {rounds} times")


def _report(client: Client, result: Result) -> None:
    """What the server itself says."""
    caches = client.call("GET", "/admin/caches")["caches"]
    head = ("cache", "hits", "misses", "hit rate", "saved s", "entries", "KiB")
    rows = [
        (
            name,
            sum(state["hits"].values()),
            state["misses"],
            state["hit_rate"],
            state["saved_seconds"],
            state["entries"],
            state["bytes"] / 1024,
        )
        for name, state in caches.items()
    ]
    result.tables.append(Table("What the server reports", head, rows))


async def _pairs(data: Path, result: Result) -> None:
    config = load().model_copy(update={"data_dir": data})
    asked = questions()
    async with application(config) as services:
        embedder = config.defaults.embedder
        info = await services.models.info(embedder)
        index = services.collections.create("laws", embedder, info)
        await asyncio.to_thread(fill, index, articles(), vectors())
        batches = [await services.models.embed(embedder, [q.text], "query") for q in asked]
        cosines = np.concatenate(batches)
        cosines = cosines @ cosines.T
        near = list(_near(asked, cosines, config.cache.similarity))
        wrong = []
        for one, other in near:
            texts = asked[other].text, asked[one].text
            if same_question(*texts, index.snapshot().used):
                wrong.append((float(cosines[one, other]), asked[one].text, asked[other].text))
    result.add("law_pairs_above_similarity", len(near))
    result.add("law_pairs_wrong", len(wrong), "<=", 0)
    result.notes.append(
        f"{len(asked) * (len(asked) - 1) // 2} pairs of law questions: {len(near)} with different "
        f"gold are above the similarity in one or the other order, {len(wrong)} would share an "
        "answer"
    )
    if wrong:
        head = ("cosine", "known", "asked")
        result.tables.append(Table("Law questions that would share an answer", head, wrong))


def _near(
    asked: list[Question], cosines: np.ndarray[Any, np.dtype[np.float32]], least: float
) -> Iterator[tuple[int, int]]:
    """Both orders of every pair with different gold articles."""
    for one, other in np.argwhere(cosines >= least).tolist():
        if one != other and asked[one].gold != asked[other].gold:
            yield one, other
