"""Whether the sources support a sentence, and where.

1. A greeting passes; what else claims nothing does not. A sentence that leans on the question must
   say something that the question does not say.
2. A sentence that a passage has as it is, from beginning to end, is proved.
3. Each quotation in the sentence must stand, to the character, in a passage.
4. The span must cover enough of the sentence's terms (`evidence.judge`), have all its facts
   (`facts.missing`), differ in no place that matters (`facts.contrast`), and not say it under a
   condition that the sentence leaves out (`facts.conditions`).
5. A span that says otherwise and is more like the sentence outweighs one that supports it.

The passages that the sentence cites are tried first, then all others: a small generator cites
badly, and what counts is whether the claim can be proved, not who pointed at the proof.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from itertools import pairwise
from typing import NamedTuple

from headrace.pipeline import claims
from headrace.pipeline.evidence import Evidence, Passage, find_quotation, judge, leans
from headrace.pipeline.facts.kinds import Provision
from headrace.pipeline.facts.missing import Source, has
from headrace.pipeline.facts.reading import read

_GREETING = re.compile(
    r"(?:您好|你好|谢谢|hello|hi|dear \w+|thank you)[\s,，.。!！]*",
    re.IGNORECASE | re.DOTALL,
)
"""Greetings, the only sentences without a claim that pass. `Yes.` and 是的。 alone are claims that
nobody can check."""

_OMISSION = re.compile(r"…+|\[(?:…|\.{3})\]|(?<!\.)\.{3}(?!\.)")

RIVAL = 0.05
"""By how much a passage that contradicts a sentence must be more like it than the one that supports
it, to be what the sentence is about."""

NEARLY = 0.05
"""How much less of a sentence a shorter range may cover than the best."""


class Verdict(NamedTuple):
    """`text` is the sentence without markers. An empty `reason` means: supported by `evidence`,
    or (with no evidence) nothing that needs support."""

    text: str
    evidence: tuple[Evidence, ...] = ()
    reason: str = ""


def verify(sentence: str, sources: Sequence[Passage], question: str) -> Verdict:
    """Judge one sentence of the answer to `question`; see the module's text for the rules."""
    text = claims.without_markers(sentence).strip()
    if _GREETING.fullmatch(text) or not any(map(str.isalnum, text)):
        return Verdict(text)
    if not claims.terms(text) - claims.YES_OR_NO and not read(text).written:
        return Verdict(text, (), "it claims nothing that could be checked")
    cited = {number - 1 for number in claims.markers(sentence)}
    order = sorted(sources, key=lambda passage: (passage.index not in cited, passage.index))

    copied = _copy(text, order)
    if copied is not None:
        return Verdict(text, (copied,))
    if leans(text) and _repeats(text, question):
        return Verdict(text, (), "it says nothing that the question does not")
    exact: list[Evidence] = []
    for quotation in claims.quoted(text):
        found = _locate(quotation, order)
        if not found:
            return Verdict(text, (), f"the quotation {quotation!r} is not in the sources")
        exact += found
    if exact and _only_quotes(text):
        return Verdict(text, tuple(exact))
    return _support(text, order, cited, exact, question)


def _support(
    text: str, order: Sequence[Passage], cited: set[int], exact: list[Evidence], question: str
) -> Verdict:
    elsewhere = _provisions(order)
    judged = [one for passage in order for one in judge(passage, text, question, elsewhere)]
    holding = [one.evidence for one in judged if not one.reason]
    trusted = [evidence for evidence in holding if evidence.hit in cited]
    best = _shortest(trusted or holding)
    against = max(
        (one for one in judged if one.reason), key=lambda one: one.evidence.score, default=None
    )
    if best is None or (against and against.evidence.score > best.score + RIVAL):
        return Verdict(text, (), against.reason if against else _why_not(text, order))
    known = {(e.hit, e.span) for e in exact}
    extra = () if (best.hit, best.span) in known else (best,)
    return Verdict(text, (*exact, *extra))


def _shortest(holding: Sequence[Evidence]) -> Evidence | None:
    """Of the ranges that fit nearly as well as the best, the shortest."""
    most = max((evidence.score for evidence in holding), default=0.0)
    near = [evidence for evidence in holding if evidence.score >= most - NEARLY]
    return min(near, key=lambda evidence: (len(evidence.span), -evidence.score), default=None)


def _provisions(order: Sequence[Passage]) -> frozenset[Provision]:
    """Those that the passages are, or name."""
    known = (place.written for p in order for place in (p.over, *(w.facts for w in p.windows)))
    return frozenset(fact for facts in known for fact in facts if isinstance(fact, Provision))


def _repeats(text: str, question: str) -> bool:
    """Whether the sentence only takes up a part of the question. (Nearly all of it, turned into a
    statement, is an answer: yes.)"""
    said, asked = claims.terms(text), claims.terms(question)
    known = read(question).written
    return (
        said <= asked
        and all(fact in known for fact in read(text).written)
        and claims.coverage(asked, said) < 0.8
    )


def _locate(quotation: str, order: Sequence[Passage]) -> list[Evidence]:
    """Where one passage has a quotation: each part of it between marks of omission, in order."""
    parts = [part.strip() for part in _OMISSION.split(quotation) if part.strip()]
    for passage in order:
        spans = [span for part in parts if (span := find_quotation(passage, part)) is not None]
        if len(spans) == len(parts) and all(a.end <= b.start for a, b in pairwise(spans)):
            return [Evidence(passage.index, span, 1.0) for span in spans]
    return []


def _copy(text: str, order: Sequence[Passage]) -> Evidence | None:
    """Where a passage has this very sentence, from its beginning to its end."""
    for passage in order:
        span = find_quotation(passage, text)
        over = claims.terms(" ".join(passage.hit.path))
        if span is not None and claims.terms(text) - over:
            offset = passage.hit.span.start
            start, end = span.start - offset, span.end - offset
            if any(start == piece.start and end == piece.end for piece in passage.sentences):
                return Evidence(passage.index, span, 1.0)
    return None


def _only_quotes(text: str) -> bool:
    """Whether hardly anything is claimed beyond the quotations."""
    rest = text
    for quotation in claims.quoted(text):
        rest = rest.replace(quotation, "")
    return len(claims.terms(rest)) <= 2 and not read(rest).written


def _why_not(text: str, order: Sequence[Passage]) -> str:
    absent = [
        written
        for fact, written in read(text).written.items()
        if not any(has(fact, Source(w.facts, p.over, p.hit.text)) for p in order for w in p.windows)
    ]
    return f"not in the sources: {', '.join(absent)}" if absent else "no passage says this"
