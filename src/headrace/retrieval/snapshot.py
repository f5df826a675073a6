"""One generation of a collection, ready to be searched, and who may see what of it."""

from __future__ import annotations

import math
from collections import Counter, OrderedDict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from threading import Lock
from typing import TypeAlias

import numpy as np
import numpy.typing as npt

from headrace.errors import BadRequest
from headrace.retrieval.analyze import references, tokens
from headrace.retrieval.base import Ranking, Scored
from headrace.retrieval.dense import DenseView, Mask
from headrace.retrieval.lexical import LexicalReader, own_name
from headrace.retrieval.rows import Embedder, chunk_ranges, document_numbers
from headrace.retrieval.store import Store
from headrace.types import Filter

_KEPT_FILTERS = 64
NAMED = 3
"""How much more a provision or identifier in a query counts than a word: who names article 44
wants article 44, and not others in which the other words of the question are frequent."""

FilterKey: TypeAlias = tuple[object, ...]


def mask_of(ranges: npt.NDArray[np.int64], size: int) -> Mask:
    """bool [size], true for every id within the inclusive ranges int64 [n, 2]."""
    steps = np.zeros(size + 1, np.int32)
    np.add.at(steps, ranges[:, 0], 1)
    np.add.at(steps, np.minimum(ranges[:, 1] + 1, size), -1)
    mask: Mask = np.cumsum(steps[:-1], dtype=np.int32) > 0
    return mask


@dataclass(frozen=True)
class Allowed:
    """What one filter lets through: bool by row of the dense base and of its delta, and by chunk
    id; `everything` if that is every chunk there is."""

    by_id: Mask
    base: Mask | None
    delta: Mask
    everything: bool


class CollectionSnapshot:
    """See `base.Snapshot`. Immutable but for its cache of masks."""

    def __init__(
        self,
        generation: int,
        embedder: Embedder,
        store: Store,
        dense: DenseView,
        lexical: Sequence[LexicalReader],
        live: Mask,
        starts: npt.NDArray[np.int64],
        *,
        inherited: Mapping[FilterKey, Mask],
    ) -> None:
        """`embedder`: whose vectors these are. `live`: bool by chunk id. `starts`: the first chunk
        id of every document, ascending. `lexical`: the readers that together hold all chunks.
        `inherited`: masks of an older snapshot, right but for what came and went since."""
        self.generation = generation
        self.embedder = embedder
        self.live = live
        self.dense = dense
        self._starts = starts
        self._store = store
        self._lexical = [reader for reader in lexical if reader.chunks]
        self._masks: OrderedDict[FilterKey, Allowed] = OrderedDict()
        self._inherited = dict(inherited)
        self._lock = Lock()

    def search_dense(self, vector: npt.NDArray[np.float32], k: int, where: Filter) -> list[Scored]:
        return self.nearest(vector, k, where).listed()

    def search_lexical(self, query: str, k: int, where: Filter) -> list[Scored]:
        return self.matching(query, k, where).listed()

    def nearest(self, vector: npt.NDArray[np.float32], k: int, where: Filter) -> Ranking:
        """What `search_dense` lists."""
        if vector.shape != (self.embedder.dimensions,):  # FAISS would read beyond its end
            raise BadRequest(
                f"a query vector of shape {vector.shape}; the index has vectors of "
                f"{self.embedder.dimensions} dimensions"
            )
        allowed = self.allowed(where)
        query = np.ascontiguousarray(vector, np.float32)
        return self.dense.search(query, k, allowed.base, allowed.delta)

    def matching(self, query: str, k: int, where: Filter) -> Ranking:
        """What `search_lexical` lists."""
        counts = Counter(tokens(query))
        if not counts:
            return Ranking.of(())
        for reference in references(query):
            counts[reference] *= NAMED
            counts[own_name(reference)] = counts[reference]
        allowed = self.allowed(where)
        condition = None if allowed.everything else where
        numbers: list[int] = []
        if where.documents:
            with self._store.db.reading() as db:
                numbers = document_numbers(db, where.documents)
        # What the index on disk still holds although it is deleted must not take the place of
        # what is there, so ask for more where it may.
        fresh = all(reader.generation == self.generation for reader in self._lexical)
        asked = k if fresh else 2 * k
        if fresh and len(self._lexical) == 1:
            return self._lexical[0].search(counts, asked, condition, numbers)
        found = [
            scored
            for reader in self._lexical
            for scored in reader.search(counts, asked, condition, numbers).listed()
            if scored.chunk_id < len(allowed.by_id) and allowed.by_id[scored.chunk_id]
        ]
        if len(self._lexical) > 1:
            best: dict[int, float] = {}
            for chunk_id, score in found:
                best[chunk_id] = max(score, best.get(chunk_id, 0.0))
            found = sorted((Scored(*item) for item in best.items()), key=lambda s: -s.score)
        return Ranking.of(found[:k])

    def documents(self, ids: npt.NDArray[np.int64]) -> npt.NDArray[np.int64]:
        """int64 [n]: a number for the document of each chunk, the same for chunks of the same."""
        return np.searchsorted(self._starts, ids, side="right")

    def rarity(self, wanted: Iterable[str]) -> dict[str, float]:
        chunks = sum(reader.chunks for reader in self._lexical)
        return {
            token: self._idf(chunks, sum(reader.frequency(token) for reader in self._lexical))
            for token in wanted
        }

    def used(self, wanted: Iterable[str]) -> frozenset[str]:
        """Those of the analyzer's tokens that some chunk has (or had, until files are merged)."""
        return frozenset(
            token
            for token in set(wanted)
            if any(reader.frequency(token) for reader in self._lexical)
        )

    @staticmethod
    def _idf(chunks: int, having: int) -> float:
        return math.log(1 + (max(chunks - having, 0) + 0.5) / (having + 0.5))

    def allowed(self, where: Filter) -> Allowed:
        """The masks of a filter, remembered for this generation."""
        key = _key(where)
        with self._lock:
            if key in self._masks:
                self._masks.move_to_end(key)
                return self._masks[key]
        allowed = self._compute(key, where)
        with self._lock:
            self._masks[key] = allowed
            if len(self._masks) > _KEPT_FILTERS:
                self._masks.popitem(last=False)
        return allowed

    def masks(self) -> dict[FilterKey, Mask]:
        """What the next snapshot inherits."""
        with self._lock:
            mine = {key: allowed.by_id for key, allowed in self._masks.items()}
            kept = list({**self._inherited, **mine}.items())[-_KEPT_FILTERS:]
        return dict(kept)

    def _compute(self, key: FilterKey, where: Filter) -> Allowed:
        if where.open:
            by_id = self.live
        else:
            by_id = np.zeros_like(self.live)
            known = self._inherited.get(key, by_id[:1])
            by_id[: len(known)] = known
            with self._store.db.reading() as db:
                ranges = chunk_ranges(db, where, after=len(known) - 1)
            newer = ranges[ranges[:, 0] < len(by_id)]  # what is newer than this snapshot is not
            by_id = (by_id | mask_of(newer, len(by_id))) & self.live
        base = self.dense.base
        return Allowed(
            by_id=by_id,
            base=None if base is None else by_id[base.ids],
            delta=by_id[self.dense.delta.ids],
            everything=bool(np.array_equal(by_id, self.live)),
        )


def _key(where: Filter) -> FilterKey:
    """Filters that allow the same have the same key."""
    access = None if "*" in where.access else where.access
    metadata = frozenset((key, frozenset(values)) for key, values in where.metadata.items())
    return access, metadata, frozenset(where.documents)
