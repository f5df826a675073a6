"""Answers that were given, by what they were given for. Holds; decides nothing about sameness."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass, field
from threading import Lock
from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from headrace.engines.base import Vectors
from headrace.retrieval.dense import products
from headrace.serving.bounded import Bounded
from headrace.telemetry import Metrics

NAME = "answers"
"""Of this cache, in the metrics."""


class State(NamedTuple):
    """A collection at one moment: the index as it is open here, its generation, and what was fitted
    for it (`calibration.fitted`)."""

    token: str
    generation: int
    fitted: str = ""


class Key(NamedTuple):
    """What an answer was given for. `scope` stands for everything but the question."""

    scope: bytes
    question: str


@dataclass(frozen=True)
class Kept:
    """`events` are encoded; `vector` is the question's, where it is known; `born` is a time of
    `time.monotonic()`; `ms` is what the answer took."""

    collection: str
    state: State
    events: bytes
    vector: Vectors | None
    ms: float
    born: float = field(default_factory=time.monotonic)

    @property
    def age(self) -> float:
        return time.monotonic() - self.born

    @property
    def size(self) -> int:
        """Bytes; a vector is there twice, here and among its neighbours."""
        return len(self.events) + (0 if self.vector is None else 2 * self.vector.nbytes)


class Near(NamedTuple):
    """A question of the same scope, and the cosine of its vector."""

    question: str
    similarity: float
    kept: Kept


class KeptAnswers:
    """Thread-safe."""

    def __init__(self) -> None:
        self._lock = Lock()
        self._entries: Bounded[Key, Kept] = Bounded(self._dropped)
        self._neighbours: dict[bytes, _Neighbours] = {}
        self._states: dict[str, State] = {}

    def __len__(self) -> int:
        return len(self._entries)

    @property
    def size(self) -> int:
        return self._entries.bytes

    def exact(self, key: Key, max_age: float) -> Kept | None:
        with self._lock:
            return self._fresh(key, max_age)

    def near(self, scope: bytes, vector: Vectors, least: float, max_age: float) -> list[Near]:
        """At most four kept answers whose questions' vectors have at least the cosine `least` with
        the L2-normalised `vector`, the nearest first."""
        with self._lock:
            neighbours = self._neighbours.get(scope)
            found = [] if neighbours is None else neighbours.search(vector, least, 4)
            return [
                Near(question, similarity, kept)
                for question, similarity in found
                if (kept := self._fresh(Key(scope, question), max_age)) is not None
            ]

    def keep(self, key: Key, kept: Kept, limit: int) -> None:
        """Let go of what was used longest ago, until all takes at most `limit` bytes."""
        with self._lock:
            size = kept.size + 2 * len(key.question.encode("utf-8", "surrogatepass"))
            if self._entries.put(key, kept, size, limit) and kept.vector is not None:
                neighbours = self._neighbours.setdefault(key.scope, _Neighbours(kept.vector))
                neighbours.add(key.question, kept.vector)

    def drop(self, key: Key) -> None:
        with self._lock:
            self._entries.drop(key)

    def drop_others(self, collection: str, state: State) -> None:
        """Free what was kept for another state of a collection; nobody can be given it any more."""
        if self._states.get(collection) != state:
            self._states[collection] = state
            self._drop_where(lambda kept: kept.collection == collection and kept.state != state)

    def drop_collection(self, collection: str) -> int:
        """How many answers there were."""
        return self._drop_where(lambda kept: kept.collection == collection)

    def clear(self) -> None:
        if self._entries.bytes:
            self._drop_where(lambda kept: True)

    def _drop_where(self, condition: Callable[[Kept], bool]) -> int:
        with self._lock:
            gone = [key for key, kept in self._entries.items() if condition(kept)]
            for key in gone:
                self._entries.drop(key)
        return len(gone)

    def _fresh(self, key: Key, max_age: float) -> Kept | None:
        kept = self._entries.get(key)
        if kept is None or kept.age <= max_age:
            return kept
        self._entries.drop(key)
        return None

    def _dropped(self, key: Key, kept: Kept) -> None:
        neighbours = self._neighbours.get(key.scope)
        if neighbours is not None and neighbours.remove(key.question):
            del self._neighbours[key.scope]

    def tell(self, metrics: Metrics) -> None:
        """How much there is now."""
        metrics.cache_bytes.labels(NAME).set(self._entries.bytes)
        metrics.cache_entries.labels(NAME).set(len(self._entries))


class _Neighbours:
    """The vectors of one scope's questions, in one array that grows by doubling."""

    def __init__(self, first: Vectors) -> None:
        self._rows: npt.NDArray[np.float32] = np.empty((1, *first.shape), np.float32)
        self._questions: list[str] = []

    def add(self, question: str, vector: Vectors) -> None:
        if len(self._questions) == len(self._rows):
            self._rows = np.concatenate([self._rows, np.empty_like(self._rows)])
        self._rows[len(self._questions)] = vector
        self._questions.append(question)

    def remove(self, question: str) -> bool:
        """Whether none is left. The last one takes its place."""
        if question in self._questions:
            place = self._questions.index(question)
            last = self._questions.pop()
            if last != question:
                self._questions[place] = last
                self._rows[place] = self._rows[len(self._questions)]
        return not self._questions

    def search(self, vector: Vectors, least: float, most: int) -> list[tuple[str, float]]:
        cosines = products(self._rows[: len(self._questions)], np.ascontiguousarray(vector))
        near = np.flatnonzero(cosines >= least)
        best = near[np.argsort(-cosines[near])][:most]
        return [(self._questions[i], float(cosines[i])) for i in best.tolist()]
