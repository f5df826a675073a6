"""GGUF embedding: any GGUF model gives vectors; the default generator stands in for an embedder."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

CODE = """
import sys
import numpy as np
from headrace.config.model_options import default_models
from headrace.engines.base import ModelSpec
from headrace.engines.llamacpp import LlamaCppEngine
from headrace.types import Role
source = default_models()["smollm2"].source
options = {"threads": 2, "max_tokens": 64, "slots": 2, "pooling": "mean", "query_prefix": "q: "}
engine = LlamaCppEngine()
info = engine.load(ModelSpec("e", Role.EMBEDDER, "llamacpp", source, sys.argv[1], options))
assert info.dimensions == 576 and info.context == 64, info
texts = ["a dog on a leash", "the dog and its leash", "corporate income tax", "word " * 500, ""]
vectors = engine.embed(texts, "passage")
assert vectors.shape == (5, 576) and vectors.dtype == np.float32
np.testing.assert_allclose(np.linalg.norm(vectors, axis=1), 1.0, rtol=1e-4)
assert vectors[0] @ vectors[1] > vectors[0] @ vectors[2]
query = engine.embed(["a dog on a leash"], "query")[0]
same = engine.embed(["q: a dog on a leash"], "passage")[0]
np.testing.assert_allclose(query, same, atol=1e-3)
assert engine.embed([], "query").shape == (0, 576)
engine.unload()
print("done")
"""


@pytest.mark.models
@pytest.mark.slow
def test_vectors_of_a_gguf_model(model_cache: Path) -> None:
    """In a process of its own, as the server runs it."""
    command = [sys.executable, "-W", "error", "-c", CODE, str(model_cache)]
    done = subprocess.run(command, capture_output=True, text=True, timeout=120)
    assert done.stdout.strip() == "done", done.stderr
