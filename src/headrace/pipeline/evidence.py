"""Spans of the hits that support a sentence, or that answer a question."""

from __future__ import annotations

import itertools
import re
from collections.abc import Iterator, Sequence
from functools import cached_property
from typing import NamedTuple

from headrace.pipeline import claims
from headrace.pipeline.sentences import sentence_spans
from headrace.types import Hit, Span

WHOLE_CHUNK = 240
"""A chunk of at most this many characters is quoted whole: its sentences belong together."""

ALONE = 48
"""UTF-8 bytes from which a sentence can be judged without the question."""

_PRONOUN = re.compile(
    r"\W*(?:(?:it|they|this|that|these|those|he|she)\b|[它其这该此])", re.IGNORECASE
)


class Evidence(NamedTuple):
    """A span (in the document's parsed text) of hit number `hit`, and how well it fits, in
    [0, 1]."""

    hit: int
    span: Span
    score: float


class Passage:
    """A hit, cut into what can be quoted from it."""

    def __init__(self, index: int, hit: Hit) -> None:
        self.index = index
        self.hit = hit

    @cached_property
    def terms(self) -> frozenset[str]:
        """Terms of the text and of the title path over it."""
        return claims.terms(" ".join((*self.hit.path, self.hit.text)))

    @cached_property
    def facts(self) -> frozenset[str]:
        return claims.facts(" ".join((*self.hit.path, self.hit.text)))

    @cached_property
    def pieces(self) -> list[Span]:
        """Quotable ranges of the hit's own text: its sentences, or all of it if it is short."""
        sentences = sentence_spans(self.hit.text)
        if sentences and len(self.hit.text.strip()) <= WHOLE_CHUNK:
            return [Span(sentences[0].start, sentences[-1].end)]
        return sentences

    def in_document(self, piece: Span) -> Span:
        offset = self.hit.span.start
        return Span(offset + piece.start, offset + piece.end)


def passages(hits: Sequence[Hit]) -> list[Passage]:
    return [Passage(index, hit) for index, hit in enumerate(hits)]


def find_quotation(passage: Passage, text: str) -> Span | None:
    """Where `text` stands in the passage, to the character but for the amount of white space (a
    line may be broken where the quotation is not); as a span of the document."""
    words = r"\s+".join(map(re.escape, text.split()))
    found = re.search(words, passage.hit.text) if words else None
    return None if found is None else passage.in_document(Span(*found.span()))


def _windows(passage: Passage) -> Iterator[Span]:
    """Single pieces, then pairs of neighbours: a paraphrase often joins two sentences."""
    pieces = passage.pieces
    yield from pieces
    for left, right in itertools.pairwise(pieces):
        yield Span(left.start, right.end)


def leans(sentence: str) -> bool:
    """Whether a sentence means something only as the answer to its question: because it is short,
    or because its subject is a pronoun."""
    return len(sentence.encode("utf-8", "replace")) < ALONE or bool(_PRONOUN.match(sentence))


def best_support(passage: Passage, sentence: str, question: str) -> Evidence | None:
    """The range of the passage that covers the sentence's terms best, among those that hold all
    its facts and do not contradict it. `None` if no range does.

    Terms of the title path prove nothing about what stands under it, so they are not counted. A
    sentence that does not stand alone (`It is 2.`) is read as the answer to the question: its range
    must cover much of the question too, and may not join what stands side by side."""
    facts = claims.facts(sentence)
    path = " ".join(passage.hit.path)
    path_facts, path_terms = claims.facts(path), claims.terms(path)
    wanted = claims.terms(sentence) - path_terms
    leaning = leans(sentence)
    asked = claims.terms(question) - path_terms if leaning else frozenset()
    best: Evidence | None = None
    for window in passage.pieces if leaning else _windows(passage):
        text = window.of(passage.hit.text)
        if not facts <= claims.facts(text) | path_facts or claims.contradicts(sentence, text):
            continue
        there = claims.terms(text)
        score = claims.coverage(wanted, there) if wanted else float(bool(facts))
        if asked:
            score = min(score, claims.coverage(asked, there) + 0.2)
        if best is None or score > best.score + 0.05:
            best = Evidence(passage.index, passage.in_document(window), score)
    return best
