"""What docs/architecture.md promises of the whole program."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent
PAGE = (ROOT / "docs" / "architecture.md").read_text(encoding="utf-8")
PACKAGE = ROOT / "src" / "headrace"
HEAVY = {"torch", "transformers", "onnxruntime", "onnx", "xllamacpp", "tokenizers"}


def test_every_part_has_its_sentence() -> None:
    parts = {
        path.name
        for path in PACKAGE.iterdir()
        if path.suffix == ".py" or (path / "__init__.py").exists()
    } - {"__init__.py", "__main__.py"}
    assert parts
    missing = {part for part in parts if f"| `{part}` |" not in PAGE}
    assert not missing


def test_every_file_it_names_is_there() -> None:
    named = set(re.findall(r"`((?:[a-z_]+/)+[a-z_]+\.py)`", PAGE))
    assert named
    missing = {
        name for name in named if not (PACKAGE / name).exists() and not (ROOT / name).exists()
    }
    assert not missing


@pytest.mark.parametrize("module", ["headrace.http.app", "headrace.app", "headrace.cli.server"])
def test_the_server_process_loads_no_model_library(module: str) -> None:
    code = (
        f"import sys, {module}; print(*sorted({{name.partition('.')[0] for name in sys.modules}}))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert not HEAVY & set(done.stdout.split())
