"""How much the passages found speak for it that the documents answer a question.

`measures` takes a search result apart into a few numbers, each of which grows with support. Two
judges read them: the rule of `relevance`, which needs no calibration, and a weighted sum whose
weights were fitted to one collection (`calibration`).
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import msgspec

from headrace.pipeline import claims
from headrace.pipeline.evidence import Passage
from headrace.pipeline.language import language
from headrace.retrieval.base import Snapshot

FIRST = 5
"""Passages that are looked at, from the best on."""


class Measures(msgspec.Struct, frozen=True):
    """What speaks for support; 0 where a passage or a list is missing.

    `near`: the best cosine. `stands_out`: how far it lies above the mean of the others. `covered`:
    share of the question's terms, weighted by rarity, that one passage has; `joint`: that all of
    them together have. `words`: the best BM25 score in relation to the rarity of what was asked.
    `words_stand_out`: how far it lies above the others' mean, as a share. `agreed`: share of the
    passages that both searches found. `rerank`: the reranker's best score, and
    `rerank_stands_out` its distance from the others' mean. `foreign`: 1 if the nearest passage is
    in another language than the question: not support, but what the others must be read with.
    """

    near: float = 0.0
    stands_out: float = 0.0
    covered: float = 0.0
    joint: float = 0.0
    words: float = 0.0
    words_stand_out: float = 0.0
    agreed: float = 0.0
    rerank: float = 0.0
    rerank_stands_out: float = 0.0
    foreign: float = 0.0


NAMES = Measures.__struct_fields__


def measures(question: str, sources: Sequence[Passage], snapshot: Snapshot) -> Measures:
    """Of the first passages of a search. Terms count by their inverse document frequency, so a name
    that stands on every page proves nothing, and a word that the collection does not have at all
    counts most against it. Fused scores are not used: they are relative to the other candidates.
    Blocks."""
    looked_at = sources[:FIRST]
    if not looked_at:
        return Measures()
    rarity = snapshot.rarity(claims.terms(question))
    total = sum(rarity.values())

    def share(there: frozenset[str]) -> float:
        return sum(rarity[term] for term in rarity.keys() & there) / total if total else 0.0

    near, stands_out = _lead(looked_at, "dense")
    words, words_stand_out = _lead(looked_at, "lexical")
    rerank, rerank_stands_out = _lead(looked_at, "rerank")
    both = sum({"dense", "lexical"} <= passage.hit.scores.keys() for passage in looked_at)
    nearest = max(looked_at, key=lambda passage: passage.hit.scores.get("dense", -math.inf))
    return Measures(
        near=near,
        stands_out=stands_out,
        covered=max(share(passage.terms) for passage in looked_at),
        joint=share(frozenset[str]().union(*(passage.terms for passage in looked_at))),
        words=words / total if total else 0.0,
        words_stand_out=words_stand_out / words if words > 0 else 0.0,
        agreed=both / len(looked_at),
        rerank=rerank,
        rerank_stands_out=rerank_stands_out,
        foreign=float(language(nearest.hit.text) != language(question)),
    )


def _lead(sources: Sequence[Passage], stage: str) -> tuple[float, float]:
    """The best score of a stage, and how far it lies above the mean of the others."""
    scores = [p.hit.scores[stage] for p in sources if stage in p.hit.scores]
    if not scores:
        return 0.0, 0.0
    best = max(scores)
    others = (sum(scores) - best) / (len(scores) - 1) if len(scores) > 1 else best
    return best, best - others
