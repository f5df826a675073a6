"""What questions with known answers say of the passages of a new one.

People ask of the same few documents again and again, and of the same passages in other words: of
1,750 gold passages of 1,000 law questions, half stand in one law of 1,335. A ranker that was fitted
to a user's questions may remember them: their vectors, and by which passages they are answered.

Nothing here opens a door: passages that are brought in are filtered by what the caller may read,
like every other hit.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TypeAlias

import msgspec
import numpy as np
import numpy.typing as npt

Floats: TypeAlias = npt.NDArray[np.float32]
Ids: TypeAlias = npt.NDArray[np.int64]
Mask: TypeAlias = npt.NDArray[np.bool_]

NAMES = (
    "asked_document",  # logarithm of how many past questions the document answers
    "asked_passage",  # the same of the passage; of several passages, each counts in part
    "alike_passage",  # how near the nearest past question is that the passage answers
    "alike_document",  # the same of the document
    "alike_neighbour",  # the same of the chunks before and after
)
"""Nearness: standard deviations above the median cosine of all past questions, at least 0."""

NEAREST = 10
"""Past questions whose passages become candidates. On 1,000 law questions 5 bring in the gold
passage of 5.8 % of them that no search has found, 10 that of 6.7 %, and 20 that of 7.0 %."""

MAX_QUESTIONS = 10_000
"""Comparing a question of 384 dimensions with so many takes about 2 ms."""

MAX_PASSAGES = 1_000
"""Of one question."""


class PastQuestions(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """As they are kept: unit vectors, float16 little-endian [questions, dimensions], and for each
    question the keys (`base.chunk_key`) of the passages that answer it."""

    dimensions: int
    vectors: bytes
    passages: tuple[tuple[bytes, ...], ...]

    def problem(self) -> str:
        """Why they cannot be used; empty if they can."""
        count = len(self.passages)
        if not 1 <= count <= MAX_QUESTIONS:
            return f"{count} past questions; 1 to {MAX_QUESTIONS} are allowed"
        if self.dimensions < 1 or len(self.vectors) != 2 * self.dimensions * count:
            return "its past questions have vectors of another size than it says"
        if max(map(len, self.passages)) > MAX_PASSAGES:
            return f"a past question has more than {MAX_PASSAGES} passages"
        if not np.isfinite(self.unit_vectors()).all():
            return "a past question's vector holds what is not a finite number"
        return ""

    def unit_vectors(self) -> Floats:
        """float32 [questions, dimensions]."""
        found = np.frombuffer(self.vectors, "<f2").astype(np.float32)
        return found.reshape(len(self.passages), self.dimensions)


class Past:
    """Past questions with the places of their passages in one snapshot. Immutable."""

    def __init__(
        self, vectors: Floats, answers: Sequence[Sequence[int]], documents: Callable[[Ids], Ids]
    ) -> None:
        """`vectors` float32 [questions, dimensions]; `answers` are the ids of the chunks that
        answer each; `documents` numbers the documents of chunks."""
        self._vectors = vectors
        pairs = [(q, chunk) for q, chunks in enumerate(answers) for chunk in dict.fromkeys(chunks)]
        found = np.array(pairs, np.int64).reshape(-1, 2)
        counts = np.bincount(found[:, 0], minlength=len(vectors))
        self._asked_of, self._chunk = found[:, 0], found[:, 1]
        self._part = 1.0 / counts[self._asked_of]
        owners = np.unique(np.column_stack([self._asked_of, documents(self._chunk)]), axis=0)
        self._asked_of_document, self._document = owners[:, 0], owners[:, 1]
        self._passages, self._owners = _Table(self._chunk), _Table(self._document)
        self._documents_of = documents

    def nearness(self, vector: Floats, known: Mask | None = None) -> npt.NDArray[np.float64]:
        """float64 [questions]; 0 for those that are not `known`, bool [questions]. `vector`,
        float32 [dimensions], is the new question's."""
        cosines = np.einsum("qd,d->q", self._vectors, vector).astype(np.float64)
        counted = cosines if known is None else cosines[known]
        spread = counted.std() if len(counted) else 0.0
        if spread < 1e-6:
            return np.zeros(len(cosines))
        near = np.maximum((cosines - np.median(counted)) / spread, 0.0)
        return near if known is None else np.where(known, near, 0.0)

    def nearest(self, near: npt.NDArray[np.float64], count: int = NEAREST) -> Ids:
        """int64: the passages that answer the `count` nearest questions, each once, given what
        `nearness` says."""
        best = np.argsort(-near, kind="stable")[:count]
        return np.unique(self._chunk[np.isin(self._asked_of, best[near[best] > 0])])

    def rows(
        self,
        near: npt.NDArray[np.float64],
        ids: Ids,
        documents: Ids,
        known: Mask | None = None,
    ) -> Floats:
        """float32 [n, len(NAMES)] of candidates with the ids and document numbers int64 [n]."""
        every = np.ones(len(near), np.bool_) if known is None else known
        passages, owners = self._passages, self._owners
        asked_passage = passages.sums(self._part * every[self._asked_of])
        asked_document = owners.sums(every[self._asked_of_document].astype(np.float64))
        alike_passage = passages.greatest(near[self._asked_of])
        alike_document = owners.greatest(near[self._asked_of_document])
        beside = [
            np.where(
                self._documents_of(ids + step) == documents,
                passages.at(ids + step, alike_passage),
                0,
            )
            for step in (-1, 1)
        ]
        columns = {
            "asked_document": np.log1p(owners.at(documents, asked_document)),
            "asked_passage": np.log1p(passages.at(ids, asked_passage)),
            "alike_passage": passages.at(ids, alike_passage),
            "alike_document": owners.at(documents, alike_document),
            "alike_neighbour": np.maximum(*beside),
        }
        return np.column_stack([columns[name] for name in NAMES]).astype(np.float32)


class _Table:
    """Values by key, of keys that may come several times."""

    def __init__(self, keys: Ids) -> None:
        self._keys, self._which = np.unique(keys, return_inverse=True)

    def sums(self, values: npt.NDArray[np.float64]) -> npt.NDArray[np.float64]:
        return np.bincount(self._which, values, len(self._keys)).astype(np.float64)

    def greatest(self, values: npt.NDArray[np.float64]) -> npt.NDArray[np.float64]:
        found = np.zeros(len(self._keys))
        np.maximum.at(found, self._which, values)
        return found

    def at(self, wanted: Ids, values: npt.NDArray[np.float64]) -> npt.NDArray[np.float64]:
        """The values of the wanted keys; 0 for unknown ones."""
        if not len(self._keys):
            return np.zeros(len(wanted))
        place = np.minimum(np.searchsorted(self._keys, wanted), len(self._keys) - 1)
        return np.where(self._keys[place] == wanted, values[place], 0.0)
