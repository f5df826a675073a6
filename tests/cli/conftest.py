"""The program as people start it: real processes, models of the `echo` engine."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import TypeAlias

import pytest

CONFIG = """\
data_dir: data
cache_dir: cache
models:
  talk: {role: generator, engine: echo}
  vectors: {role: embedder, engine: echo}
  slow: {role: embedder, engine: echo, source: delay=0.2}
defaults: {generator: talk, embedder: vectors}
collections:
  slow: {embedder: slow}
"""
DOCUMENT = """\
# Keys

The race keeper keeps the keys of the gates.

# Leave

Annual leave is 24 days. 年假为二十四天。
"""

Headrace: TypeAlias = Callable[..., subprocess.CompletedProcess[str]]


def make_folder(path: Path) -> Path:
    """A current folder with a configuration and one document."""
    (path / "headrace.yaml").write_text(CONFIG, encoding="utf-8")
    (path / "docs").mkdir()
    (path / "docs" / "handbook.md").write_text(DOCUMENT, encoding="utf-8")
    return path


def runner(path: Path) -> Headrace:
    """Runs `headrace ARGUMENTS` in a folder to its end."""

    def run(
        *arguments: str, env: Mapping[str, str] | None = None, stdin: str = ""
    ) -> subprocess.CompletedProcess[str]:
        kept = {key: value for key, value in os.environ.items() if not key.startswith("HEADRACE_")}
        return subprocess.run(
            [sys.executable, "-m", "headrace", *arguments],
            cwd=path,
            env=kept | dict(env or {}),
            input=stdin,
            capture_output=True,
            encoding="utf-8",
            check=False,
        )

    return run


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    return make_folder(tmp_path)


@pytest.fixture
def headrace(folder: Path) -> Headrace:
    return runner(folder)


@pytest.fixture(scope="module")
def filled_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder whose document is in the collection `default`; tests leave it as it is."""
    path = make_folder(tmp_path_factory.mktemp("filled"))
    done = runner(path)("ingest", "docs")
    assert done.returncode == 0, done.stderr
    return path


@pytest.fixture(scope="module")
def filled(filled_folder: Path) -> Headrace:
    return runner(filled_folder)
