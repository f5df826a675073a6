"""Ctrl-C at any time: the exit status, no process left, nothing broken."""

from __future__ import annotations

import json
import os
import re
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import httpx
import psutil
import pytest

Headrace = Callable[..., subprocess.CompletedProcess[str]]
PATIENCE = 30


@contextmanager
def started(folder: Path, *arguments: str) -> Iterator[subprocess.Popen[str]]:
    """A `headrace` in a process group of its own, as a shell starts it."""
    kept = {key: value for key, value in os.environ.items() if not key.startswith("HEADRACE_")}
    with subprocess.Popen(
        [sys.executable, "-m", "headrace", *arguments],
        cwd=folder,
        env=kept,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        start_new_session=True,
    ) as process:
        try:
            yield process
        finally:
            if process.poll() is None:
                os.killpg(process.pid, signal.SIGKILL)


def wait_for(condition: Callable[[], bool]) -> None:
    until = time.monotonic() + PATIENCE
    while not condition():
        assert time.monotonic() < until, "it never happened"
        time.sleep(0.02)


def left(children: list[psutil.Process]) -> list[psutil.Process]:
    return list(psutil.wait_procs(children, timeout=PATIENCE)[1])


@pytest.fixture
def many(folder: Path) -> Path:
    for number in range(200):
        text = f"# Part {number}\n\nSentence {number} about the race.\n"
        (folder / "docs" / f"{number}.md").write_text(text, encoding="utf-8")
    return folder


@pytest.mark.slow
@pytest.mark.parametrize("group", [True, False], ids=["terminal", "process"])
def test_ingest_stops_and_the_next_run_completes_it(
    many: Path, headrace: Headrace, group: bool
) -> None:
    with started(many, "ingest", "docs", "-C", "slow") as process:
        store = many / "data" / "collections" / "slow"
        wait_for(store.exists)
        children = psutil.Process(process.pid).children(recursive=True)
        assert children, "the embedder has a process"
        if group:
            os.killpg(process.pid, signal.SIGINT)
        else:
            process.send_signal(signal.SIGINT)
        _, errors = process.communicate(timeout=PATIENCE)
    assert process.returncode == 130
    assert "Traceback" not in errors
    assert left(children) == []
    done = headrace("ingest", "docs", "-C", "slow", "--json")
    report = json.loads(done.stdout)["report"]
    assert report["added"] + report["unchanged"] == 201
    verified = json.loads(headrace("collections", "verify", "slow", "--json").stdout)
    assert verified["ok"]
    assert verified["documents"] == 201


@pytest.mark.slow
def test_ask_stops_while_its_models_load(folder: Path, headrace: Headrace) -> None:
    assert headrace("ingest", "docs", "-C", "slow").returncode == 0
    with started(folder, "ask", "Who keeps the keys?", "-C", "slow") as process:
        watched = psutil.Process(process.pid)
        wait_for(lambda: bool(watched.children(recursive=True)))
        children = watched.children(recursive=True)
        os.killpg(process.pid, signal.SIGINT)
        output, errors = process.communicate(timeout=PATIENCE)
    assert (process.returncode, output) == (130, "")
    assert "Traceback" not in errors
    assert left(children) == []


def test_output_that_has_no_room_is_an_error_without_a_traceback(folder: Path) -> None:
    with Path("/dev/full").open("w") as full:
        done = subprocess.run(
            [sys.executable, "-m", "headrace", "collections", "list"],
            cwd=folder,
            stdout=full,
            stderr=subprocess.PIPE,
            text=True,
            check=False,
        )
    assert done.returncode == 1
    assert done.stderr == "error: the output cannot be written: No space left on device\n"


def serving(process: subprocess.Popen[str]) -> str:
    assert process.stdout is not None
    line = process.stdout.readline()
    found = re.search(r"http://[\d.]+:\d+", line)
    assert found, line
    url = found[0]

    def ready() -> bool:
        try:
            return httpx.get(f"{url}/healthz").status_code == 200
        except httpx.TransportError:
            return False

    wait_for(ready)
    return url


@pytest.mark.slow
@pytest.mark.parametrize(
    ("number", "status"), [(signal.SIGINT, 130), (signal.SIGTERM, 0)], ids=["SIGINT", "SIGTERM"]
)
def test_the_server_ends_with_all_its_workers(
    folder: Path, headrace: Headrace, number: signal.Signals, status: int
) -> None:
    headrace("ingest", "docs")
    with started(folder, "up", "--port", "0") as process:
        url = serving(process)
        body = {"model": "vectors", "input": "a text"}
        assert httpx.post(f"{url}/v1/embeddings", json=body).status_code == 200
        children = psutil.Process(process.pid).children(recursive=True)
        assert children, "the embedder has a process"
        os.killpg(process.pid, number)
        _, errors = process.communicate(timeout=PATIENCE)
    assert process.returncode == status
    assert "Traceback" not in errors
    assert left(children) == []


@pytest.mark.slow
def test_the_server_loads_its_default_models_without_being_asked(folder: Path) -> None:
    with started(folder, "up", "--port", "0") as process:
        serving(process)
        server = psutil.Process(process.pid)
        wait_for(lambda: len(server.children()) == 2)
        process.send_signal(signal.SIGTERM)
        _, errors = process.communicate(timeout=PATIENCE)
    assert process.returncode == 0
    assert "Traceback" not in errors


@pytest.mark.slow
def test_a_port_in_use_is_told(folder: Path, headrace: Headrace) -> None:
    with started(folder, "up", "--port", "0") as process:
        url = serving(process)
        second = headrace("up", "--port", url.rpartition(":")[2])
        assert second.returncode == 2
        assert "cannot listen on 127.0.0.1 port" in second.stderr
        process.send_signal(signal.SIGTERM)
        process.communicate(timeout=PATIENCE)


@pytest.mark.slow
def test_strangers_are_warned_of(folder: Path) -> None:
    with started(folder, "up", "--port", "0", "--host", "0.0.0.0") as process:
        assert process.stderr is not None
        assert "whoever reaches this address" in process.stderr.readline()
        process.send_signal(signal.SIGTERM)
        process.communicate(timeout=PATIENCE)
