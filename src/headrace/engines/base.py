"""The engine contract. An engine runs one model inside a worker process.

`generate` is an async iterator; `embed`, `score` and `count` block and are called in a thread of
the worker. Batching across callers, limits, retry and tracing wrap this interface and are never
inside it. An engine raises `headrace.errors` types only.
"""

from __future__ import annotations

from collections.abc import AsyncGenerator, Callable, Sequence
from pathlib import Path
from typing import Any, TypeAlias

import msgspec
import numpy as np
import numpy.typing as npt

from headrace.errors import BadRequest
from headrace.types import Delta, EmbedKind, GenerateParams, Message, Role

Vectors: TypeAlias = npt.NDArray[np.float32]


class ModelSpec(msgspec.Struct, frozen=True):
    """What an engine needs to load a model; `options` are the model's fields of the
    configuration (`ModelOptions.model_dump(mode="json")`), `cache_dir` is where converted
    weights are kept."""

    name: str
    role: Role
    engine: str
    source: str
    cache_dir: str
    options: dict[str, Any] = {}

    @property
    def cache(self) -> Path:
        return Path(self.cache_dir)


class ModelInfo(msgspec.Struct, frozen=True):
    """What is known of a loaded model. `fingerprint` changes when its vectors would: it is part
    of a collection's identity. `dimensions` is 0 and `context` is 0 where they do not apply;
    `context` is the most tokens one request may have, prompt and answer together. `parallel` is
    how many calls of the blocking verbs compute at once, `slots` how many streams; 0: no bound.
    `gathers`: a few texts together cost hardly more than one alone, so while some are computed,
    others had better wait for each other than be computed one by one beside them."""

    name: str
    role: Role
    engine: str
    fingerprint: str = ""
    dimensions: int = 0
    context: int = 0
    parallel: int = 1
    slots: int = 0
    gathers: bool = False


class Engine:
    """Base of all engines: every verb refuses until a subclass has it.

    `parallel` is how many calls of the blocking verbs may run at once: 1 for an engine that
    computes with all its threads anyway, more for one that waits for another machine. `count` may
    be called beside them. `steps` grows while a call goes on, at least once in the model's
    `timeout_seconds`: a worker whose work makes no step for so long is taken for hung and killed.
    """

    parallel = 1
    steps = 0

    def load(self, spec: ModelSpec, device: str = "cpu") -> ModelInfo:
        """Read the weights to a device (`cpu`, `cuda:N`); blocks. May be called again after
        `unload`. Raises `SourceError`, `ModelFailed`, or `ConfigError` for a device that this
        engine, as it is installed, cannot use."""
        raise _lacks(self, "load")

    def unload(self) -> None:
        """Give back what `load` took."""

    def step(self) -> None:
        self.steps += 1

    def generate(
        self, messages: Sequence[Message], params: GenerateParams
    ) -> AsyncGenerator[Delta, None]:
        """Stream text; the last delta has `finish_reason` and `usage`. Closing the iterator
        stops the token loop. Raises `PromptTooLong`, `ModelFailed`."""
        raise _lacks(self, "generate")

    def embed(self, texts: Sequence[str], kind: EmbedKind) -> Vectors:
        """float32 [n, dimensions], L2-normalised. Longer texts are cut at the model's window."""
        raise _lacks(self, "embed")

    def score(self, query: str, texts: Sequence[str]) -> Vectors:
        """float32 [n]: relevance of each text to the query, higher is better."""
        raise _lacks(self, "score")

    def count(self, texts: Sequence[str]) -> list[int]:
        """Tokens of each text by the model's own tokenizer, special tokens left out."""
        raise _lacks(self, "count")


def _lacks(engine: Engine, verb: str) -> Exception:
    return BadRequest(f"engine {type(engine).__name__} cannot {verb}")


EngineFactory: TypeAlias = Callable[[], Engine]
