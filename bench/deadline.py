"""Answers in half of the usual time: how many come before their deadline, and what they leave out.

The default models behind `headrace up`, the example documents, over HTTP. First every question that
the generator answers is asked alone, without a deadline; the median is halved. Then 8 users ask at
once, each the next question as soon as it has its answer, with that deadline. The first round of
users warms up: the server does not know yet what it can do in that time.

A second run does the same with the questions that are answered by quotations alone (the default
generator does not write Chinese): there half of the usual time is little more than the search. It
has no target.
"""

from __future__ import annotations

import asyncio
import itertools
import subprocess
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

import httpx
from ruamel.yaml import YAML

from bench.harness import ROOT, Op, Result, Table, percentile
from bench.running import headrace_up
from headrace.serving.models import together

USERS = 8
LATE_MS = 50.0
COLLECTION = "examples"

STEPS = (
    ("generate: at most", "shorter answer"),
    ("generate: cut at", "cut off"),
    ("generate: given up", "generator given up"),
    ("generate: the question is in", ""),
    ("generate: cut short", ""),
    ("generate: ", "no generator"),
    ("prompt: ", "fewer passages read"),
    ("quote: chosen", "quotes by words"),
    ("quote: given up", "comparison given up"),
    ("quote: ", "fewer pieces compared"),
    ("embed: ", "search by words"),
)
"""How an entry of `skipped` begins, and its name in the table; none if no deadline caused it."""


class Answer(NamedTuple):
    """`ms` from sending the question to having the whole answer; `body` is empty if it failed."""

    question: str
    status: int
    ms: float
    body: dict[str, Any]

    @property
    def extension(self) -> dict[str, Any]:
        found: dict[str, Any] = self.body["choices"][0]["message"]["headrace"]
        return found


def run(quick: bool) -> Result:
    """`quick` asks 40 and 40 questions, the whole run 1,000 and 1,000."""
    with tempfile.TemporaryDirectory(prefix="headrace-bench-") as folder:
        _ingest(Path(folder))
        with headrace_up(Path(folder), {}) as server:
            return asyncio.run(_measure(server.url, quick))


def _ingest(folder: Path) -> None:
    config = folder / "ingest.yaml"
    config.write_text(f"data_dir: {folder}\n")
    documents = str(ROOT / "examples" / "docs")
    arguments = ("ingest", documents, "-C", COLLECTION, "--config", str(config))
    subprocess.run([sys.executable, "-m", "headrace", *arguments], check=True, capture_output=True)


def _questions(language: str) -> list[str]:
    """Those that the documents answer."""
    given = YAML(typ="safe", pure=True).load(ROOT / "examples" / "questions.yaml")
    return [
        str(entry["question"])
        for entry in given["questions"]
        if entry["language"] == language and entry.get("answerable", True)
    ]


async def _measure(url: str, quick: bool) -> Result:
    result = Result()
    limits = httpx.Limits(max_connections=USERS, max_keepalive_connections=USERS)
    async with httpx.AsyncClient(base_url=url, timeout=600, limits=limits) as client:
        for name, language in (("written", "en"), ("quoted", "zh")):
            await _one(client, _questions(language), name, 40 if quick else 1000, result)
    result.notes.append(
        f"{USERS} users in a closed loop on one connection each; the client runs on the same cores"
    )
    return result


async def _one(
    client: httpx.AsyncClient, questions: Sequence[str], name: str, count: int, result: Result
) -> None:
    await _ask(client, questions[0], None)
    idle = [await _ask(client, question, None) for question in questions]
    usual = percentile([answer.ms for answer in idle], 50)
    deadline = max(1, round(usual / 2))
    answers, seconds = await _users(client, questions, count, deadline)
    whole = {answer.question: answer for answer in idle}
    arrived = [a for a in answers if a.status == 200 and a.ms <= deadline + LATE_MS]
    told = [a for a in arrived if _told(a, whole[a.question])]
    main = name == "written"
    prefix = "" if main else f"{name}_"
    result.add(f"{prefix}idle_p50_ms", usual)
    result.add(f"{prefix}deadline_ms", deadline)
    result.add(f"{prefix}answers", len(answers))
    op: Op | None = ">=" if main else None
    result.add(f"{prefix}arrived_share", len(arrived) / len(answers), op, 0.99)
    result.add(f"{prefix}told_share", len(told) / max(1, len(arrived)), op, 1.0)
    late = [answer.ms - deadline for answer in answers]
    for percent in (50, 95, 99):
        result.add(f"{prefix}after_deadline_p{percent}_ms", percentile(late, percent))
    result.add(f"{prefix}answers_per_s", len(answers) / seconds)
    result.add(f"{prefix}failed", sum(answer.status != 200 for answer in answers))
    rows = Counter(step for answer in answers for step in _steps(answer))
    result.tables.append(
        Table(
            f"What {len(answers)} answers of {deadline} ms left out ({name})",
            ("step", "answers", "share"),
            [(step, times, times / len(answers)) for step, times in rows.most_common()],
        )
    )
    same = sum(_quoted(a) == _quoted(whole[a.question]) for a in arrived)
    some = sum(bool(_quoted(a)) for a in arrived)
    result.add(f"{prefix}same_quotes_share", same / max(1, len(arrived)))
    result.add(f"{prefix}with_quotes_share", some / max(1, len(arrived)))


async def _ask(client: httpx.AsyncClient, question: str, deadline: int | None) -> Answer:
    body: dict[str, Any] = {
        "model": f"headrace/{COLLECTION}",
        "messages": [{"role": "user", "content": question}],
    }
    if deadline is not None:
        body["deadline_ms"] = deadline
    began = time.perf_counter()
    response = await client.post("/v1/chat/completions", json=body)
    ms = 1000 * (time.perf_counter() - began)
    found = response.json() if response.status_code == 200 else {}
    return Answer(question, response.status_code, ms, found)


async def _users(
    client: httpx.AsyncClient, questions: Sequence[str], count: int, deadline: int
) -> tuple[list[Answer], float]:
    """The answers after each user's first one, and the seconds that they took together."""
    turns = itertools.cycle(questions)
    answers: list[Answer] = []

    async def user() -> None:
        await _ask(client, next(turns), deadline)
        while len(answers) < count:
            answers.append(await _ask(client, next(turns), deadline))

    began = time.perf_counter()
    await together(*(user() for _ in range(USERS)))
    return answers, time.perf_counter() - began


def _told(answer: Answer, whole: Answer) -> bool:
    """Whether it says what was left out for the deadline; one that needed to leave out nothing has
    written and quoted what the answer without a deadline did."""
    if set(answer.extension["skipped"]) - set(whole.extension["skipped"]):
        return True
    text = answer.body["choices"][0]["message"]["content"]
    return bool(text == whole.body["choices"][0]["message"]["content"])


def _steps(answer: Answer) -> set[str]:
    """What was left out, without its numbers."""
    if answer.status != 200:
        return {f"failed with {answer.status}"}
    said = answer.extension["skipped"]
    found = {next((name for start, name in STEPS if one.startswith(start)), "") for one in said}
    return found - {""} or {"nothing"}


def _quoted(answer: Answer) -> set[str]:
    return {quote["text"] for quote in answer.extension["quotes"]}
