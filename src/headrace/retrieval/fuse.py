"""Joining ranked lists. Pure functions.

Min-max normalisation and a convex sum follow Bruch, Gai and Ingber, "An Analysis of Fusion
Functions for Hybrid Retrieval" (2022); reciprocal ranks follow Cormack, Clarke and Buettcher
(2009). Measured on 1,000 law questions, 100 candidates each: convex R@10 .559, ranks .546.
"""

from __future__ import annotations

from collections.abc import Hashable, Iterable, Sequence
from typing import TypeVar

from headrace.config.options import RetrievalOptions
from headrace.retrieval.base import Scored

T = TypeVar("T")


def convex(dense: Sequence[Scored], lexical: Sequence[Scored], dense_weight: float) -> list[Scored]:
    """Weighted sum of the scores, each list scaled to [0, 1]; who is not in a list gets 0 of it,
    so lexical hits are only ever added."""
    sums: dict[int, float] = {}
    for found, weight in ((dense, dense_weight), (lexical, 1.0 - dense_weight)):
        scores = [score for _, score in found]
        low = min(scores, default=0.0)
        width = max(scores, default=0.0) - low
        for chunk_id, score in found:
            share = (score - low) / width if width > 0 else 1.0
            sums[chunk_id] = sums.get(chunk_id, 0.0) + weight * share
    return _ranked(sums)


def reciprocal_ranks(lists: Iterable[Sequence[Scored]], constant: int) -> list[Scored]:
    """Sum of 1 / (constant + rank) over the lists, ranks from 1."""
    sums: dict[int, float] = {}
    for found in lists:
        for rank, (chunk_id, _) in enumerate(found, 1):
            sums[chunk_id] = sums.get(chunk_id, 0.0) + 1.0 / (constant + rank)
    return _ranked(sums)


def fuse(
    dense: Sequence[Scored], lexical: Sequence[Scored], options: RetrievalOptions
) -> list[Scored]:
    """The two lists joined as configured, best first."""
    if options.fusion == "rrf":
        return reciprocal_ranks((dense, lexical), options.rrf_k)
    return convex(dense, lexical, options.dense_weight)


def distinct(items: Iterable[tuple[Hashable, T]], k: int) -> list[T]:
    """The first `k` items whose key was not seen before."""
    seen: set[Hashable] = set()
    kept: list[T] = []
    for key, item in items:
        if key not in seen:
            seen.add(key)
            kept.append(item)
            if len(kept) == k:
                break
    return kept


def _ranked(sums: dict[int, float]) -> list[Scored]:
    """Best first; of equals, the older chunk, so that results do not depend on chance."""
    return [Scored(*item) for item in sorted(sums.items(), key=lambda item: (-item[1], item[0]))]
