"""SIGTERM under load: what runs has its time, then is told; the process ends by itself."""

from __future__ import annotations

import os
import re
import signal
import subprocess
import sys
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

import httpx
import pytest

CONFIG = """\
data_dir: data
cache_dir: cache
server: {{port: 0, shutdown_seconds: {seconds}}}
models:
  talk: {{role: generator, engine: echo, source: delay=0.1}}
  vectors: {{role: embedder, engine: echo}}
defaults: {{generator: talk, embedder: vectors}}
"""


class Up(NamedTuple):
    process: subprocess.Popen[str]
    url: str


@pytest.fixture
def up(tmp_path: Path, request: pytest.FixtureRequest) -> Iterator[Up]:
    (tmp_path / "headrace.yaml").write_text(CONFIG.format(seconds=request.param))
    kept = {key: value for key, value in os.environ.items() if not key.startswith("HEADRACE_")}
    with subprocess.Popen(
        [sys.executable, "-m", "headrace", "up"],
        cwd=tmp_path,
        env=kept,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        start_new_session=True,
    ) as process:
        try:
            assert process.stdout is not None
            found = re.search(r"http://\S+:\d+", process.stdout.readline())
            assert found is not None
            yield Up(process, found[0])
        finally:
            if process.poll() is None:
                os.killpg(process.pid, signal.SIGKILL)


def chat(words: int) -> dict[str, object]:
    text = " ".join(f"w{number}" for number in range(words))
    return {"model": "talk", "stream": True, "messages": [{"role": "user", "content": text}]}


class Reader(threading.Thread):
    """Reads one stream to its end; `begun` when its first word is there."""

    def __init__(self, url: str, words: int) -> None:
        super().__init__()
        self.begun = threading.Event()
        self.lines: list[str] = []
        self._url, self._words = url, words

    def run(self) -> None:
        path = f"{self._url}/v1/chat/completions"
        with httpx.stream("POST", path, json=chat(self._words), timeout=30) as response:
            for line in response.iter_lines():
                if line:
                    self.lines.append(line)
                if "w0" in line:
                    self.begun.set()


@pytest.mark.slow
@pytest.mark.parametrize(("up", "words"), [(20, 30), (4, 3000)], indirect=["up"])
def test_streams_finish_or_are_told(up: Up, words: int) -> None:
    reader = Reader(up.url, words)
    reader.start()
    assert reader.begun.wait(30)
    up.process.send_signal(signal.SIGTERM)
    refused = None
    while refused is None or refused.status_code == 200:  # until the signal has arrived
        refused = httpx.get(f"{up.url}/readyz")
    assert refused.status_code == 503
    assert httpx.get(f"{up.url}/v1/models").json()["error"]["code"] == "shutting_down"
    reader.join(30)
    if words < 100:  # they take 3 s
        assert reader.lines[-1] == "data: [DONE]"
    else:
        assert '"code":"shutting_down"' in reader.lines[-1]
    _, errors = up.process.communicate(timeout=30)
    assert up.process.returncode == 0
    assert "Traceback" not in errors
