"""A small collection to write to, and documents for it."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import pytest

from headrace.engines.base import ModelInfo
from headrace.retrieval.base import NewChunk, chunk_key, embedding_text
from headrace.retrieval.collections import Collections
from headrace.retrieval.embedded import EmbeddedIndex
from headrace.types import Chunk, Document, Parsed, Role, Span

DIMENSIONS = 16
INFO = ModelInfo("toy", Role.EMBEDDER, "echo", "toy-1", DIMENSIONS)

Made = tuple[Document, list[NewChunk]]
Make = Callable[..., Made]


def unit(seed: int) -> np.ndarray[tuple[int], np.dtype[np.float32]]:
    """A unit vector of its own for every seed."""
    vector = np.random.default_rng(seed).normal(size=DIMENSIONS)
    return (vector / np.linalg.norm(vector)).astype(np.float32)


def make_document(
    name: str,
    texts: list[str],
    *,
    labels: tuple[str, ...] = ("public",),
    metadata: dict[str, str] | None = None,
    seed: int = 0,
) -> Made:
    """A document of one chunk per text; chunk i has the vector `unit(seed + i)`."""
    position, chunks = 0, []
    for i, text in enumerate(texts):
        chunk = Chunk(Span(position, position + len(text)), (f"title {name}",))
        key = chunk_key(f"toy-1 {seed + i}", embedding_text(chunk.path, text))
        chunks.append(NewChunk(chunk, key, unit(seed + i)))
        position += len(text) + 1
    parsed = Parsed("\n".join(texts), "text/plain", f"Title {name}")
    document = Document(
        id=name,
        source=f"{name}.txt",
        sha256="0" * 64,
        parsed=parsed,
        chunker="plain",
        labels=labels,
        metadata=metadata or {},
        added="2026-01-01T00:00:00+00:00",
    )
    return document, chunks


@pytest.fixture
def collections(tmp_path: Path) -> Iterator[Collections]:
    made = Collections(tmp_path / "collections")
    yield made
    made.close()


@pytest.fixture
def index(collections: Collections) -> EmbeddedIndex:
    return collections.create("laws", "toy", INFO)


@pytest.fixture
def make() -> Make:
    return make_document
