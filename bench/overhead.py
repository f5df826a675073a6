"""What pipeline and HTTP add to a request: a real server with `echo` engines, one client.

Everything but the models is real: `headrace up` in a process of its own with a worker process per
model, a collection of 600 articles, HTTP over loopback on one kept-alive connection. The engines
compute next to nothing, so what is measured is everything around them. Streams are timed to their
first event with text.
"""

from __future__ import annotations

import http.client
import json
import shutil
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

from bench.harness import ROOT, Result, Table, percentile, summary

ARTICLES = 600
WARMUP = 50
TARGET_MS = 5.0

CONFIG = """
data_dir: {folder}/data
cache_dir: {folder}/cache
server: {{port: {port}}}
models:
  generator: {{role: generator, engine: echo}}
  embedder: {{role: embedder, engine: echo}}
defaults: {{generator: generator, embedder: embedder}}
cache: {{embeddings_size: null}}
"""

_TOPICS = ("market", "harbour", "library", "school", "bridge", "tram", "garden", "museum")


def run(quick: bool) -> Result:
    """1,000 requests of each kind, in turns; 200 with `quick`."""
    rounds = 200 if quick else 1000
    folder = Path(tempfile.mkdtemp(prefix="headrace-overhead-"))
    try:
        config = _prepare(folder)
        with _server(config) as port:
            return _measure(port, rounds)
    finally:
        shutil.rmtree(folder, ignore_errors=True)


def _prepare(folder: Path) -> Path:
    """A configuration and a collection `bench` of synthetic articles."""
    config = folder / "headrace.yaml"
    config.write_text(CONFIG.format(folder=folder, port=_free_port()), encoding="utf-8")
    lines = ["# Rules of the town\n"]
    for number in range(1, ARTICLES + 1):
        topic = _TOPICS[number % len(_TOPICS)]
        lines.append(
            f"\nArticle {number}\n\nThe {topic} number {number} opens at {number % 12 + 1} in the "
            f"morning. Visitors of the {topic} pay {number} francs. Dogs stay outside.\n"
        )
    source = folder / "rules.md"
    source.write_text("".join(lines), encoding="utf-8")
    _headrace("ingest", str(source), "--collection", "bench", "--config", str(config))
    return config


def _headrace(*arguments: str) -> None:
    done = subprocess.run(
        [sys.executable, "-m", "headrace", *arguments],
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=False,
    )
    if done.returncode:
        raise SystemExit(f"headrace {arguments[0]} failed:\n{done.stdout}\n{done.stderr}")


def _free_port() -> int:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        port: int = listener.getsockname()[1]
        return port


@contextmanager
def _server(config: Path) -> Iterator[int]:
    port = int(config.read_text(encoding="utf-8").split("port: ")[1].split("}")[0])
    command = [sys.executable, "-m", "headrace", "up", "--config", str(config)]
    process = subprocess.Popen(
        command, cwd=ROOT, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
    )
    try:
        _wait(port, process)
        yield port
    finally:
        process.terminate()
        process.wait(30)


def _wait(port: int, process: subprocess.Popen[bytes]) -> None:
    for _ in range(300):
        if process.poll() is not None:
            raise SystemExit(f"headrace up ended with {process.returncode}")
        try:
            connection = http.client.HTTPConnection("127.0.0.1", port, timeout=5)
            connection.request("GET", "/readyz")
            if connection.getresponse().status == 200:
                return
        except OSError:
            time.sleep(0.1)
    raise SystemExit("headrace up did not become ready within 30 s")


class Client:
    """One kept-alive connection; the standard library's client adds about 0.2 ms."""

    def __init__(self, port: int) -> None:
        self._connection = http.client.HTTPConnection("127.0.0.1", port, timeout=60)
        self._turn = 0
        self.stages: dict[str, list[float]] = {}

    def _question(self) -> str:
        self._turn += 1
        number = self._turn * 7 % ARTICLES + 1
        return f"When does the {_TOPICS[number % len(_TOPICS)]} number {number} open?"

    def _post(self, model: str, stream: bool) -> http.client.HTTPResponse:
        messages = [{"role": "user", "content": self._question()}]
        body = json.dumps({"model": model, "messages": messages, "stream": stream})
        headers = {"Content-Type": "application/json"}
        self._connection.request("POST", "/v1/chat/completions", body, headers)
        response = self._connection.getresponse()
        if response.status != 200:
            raise SystemExit(f"{model}: {response.status} {response.read()!r}")
        return response

    def whole(self, model: str) -> float:
        """Seconds to the whole answer."""
        began = time.perf_counter()
        answer = json.loads(self._post(model, stream=False).read())
        took = time.perf_counter() - began
        extension = answer["choices"][0]["message"].get("headrace")
        if extension is not None:
            if extension["refusal"]:
                raise SystemExit("the answer is a refusal: nothing was measured")
            for stage, ms in extension["timings"].items():
                self.stages.setdefault(stage, []).append(ms)
        return took

    def first_text(self, model: str) -> float:
        """Seconds to the first event of a stream that has text."""
        began = time.perf_counter()
        response = self._post(model, stream=True)
        took = 0.0
        for line in response:
            if not took and line.startswith(b"data: {"):
                choices = json.loads(line[6:])["choices"]
                if choices and choices[0]["delta"].get("content"):
                    took = time.perf_counter() - began
        return took

    def health(self) -> float:
        """Seconds for a request that does nothing: the floor."""
        began = time.perf_counter()
        self._connection.request("GET", "/healthz")
        self._connection.getresponse().read()
        return time.perf_counter() - began


def _measure(port: int, rounds: int) -> Result:
    client = Client(port)
    kinds: dict[str, Callable[[], float]] = {
        "cited": lambda: client.whole("headrace/bench"),
        "cited_stream": lambda: client.first_text("headrace/bench"),
        "plain": lambda: client.whole("generator"),
        "plain_stream": lambda: client.first_text("generator"),
        "health": client.health,
    }
    times: dict[str, list[float]] = {name: [] for name in kinds}
    for turn in range(WARMUP + rounds):
        for name, kind in kinds.items():
            seconds = kind()
            if turn >= WARMUP:
                times[name].append(seconds)
    result = Result()
    rows = []
    for name, seconds_of in times.items():
        found = summary(seconds_of)
        for key in ("p50", "p99"):
            if key in found:
                judged = key == "p50" and name.startswith("cited")
                result.add(f"{name}_{key}_ms", found[key], *(("<=", TARGET_MS) if judged else ()))
        rows.append([name, *(round(found.get(key, float("nan")), 2) for key in _COLUMNS)])
    result.tables.append(Table("milliseconds per request", ("kind", *_COLUMNS), rows))
    stages = [
        (stage, round(percentile(values, 50), 2), round(percentile(values, 90), 2))
        for stage, values in client.stages.items()
    ]
    result.tables.append(Table("milliseconds inside: cited", ("stage", "p50", "p90"), stages))
    result.notes.append(
        f"{rounds} requests of each kind in turns after {WARMUP} to warm up, one at a time over "
        f"one connection; {ARTICLES} articles; streams to the first event with text"
    )
    return result


_COLUMNS = ("p50", "p90", "p99", "mean")
