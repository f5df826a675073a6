"""Whether a collection's search was fitted to the very questions that are asked of it."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

from headrace.errors import ConfigError
from headrace.evaluation.format import Question
from headrace.retrieval.embedded import EmbeddedIndex
from headrace.retrieval.ranker import digest


class Taught(NamedTuple):
    """How many of the questions the collection's ranker was fitted to, and what cross-validation
    found when it was."""

    known: int
    measured: dict[str, float]


def taught(index: EmbeddedIndex, questions: Sequence[Question]) -> Taught:
    """Blocks."""
    embedder = index.embedder()
    try:
        ranker = index.ranker.read(embedder.fingerprint, embedder.dimensions)
    except ConfigError:  # not used, and every search says so in its result
        ranker = None
    if ranker is None:
        return Taught(0, {})
    digests = frozenset(ranker.fitted.taught)
    known = sum(digest(question.text) in digests for question in questions)
    return Taught(known, ranker.fitted.measured)
