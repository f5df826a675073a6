"""What the README shows is run: its commands, its Python, its YAML."""

from __future__ import annotations

import os
import re
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import httpx
import pytest

from headrace.config.load import read_text

ROOT = Path(__file__).resolve().parent.parent
TEXT = (ROOT / "README.md").read_text(encoding="utf-8")


def blocks(language: str) -> list[str]:
    return re.findall(rf"^```{language}\n(.*?)^```", TEXT, flags=re.DOTALL | re.MULTILINE)


def command_lines() -> list[str]:
    lines = [
        line.partition("  #")[0].strip() for block in blocks("sh") for line in block.split("\n")
    ]
    return [line for line in lines if line]


def environment(folder: Path) -> dict[str, str]:
    return os.environ | {
        "HEADRACE_DATA_DIR": str(folder / "data"),
        "HEADRACE_PYTHON": sys.executable,
        "PATH": f"{Path(sys.executable).parent}:{os.environ['PATH']}",
    }


def test_the_commands_are_on_the_first_screen_and_few() -> None:
    assert len(command_lines()) == 10
    assert TEXT.index("headrace up &") < TEXT.index("## ")


def test_files_that_it_links_to_exist() -> None:
    links = re.findall(r"\]\(([^)#:]+)\)", TEXT)
    assert links
    assert [link for link in links if not (ROOT / link).exists()] == []


@pytest.mark.parametrize("text", blocks("yaml"))
def test_its_configuration_is_accepted(text: str) -> None:
    read_text(text, "README.md", ROOT)


@pytest.mark.slow
@pytest.mark.models
def test_make_demo_works(tmp_path: Path) -> None:
    assert command_lines()[:2] == ["make demo", ". .venv/bin/activate"]
    # the environment is the one that runs this test, so `make` must not make another
    done = subprocess.run(
        ["make", "--no-print-directory", "--old-file=.venv/stamp", "demo"],
        cwd=ROOT,
        env=environment(tmp_path),
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    assert done.stdout.count("$ headrace ask") == 3
    assert "Next, in this shell:" in done.stdout


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    (tmp_path / "examples").symlink_to(ROOT / "examples")
    return tmp_path


@pytest.fixture
def port() -> int:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        number: int = listener.getsockname()[1]
        return number


@pytest.fixture
def server(folder: Path, port: int) -> Iterator[subprocess.Popen[bytes]]:
    """`headrace up` over the collection that the other lines made, at a free port."""
    for line in command_lines()[2:-1]:
        done = subprocess.run(
            ["bash", "-c", line],
            cwd=folder,
            env=environment(folder),
            capture_output=True,
            check=False,
        )
        assert done.returncode == 0, f"{line}: {done.stderr.decode()}"
        assert done.stdout, line
    command = command_lines()[-1].removesuffix("&").split()
    with subprocess.Popen(
        [*command, "--port", str(port)], cwd=folder, env=environment(folder)
    ) as process:
        yield process
        process.send_signal(signal.SIGINT)
        assert process.wait(30) == 130


@pytest.mark.slow
@pytest.mark.models
def test_its_eight_lines_and_its_python_work(
    server: subprocess.Popen[bytes], folder: Path, port: int
) -> None:
    until = time.monotonic() + 60
    while time.monotonic() < until and server.poll() is None:
        try:
            httpx.get(f"http://127.0.0.1:{port}/healthz").raise_for_status()
            break
        except httpx.HTTPError:
            time.sleep(0.1)
    (code,) = blocks("python")
    done = subprocess.run(
        [sys.executable, "-c", code.replace("8017", str(port))],
        cwd=folder,
        env=environment(folder),
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    assert "[1]" in done.stdout
