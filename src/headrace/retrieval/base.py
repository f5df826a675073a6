"""The index protocol. All methods block; callers run them in threads."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterable, Mapping, Sequence
from functools import partial
from typing import NamedTuple, Protocol

import msgspec
import numpy as np
import numpy.typing as npt

from headrace.types import Chunk, Document, Filter, Hit, Span


class Scored(NamedTuple):
    chunk_id: int
    score: float


def scored(ids: Iterable[int], scores: Iterable[float]) -> list[Scored]:
    """The two side by side, in half the time of the class's own constructor."""
    return list(map(_make_scored, zip(ids, scores, strict=True)))


_make_scored: Callable[[tuple[int, float]], Scored] = partial(tuple.__new__, Scored)


class Ranking(NamedTuple):
    """Chunks as a search works on them, best first: ids and scores side by side, each [n]. A query
    ranks some hundreds; one object for each of them would take most of its time."""

    ids: npt.NDArray[np.int64]
    scores: npt.NDArray[np.float64]

    @classmethod
    def of(cls, found: Sequence[Scored]) -> Ranking:
        ids, scores = zip(*found, strict=True) if found else ((), ())
        return cls(np.array(ids, np.int64), np.array(scores, np.float64))

    def listed(self) -> list[Scored]:
        return scored(self.ids.tolist(), self.scores.tolist())


class NewChunk(NamedTuple):
    """A chunk about to be stored. `key` identifies what was embedded (embedder fingerprint and
    text), so that an unchanged chunk keeps its vector; `vector` is float32 [dimensions]."""

    chunk: Chunk
    key: bytes
    vector: npt.NDArray[np.float32]


class DocumentInfo(NamedTuple):
    """A stored document without its text."""

    id: str
    source: str
    sha256: str
    title: str
    media_type: str
    chunker: str
    chunks: int
    characters: int
    labels: tuple[str, ...]
    metadata: dict[str, str]
    added: str


class RemovedDocument(msgspec.Struct, frozen=True):
    """A document that was deleted, with how many chunks: in the index that was in use, and in those
    beside it, by their name (`next`, being built; `previous`, kept for going back)."""

    id: str
    source: str
    chunks: int
    sides: dict[str, int]


class Removal(msgspec.Struct, frozen=True):
    """What a deletion did. `vectors` that nothing uses any more are gone too."""

    documents: tuple[RemovedDocument, ...]
    vectors: int
    generation_before: int
    generation: int


class Snapshot(Protocol):
    """The index as of one generation; stays usable while newer ones appear. What was deleted
    since is dropped by `Index.get`."""

    @property
    def generation(self) -> int: ...

    def search_dense(self, vector: npt.NDArray[np.float32], k: int, where: Filter) -> list[Scored]:
        """At most `k` chunks by cosine with the L2-normalised `vector`, best first."""

    def search_lexical(self, query: str, k: int, where: Filter) -> list[Scored]:
        """At most `k` chunks by BM25, best first; empty if the query has no token."""

    def rarity(self, wanted: Iterable[str]) -> dict[str, float]:
        """BM25's inverse document frequency of each of the analyzer's tokens, over the whole
        collection: high for a token that few chunks have, highest for one that none has."""


class Index(Protocol):
    """One collection's index. Every write is one transaction and returns the new generation."""

    def snapshot(self) -> Snapshot:
        """The newest generation, caught up with if another process wrote it."""

    def upsert(self, document: Document, chunks: Sequence[NewChunk]) -> int:
        """Store the document and its chunks in place of what had the same document id."""

    def delete(self, document_ids: Sequence[str]) -> int:
        """Remove documents; from the return on, no search gives them."""

    def search_dense(self, vector: npt.NDArray[np.float32], k: int, where: Filter) -> list[Scored]:
        """At most `k` chunks by cosine with the L2-normalised `vector`, best first."""

    def search_lexical(self, query: str, k: int, where: Filter) -> list[Scored]:
        """At most `k` chunks by BM25, best first; empty if the query has no token."""

    def get(self, scored: Mapping[int, Mapping[str, float]], where: Filter) -> list[Hit]:
        """Hits with texts for chunk ids, in the mapping's order; what was deleted since, or is
        not allowed by `where`, is left out. The values become `Hit.scores`."""

    def document(self, document_id: str) -> Document | None:
        """The whole document with its parsed text."""

    def documents(self) -> list[DocumentInfo]: ...

    def generation(self) -> int: ...

    def vectors(self, keys: Sequence[bytes]) -> dict[bytes, npt.NDArray[np.float32]]:
        """The vectors that are already known, stored or staged, by key."""

    def stage(self, vectors: Mapping[bytes, npt.NDArray[np.float32]]) -> None:
        """Keep vectors of a document that is not complete yet, so that a crash loses none."""


def embedding_text(path: Sequence[str], text: str) -> str:
    """What is embedded and indexed for a chunk: its title path, then its text. (On the law
    questions dense R@10 is .488 without the path, .535 with it.) A last title with which the
    text begins anyway is not repeated."""
    titles = path[:-1] if path and text.lstrip().startswith(path[-1]) else path
    return " ".join([*titles, text.strip()])


def chunk_key(fingerprint: str, text: str) -> bytes:
    """Identifies what was embedded: the embedder's fingerprint and the `embedding_text`."""
    return hashlib.blake2b(
        f"{fingerprint}\0{text}".encode("utf-8", "surrogatepass"), digest_size=16
    ).digest()


def span_text(document: Document, span: Span) -> str:
    return document.parsed.text[span.start : span.end]
