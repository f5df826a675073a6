"""Quotations: choosing the spans that answer a question, numbering and proving them."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TypeAlias

import numpy as np

from headrace.pipeline import claims
from headrace.pipeline.evidence import Evidence, Passage
from headrace.pipeline.quotable import asked_for, quotable, whole
from headrace.retrieval.base import Index
from headrace.serving.models import Models, both
from headrace.types import USER, Call, Document, Quote, Span

CANDIDATES = 24
"""Pieces compared with the question by the embedder: one batch of it."""

Candidate: TypeAlias = tuple[float, Evidence, str]
"""A span that may be quoted: the mean of its coverage and its passage's rank, where, its text."""


class Quotations:
    """The quotes of one answer. A span gets one number, however often it is cited."""

    def __init__(self, index: Index, sources: Sequence[Passage]) -> None:
        self._index = index
        self._sources = sources
        self._documents: dict[str, Document | None] = {}
        self._numbers: dict[tuple[str, Span], Quote] = {}

    def cite(self, evidence: Evidence) -> tuple[Quote, bool] | None:
        """The quote for a span, and whether it is new. `None` if the document, as it is stored
        now, does not hold the same text there: it was changed or deleted since the search.
        Blocks."""
        hit = self._sources[evidence.hit].hit
        key = (hit.document_id, evidence.span)
        if key in self._numbers:
            return self._numbers[key], False
        text = Span(evidence.span.start - hit.span.start, evidence.span.end - hit.span.start).of(
            hit.text
        )
        if hit.document_id not in self._documents:
            self._documents[hit.document_id] = self._index.document(hit.document_id)
        stored = self._documents[hit.document_id]
        if stored is None or evidence.span.of(stored.parsed.text) != text:
            return None
        quote = Quote(
            number=len(self._numbers) + 1,
            document_id=hit.document_id,
            source=hit.source,
            title=hit.title,
            path=hit.path,
            span=evidence.span,
            text=text,
            page=_page(stored, evidence.span),
        )
        self._numbers[key] = quote
        return quote, True


def _page(document: Document, span: Span) -> int | None:
    """The page on which the span starts."""
    for page in document.parsed.pages:
        if page.span.start <= span.start < page.span.end:
            return page.number
    return None


async def choose(
    models: Models,
    embedder: str,
    question: str,
    found: Sequence[Candidate],
    sources: Sequence[Passage],
    limit: int,
    *,
    call: Call = USER,
) -> list[Evidence]:
    """The at most `limit` of the `found` candidates that answer the question best, best first.

    A span's score is the mean of three values in [0, 1]: how much of the question's terms it
    covers, how similar its vector is to the question's (relative to the other candidates), and
    how high its chunk was ranked. Spans much worse than the best are left out, and so is what
    overlaps a better one.
    """
    if not found:
        return []
    query, pieces = await both(
        models.embed(embedder, [question], "query", call=call),
        models.embed(embedder, [text for _, _, text in found], "passage", call=call),
    )
    cosines = pieces @ query[0]
    spread = float(np.ptp(cosines)) or 1.0
    near = (cosines - cosines.min()) / spread
    scored = sorted(
        (
            evidence._replace(score=(2 * score + float(value)) / 3)
            for (score, evidence, _), value in zip(found, near, strict=True)
        ),
        key=lambda evidence: -evidence.score,
    )
    return _best(scored, sources, limit)


def by_words(found: Sequence[Candidate], sources: Sequence[Passage], limit: int) -> list[Evidence]:
    """The same without the vectors: no model is asked."""
    return _best([evidence._replace(score=score) for score, evidence, _ in found], sources, limit)


def candidates(question: str, sources: Sequence[Passage]) -> list[Candidate]:
    """The at most `CANDIDATES` spans that may be quoted, best first, each text once. Where the
    question names a provision, and a passage is that provision, nothing else is quoted. Takes some
    milliseconds of CPU."""
    named = [passage for passage in sources if asked_for(passage, question)]
    return _candidates(named or sources, question, len(sources), bool(named))


def _best(scored: Sequence[Evidence], sources: Sequence[Passage], limit: int) -> list[Evidence]:
    best: list[Evidence] = []
    for evidence in scored:
        if len(best) == limit or evidence.score < 0.75 * scored[0].score:
            break
        if not any(_overlap(evidence, better, sources) for better in best):
            best.append(evidence)
    return best


def _candidates(
    passages: Sequence[Passage], question: str, ranks: int, named: bool
) -> list[Candidate]:
    """Spans with the mean of their coverage and their passage's rank, best first."""
    wanted = claims.terms(question)
    found: list[Candidate] = []
    for passage in passages:
        rank = 1.0 - passage.index / max(ranks, 1)
        path = claims.terms(" ".join(passage.hit.path))
        section = whole(passage, question) if named else None
        for piece in quotable(passage) if section is None else [section]:
            text = piece.of(passage.hit.text)
            covered = claims.coverage(wanted, claims.terms(text) | path)
            evidence = Evidence(passage.index, passage.in_document(piece), covered)
            found.append(((covered + rank) / 2, evidence, text))
    found.sort(key=lambda item: -item[0])
    return _distinct(found)[:CANDIDATES]


def _overlap(one: Evidence, other: Evidence, sources: Sequence[Passage]) -> bool:
    """Whether two spans share characters of one document."""
    same = sources[one.hit].hit.document_id == sources[other.hit].hit.document_id
    return same and one.span.start < other.span.end and other.span.start < one.span.end


def _distinct(
    found: Sequence[Candidate],
) -> list[Candidate]:
    """Without later copies of the same text (one document in two formats)."""
    seen: set[str] = set()
    kept = []
    for item in found:
        key = "".join(item[2].split())
        if key not in seen:
            seen.add(key)
            kept.append(item)
    return kept
