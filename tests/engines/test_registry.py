"""Engines are imported only when a worker asks for them."""

from __future__ import annotations

import subprocess
import sys

import pytest

from headrace.engines.registry import ENGINES, create
from headrace.errors import ConfigError

HEAVY = ("onnxruntime", "xllamacpp", "onnx", "tokenizers", "torch", "huggingface_hub", "unearth")


def test_the_registry_imports_no_engine() -> None:
    code = (
        "import sys, headrace.engines.registry, headrace.sources;"
        f"print([m for m in {HEAVY!r} if m in sys.modules],"
        " [m for m in sys.modules if m.startswith('headrace.engines.')])"
    )
    out = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert out.stdout.strip() == "[] ['headrace.engines.base', 'headrace.engines.registry']"


@pytest.mark.parametrize("name", sorted(ENGINES))
def test_every_line_of_the_registry_leads_to_an_engine(name: str) -> None:
    assert create(name).steps == 0


def test_unknown_engine_names_the_known_ones() -> None:
    with pytest.raises(ConfigError, match="echo, llamacpp, onnx, openai"):
        create("vllm")
