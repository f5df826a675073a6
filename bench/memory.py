"""Memory of `headrace up` with 58,594 articles loaded and the default models in use.

Proportional set size, so that pages shared by several processes count once in the sum. Measured
after 50 searches and 3 answers over HTTP, with the articles' vectors given instead of computed.
"""

from __future__ import annotations

import asyncio
import os
import re
import signal
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import httpx

from bench.harness import Result, Table, tree_memory
from bench.law_corpus import articles, fill, questions, vectors
from headrace.app import application
from headrace.config.load import load

TARGET_MIB = 1536
SEARCHES = 50
ANSWERS = 3
COLLECTION = "laws"


def run(quick: bool) -> Result:
    """Start the server over a fresh data folder, use it, and add up its process tree."""
    asked = [question.text for question in questions()[: SEARCHES + ANSWERS]]
    with tempfile.TemporaryDirectory(prefix="headrace-bench-") as folder:
        data = Path(folder)
        count = asyncio.run(prepare(data, 6000 if quick else None))
        with server(data) as (process, url):
            use(url, asked)
            memory = tree_memory(process.pid)
    result = Result()
    result.add("pss_mib", sum(one.pss for one in memory), "<=", TARGET_MIB)
    result.add("unique_mib", sum(one.unique for one in memory))
    result.add("processes", len(memory))
    result.add("articles", count)
    rows = [(one.pid, _shorten(one.command), one.pss, one.unique) for one in memory]
    result.tables.append(Table("Processes", ("pid", "command", "PSS MiB", "own MiB"), rows))
    result.notes.append(f"{count} articles, {SEARCHES} searches, {ANSWERS} answers")
    result.notes.append("warm-up: none; every model is loaded by its first use")
    return result


async def prepare(data: Path, limit: int | None) -> int:
    """A collection of the first `limit` articles (all, if None); returns how many."""
    config = load().model_copy(update={"data_dir": data})
    found = articles()[:limit]
    async with application(config) as services:
        embedder = config.defaults.embedder
        info = await services.models.info(embedder)
        index = services.collections.create(COLLECTION, embedder, info)
        await asyncio.to_thread(fill, index, found, vectors())
    return len(found)


@contextmanager
def server(data: Path) -> Iterator[tuple[subprocess.Popen[str], str]]:
    """A running `headrace up` on a free port, and its URL."""
    environment = {**os.environ, "HEADRACE_DATA_DIR": str(data)}
    with subprocess.Popen(
        [sys.executable, "-m", "headrace", "up", "--port", "0"],
        env=environment,
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        text=True,
    ) as process:
        assert process.stdout is not None
        found = re.search(r"http://\S+", process.stdout.readline())
        assert found is not None, "the server did not start"
        try:
            yield process, found[0]
        finally:
            process.send_signal(signal.SIGTERM)
            process.wait(30)


def use(url: str, asked: list[str]) -> None:
    """Searches, then answers, then text from the generator itself: the default one writes no
    Chinese, and answers to these questions would leave it unloaded."""
    with httpx.Client(base_url=url, timeout=120) as client:

        def post(path: str, **body: object) -> None:
            client.post(path, json=body).raise_for_status()

        for question in asked[:SEARCHES]:
            post(f"/api/collections/{COLLECTION}/search", query=question, k=10)
        talks = [(f"headrace/{COLLECTION}", question) for question in asked[SEARCHES:]]
        talks.append((str(load().defaults.generator), "What is a law? " * 100))
        for model, text in talks:
            messages = [{"role": "user", "content": text}]
            post("/v1/chat/completions", model=model, messages=messages, max_tokens=64)


def _shorten(command: str) -> str:
    return command if len(command) <= 60 else "..." + command[-57:]
