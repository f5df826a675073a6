"""Whether the sources support a sentence, and where.

1. Each quotation in the sentence must stand, to the character, in a passage.
2. Its numbers, dates, article references and identifiers must occur in the supporting span (or in
   the title path over it).
3. The span must not contradict it: deny what it affirms, affirm what it denies, say of some what
   it says of all.
4. The span must cover enough of the sentence's terms.
5. A sentence that leans on the question must say something that the question does not say.

The passages that the sentence cites are tried first, then all others: a small generator cites
badly, and what counts is whether the claim can be proved, not who pointed at the proof.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

from headrace.pipeline import claims
from headrace.pipeline.evidence import Evidence, Passage, best_support, find_quotation, leans

ENOUGH = 0.65
"""Share of a sentence's terms that its span must cover. Below it, on the example documents, spans
were found that only shared the topic."""


class Verdict(NamedTuple):
    """`text` is the sentence without markers. An empty `reason` means: supported by `evidence`,
    or (with no evidence) nothing that needs support."""

    text: str
    evidence: tuple[Evidence, ...] = ()
    reason: str = ""


def verify(sentence: str, sources: Sequence[Passage], question: str) -> Verdict:
    """Judge one sentence of the answer to `question`; see the module's text for the rules."""
    text = claims.without_markers(sentence).strip()
    if not claims.terms(text) and not claims.facts(text):
        return Verdict(text)
    if leans(text) and _repeats(text, question):
        return Verdict(text, (), "it says nothing that the question does not")
    cited = {number - 1 for number in claims.markers(sentence)}
    order = sorted(sources, key=lambda passage: (passage.index not in cited, passage.index))

    exact: list[Evidence] = []
    for quotation in claims.quoted(text):
        found = _locate(quotation, order)
        if found is None:
            return Verdict(text, (), f"the quotation {quotation!r} is not in the sources")
        exact.append(found)
    if exact and _only_quotes(text):
        return Verdict(text, tuple(exact))
    return _support(text, order, cited, exact, question)


def _support(
    text: str, order: Sequence[Passage], cited: set[int], exact: list[Evidence], question: str
) -> Verdict:
    candidates = [found for passage in order if (found := best_support(passage, text, question))]
    trusted = [e for e in candidates if e.hit in cited and e.score >= ENOUGH]
    best = max(trusted or candidates, key=lambda e: e.score, default=None)
    if best is not None and best.score >= ENOUGH:
        known = {(e.hit, e.span) for e in exact}
        extra = () if (best.hit, best.span) in known else (best,)
        return Verdict(text, (*exact, *extra))
    return Verdict(text, (), _why_not(text, order))


def _repeats(text: str, question: str) -> bool:
    """Whether the sentence only takes up a part of the question. (Nearly all of it, turned into a
    statement, is an answer: yes.)"""
    said = claims.terms(text) | claims.facts(text)
    asked = claims.terms(question) | claims.facts(question)
    return said <= asked and claims.coverage(asked, said) < 0.8


def _locate(quotation: str, order: Sequence[Passage]) -> Evidence | None:
    for passage in order:
        span = find_quotation(passage, quotation)
        if span is not None:
            return Evidence(passage.index, span, 1.0)
    return None


def _only_quotes(text: str) -> bool:
    """Whether hardly anything is claimed beyond the quotations."""
    rest = text
    for quotation in claims.quoted(text):
        rest = rest.replace(quotation, "")
    return len(claims.terms(rest)) <= 2 and not claims.facts(rest)


def _why_not(text: str, order: Sequence[Passage]) -> str:
    known = frozenset[str]().union(*(passage.facts for passage in order))
    missing = sorted(claims.facts(text) - known)
    if missing:
        return f"not in the sources: {', '.join(missing)}"
    return "no passage says this"
