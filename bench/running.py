"""Programs that benchmarks measure from outside: `headrace up` and the baseline server."""

from __future__ import annotations

import asyncio
import json
import os
import re
import shutil
import signal
import struct
import subprocess
import sys
import urllib.error
import urllib.request
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from time import monotonic, sleep
from typing import Any

import numpy as np
import psutil

from bench.harness import ROOT
from bench.law_corpus import Article, articles, fill, vectors
from headrace import sources
from headrace.app import application
from headrace.config.load import load
from headrace.engines import e5_convert
from headrace.engines.e5_format import E5File

COLLECTION = "laws"
START_SECONDS = 120.0
STOP_SECONDS = 30.0


class Running:
    """A server in a process of its own, with all its descendants."""

    def __init__(self, process: subprocess.Popen[str], url: str) -> None:
        self.process = process
        self.url = url
        self.address = url.removeprefix("http://")

    def cpu(self) -> dict[str, float]:
        """CPU seconds so far of each live process of the tree: its pid and what it is."""
        found = {}
        for one, part in self._tree():
            with suppress(psutil.NoSuchProcess):
                times = one.cpu_times()
                found[f"{one.pid} {part}"] = times.user + times.system
        return found

    def resident_mib(self) -> float:
        """Resident memory of host and server processes in MiB: all but the workers'."""
        total = 0.0
        for one, part in self._tree():
            with suppress(psutil.NoSuchProcess):
                total += one.memory_info().rss / 2**20 if part in ("host", "server") else 0.0
        return total

    def _tree(self) -> list[tuple[psutil.Process, str]]:
        """Every live process and what it is."""
        root = psutil.Process(self.process.pid)
        found = []
        for child in root.children(recursive=True):
            with suppress(psutil.NoSuchProcess):
                found.append((child, _part(child.cmdline())))
        several = any(part == "server" for _, part in found)
        return [(root, "host" if several else "server"), *found]


def spent(before: Mapping[str, float], after: Mapping[str, float]) -> dict[str, float]:
    """CPU seconds between two readings, by what a process is: `server`, `worker`, ..."""
    sums: dict[str, float] = {}
    for key, seconds in after.items():
        part = key.partition(" ")[2]
        sums[part] = sums.get(part, 0.0) + seconds - before.get(key, 0.0)
    return sums


_PARTS = {
    "headrace.serving.launch": "worker",
    "headrace.cli.server_process": "server",
    "headrace.ingest.reader_child": "reader",
}


def _part(command: Sequence[str]) -> str:
    return next((part for module, part in _PARTS.items() if module in command), "other")


@contextmanager
def headrace_up(folder: Path, settings: Mapping[str, object]) -> Iterator[Running]:
    """`headrace up` on a free port with its data in `folder`, ready: its models are loaded.
    `settings` is the configuration; JSON is YAML, so it is written as that. Vectors of questions
    are not cached unless it says so: benchmarks ask the same ones over and over."""
    server = {"port": 0, **_section(settings, "server")}
    config = folder / "headrace.yaml"
    uncached = {"cache": {"embeddings_size": None}}
    whole = {"data_dir": str(folder), **uncached, **settings, "server": server}
    config.write_text(json.dumps(whole), encoding="utf-8")
    command = [sys.executable, "-m", "headrace", "up", "--config", str(config)]
    with _started(command, folder / "server.log") as running:
        _until_ready(running)
        yield running


def _section(settings: Mapping[str, object], name: str) -> Mapping[str, object]:
    found = settings.get(name, {})
    assert isinstance(found, Mapping)
    return found


def python_of_baseline() -> tuple[str, str]:
    """The interpreter of the baseline, and what encodes there: `torch` or `onnx`."""
    named = os.environ.get("HEADRACE_BASELINE_PYTHON")
    return (named, "torch") if named else (sys.executable, "onnx")


@contextmanager
def baseline_up(folder: Path, python: str, encoder: str) -> Iterator[Running]:
    """`bench/baselines/blocking_rag.py` under the interpreter `python`."""
    program = ROOT / "bench" / "baselines" / "blocking_rag.py"
    with _started([python, str(program), str(folder), encoder], folder / "server.log") as running:
        yield running


@contextmanager
def _started(command: Sequence[str], log: Path) -> Iterator[Running]:
    """Until the body ends; the program's first line of output names its URL."""
    with (
        log.open("w") as errors,
        subprocess.Popen(command, cwd=ROOT, stdout=subprocess.PIPE, stderr=errors, text=True) as up,
    ):
        try:
            assert up.stdout is not None
            found = re.search(r"http://[\w.:]+", up.stdout.readline())
            if found is None:
                raise SystemExit(f"{command} did not start:\n{log.read_text()[-2000:]}")
            yield Running(up, found[0].rstrip(":"))
        finally:
            up.send_signal(signal.SIGTERM)
            try:
                up.wait(STOP_SECONDS)
            except subprocess.TimeoutExpired:
                up.kill()


def _until_ready(running: Running) -> None:
    end = monotonic() + START_SECONDS
    while monotonic() < end:
        try:
            with urllib.request.urlopen(f"{running.url}/readyz", timeout=10) as response:
                if response.status == 200:
                    return
        except urllib.error.HTTPError as error:
            error.close()
        except OSError:
            if running.process.poll() is not None:
                break
        sleep(0.2)
    raise SystemExit(f"{running.url} is not ready after {START_SECONDS:.0f} s")


# What they serve -------------------------------------------------------------------------------


async def prepare(data: Path, limit: int | None) -> int:
    """A collection `laws` of the first `limit` articles (all, if None) with their given vectors,
    below the folder `data`; returns how many."""
    config = load().model_copy(update={"data_dir": data})
    found = articles()[:limit]
    async with application(config) as services:
        embedder = config.defaults.embedder
        info = await services.models.info(embedder)
        index = services.collections.create(COLLECTION, embedder, info)
        await asyncio.to_thread(fill, index, found, vectors())
    return len(found)


def ingest(data: Path, settings: Mapping[str, object], text: str, collection: str) -> None:
    """A collection made of one Markdown file by `headrace ingest`."""
    source, config = data / f"{collection}.md", data / "ingest.yaml"
    source.write_text(text, encoding="utf-8")
    config.write_text(json.dumps({**settings, "data_dir": str(data)}), encoding="utf-8")
    arguments = ("ingest", str(source), "--collection", collection, "--config", str(config))
    done = subprocess.run(
        [sys.executable, "-m", "headrace", *arguments],
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=False,
    )
    if done.returncode:
        raise SystemExit(f"headrace ingest failed:\n{done.stdout}\n{done.stderr}")


def prepare_baseline(folder: Path, limit: int | None) -> None:
    """The same articles and vectors, and the same embedder's weights in float32: as an ONNX file,
    and as a folder that sentence-transformers loads."""
    folder.mkdir(parents=True)
    found: list[Article] = articles()[:limit]
    np.save(folder / "vectors.npy", vectors()[: len(found)])
    texts = [f"{article.law} {article.name} {article.text}" for article in found]
    (folder / "texts.json").write_text(json.dumps(texts, ensure_ascii=False), encoding="utf-8")
    config = load()
    source = config.models[config.defaults.embedder].source
    weights = sources.resolve(source, cache_dir=config.cache_dir, sha256=None)
    onnx = e5_convert.converted(weights, config.cache_dir, "float32")
    for file in ("model.onnx", "model.onnx_data", "tokenizer.json"):
        shutil.copyfile(onnx / file, folder / file)
    _write_transformer(E5File(weights), folder)


def _write_transformer(weights: E5File, folder: Path) -> None:
    """`config.json`, `tokenizer_config.json` and `model.safetensors` of a BERT encoder."""
    shape = weights.shape
    config = {
        "model_type": "bert",
        "architectures": ["BertModel"],
        "vocab_size": shape.vocabulary,
        "hidden_size": shape.hidden,
        "num_hidden_layers": shape.layers,
        "num_attention_heads": shape.heads,
        "intermediate_size": shape.feed_forward,
        "max_position_embeddings": shape.positions,
        "type_vocab_size": shape.types,
        "layer_norm_eps": shape.epsilon,
        "pad_token_id": weights.pad,
    }
    (folder / "config.json").write_text(json.dumps(config))
    special = {
        name: weights.pieces[number][0]
        for name, number in (("pad_token", weights.pad), ("unk_token", weights.unk))
    }
    described = {"tokenizer_class": "PreTrainedTokenizerFast", "model_max_length": 512, **special}
    (folder / "tokenizer_config.json").write_text(json.dumps(described))
    header: dict[str, Any] = {}
    blobs = []
    end = 0
    for name, tensor in _tensors(weights):
        blob = np.ascontiguousarray(tensor, "<f4").tobytes()
        offsets = [end, end := end + len(blob)]
        header[name] = {"dtype": "F32", "shape": list(tensor.shape), "data_offsets": offsets}
        blobs.append(blob)
    text = json.dumps(header).encode()
    with (folder / "model.safetensors").open("wb") as file:
        file.write(struct.pack("<Q", len(text)) + text)
        file.writelines(blobs)


def _tensors(weights: E5File) -> Iterator[tuple[str, Any]]:
    """Every tensor under the name that transformers' BertModel gives it."""
    shape = weights.shape
    hidden, inner = shape.hidden, shape.feed_forward
    yield (
        "embeddings.word_embeddings.weight",
        weights.tensor("emb.word", shape.vocabulary, hidden),
    )
    yield (
        "embeddings.position_embeddings.weight",
        weights.tensor("emb.pos", shape.positions, hidden),
    )
    yield (
        "embeddings.token_type_embeddings.weight",
        weights.tensor("emb.type", shape.types, hidden),
    )
    norms = [("embeddings.LayerNorm", "emb.ln")]
    linears = []
    for i in range(shape.layers):
        at = f"encoder.layer.{i}"
        norms += [(f"{at}.attention.output.LayerNorm", f"l{i}.aln")]
        norms += [(f"{at}.output.LayerNorm", f"l{i}.oln")]
        for theirs, ours in (("query", "q"), ("key", "k"), ("value", "v")):
            linears.append((f"{at}.attention.self.{theirs}", f"l{i}.{ours}", hidden, hidden))
        linears.append((f"{at}.attention.output.dense", f"l{i}.ao", hidden, hidden))
        linears.append((f"{at}.intermediate.dense", f"l{i}.fi", inner, hidden))
        linears.append((f"{at}.output.dense", f"l{i}.fo", hidden, inner))
    for theirs, ours in norms:
        yield f"{theirs}.weight", weights.tensor(f"{ours}.w", hidden)
        yield f"{theirs}.bias", weights.tensor(f"{ours}.b", hidden)
    for theirs, ours, rows, columns in linears:
        yield f"{theirs}.weight", weights.tensor(f"{ours}.w", rows, columns)
        yield f"{theirs}.bias", weights.tensor(f"{ours}.b", rows)
