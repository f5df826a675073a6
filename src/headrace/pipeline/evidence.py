"""Spans of the hits that support a sentence, or that answer a question."""

from __future__ import annotations

import itertools
import re
from collections.abc import Iterator, Sequence
from functools import cached_property, lru_cache
from typing import NamedTuple

from headrace.pipeline import claims
from headrace.pipeline.facts.conditions import dropped
from headrace.pipeline.facts.contrast import contrast
from headrace.pipeline.facts.kinds import Facts, Name, Provision
from headrace.pipeline.facts.missing import Source, missing
from headrace.pipeline.facts.reading import denies, joined, read
from headrace.pipeline.sentences import sentence_spans
from headrace.types import Hit, Span

WHOLE_CHUNK = 240
"""A chunk of at most this many characters is quoted whole: its sentences belong together."""

WHOLE_PROVISION = 600
"""Characters up to which a longer chunk may support a sentence as a whole."""

ALONE, WORDS_ALONE = 48, 4
"""UTF-8 bytes, or words, from which a sentence can be judged without the question."""

ENOUGH = 0.65
"""Share of a sentence's terms that its span must cover. Below it, on the example documents, spans
were found that only shared the topic."""

_LABEL = re.compile(r"\s*(?:第\s?[\d零〇一二三四五六七八九十百千]{1,9}\s?条(?:之\S)?|Article \d+)")
_ITEM = re.compile(r"[(（](?:\d{1,2}|[一二三四五六七八九十]{1,3})[)）]\s*")
_PRONOUN = re.compile(
    r"\W*(?:(?:it|they|this|that|these|those|he|she)\b"
    r"|其(?![次他余实])|此(?!外)|[它这该])",
    re.IGNORECASE,
)
_FRAME = re.compile(
    r"(?:根据|依据|按照|依照)[我国现行有关相上述该本以法律规条例司解释和及与或之的、\s]{0,20}规定[,:]?"
    r"|^\W*(?:明确|也|还)?规定[,:]"
)
"""By what a sentence says where it has it from, provisions and titles taken out."""


class Evidence(NamedTuple):
    """A span (in the document's parsed text) of hit number `hit`, and how well it fits, in
    [0, 1]."""

    hit: int
    span: Span
    score: float


class Judged(NamedTuple):
    """A range and what speaks against it ("" if nothing does)."""

    evidence: Evidence
    reason: str


class Window(NamedTuple):
    """A range of a passage's own text, taken apart."""

    span: Span
    terms: frozenset[str]
    facts: Facts


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
    def over(self) -> Facts:
        """What the title, the title path and the label before the text state of all of it."""
        label = _LABEL.match(self.hit.text)
        return read(" › ".join((self.hit.title, *self.hit.path, label.group() if label else "")))

    @cached_property
    def sentences(self) -> list[Span]:
        """Ranges of the hit's own text, with the label of an item (`(2)`) and without."""
        spans = sentence_spans(self.hit.text)
        labels = [(span, _ITEM.match(span.of(self.hit.text))) for span in spans]
        return spans + [Span(s.start + m.end(), s.end) for s, m in labels if m]

    @cached_property
    def pieces(self) -> list[Span]:
        """Quotable ranges of the hit's own text: its sentences, or all of it if it is short."""
        sentences = sentence_spans(self.hit.text)
        if sentences and len(self.hit.text.strip()) <= WHOLE_CHUNK:
            return [Span(sentences[0].start, sentences[-1].end)]
        return sentences

    @cached_property
    def windows(self) -> list[Window]:
        """Single pieces, then pairs of neighbours (a paraphrase often joins two sentences), then
        all of a passage that is short enough to be one provision with its items."""
        singles = []
        for span in self.pieces:
            text = span.of(self.hit.text)
            singles.append(Window(span, claims.terms(text), read(text)))
        found = [*singles, *map(_joined, itertools.pairwise(singles))]
        if len(singles) > 2 and singles[-1].span.end - singles[0].span.start <= WHOLE_PROVISION:
            found.append(_joined(singles))
        return found

    def in_document(self, piece: Span) -> Span:
        offset = self.hit.span.start
        return Span(offset + piece.start, offset + piece.end)


def _joined(windows: Sequence[Window]) -> Window:
    """Neighbours as one."""
    span = Span(windows[0].span.start, windows[-1].span.end)
    terms = frozenset[str]().union(*(window.terms for window in windows))
    return Window(span, terms, joined([window.facts for window in windows]))


def passages(hits: Sequence[Hit]) -> list[Passage]:
    return [Passage(index, hit) for index, hit in enumerate(hits)]


def find_quotation(passage: Passage, text: str) -> Span | None:
    """Where `text` stands in the passage, to the character but for the amount of white space (a
    line may be broken where the quotation is not); as a span of the document."""
    words = r"\s+".join(map(re.escape, text.split()))
    found = re.search(words, passage.hit.text) if words else None
    return None if found is None else passage.in_document(Span(*found.span()))


def leans(sentence: str) -> bool:
    """Whether a sentence means something only as the answer to its question: because it is short,
    or because its subject is a pronoun."""
    if _PRONOUN.match(sentence):
        return True
    words = sum(token.kind in ("word", "party", "fact") for token in read(sentence).tokens)
    return len(sentence.encode("utf-8", "replace")) < ALONE and words < WORDS_ALONE


@lru_cache(maxsize=256)
def _matter(text: str) -> str:
    """A sentence without its references and titles, which are compared by value, and without the
    phrase that they stand in (根据《劳动法》第44条规定, ...)."""
    facts = read(text)
    plain, end, kept = facts.plain, 0, []
    for token in facts.tokens:
        if isinstance(token.key, Provision | Name) and token.start >= end:
            kept.append(plain[end : token.start])
            end = token.start + len(token.text)
    return _FRAME.sub("", " ".join((*kept, plain[end:])))


def judge(
    passage: Passage, sentence: str, question: str, elsewhere: frozenset[Provision]
) -> Iterator[Judged]:
    """The ranges of the passage that cover enough of the sentence's terms, each with the reason why
    it does not support it all the same: a fact that it lacks, or a contradiction.

    Terms of the title path prove nothing about what stands under it, so they are not counted. A
    sentence that does not stand alone (`It is 2.`) is read as the answer to the question: its range
    must cover much of the question too, and may not join what stands side by side."""
    facts = read(sentence)
    path = claims.terms(" ".join(passage.hit.path))
    wanted = claims.terms(_matter(sentence)) - path
    leaning, denied = leans(sentence), denies(sentence)
    asked = claims.terms(question) - path if leaning else frozenset()
    windows = passage.windows[: len(passage.pieces)] if leaning else passage.windows
    for window in windows:
        score = claims.coverage(wanted, window.terms) if wanted else float(bool(facts.written))
        if asked:
            score = min(score, claims.coverage(asked, window.terms) + 0.2)
        if score < ENOUGH:
            continue
        source = Source(window.facts, passage.over, passage.hit.text)
        reason = next(missing(facts, source, elsewhere), "") or contrast(
            facts, window.facts, passage.over
        )
        if not reason:
            reason = dropped(facts, window.span.of(passage.hit.text), read(question))
        both_deny = denied and any(token.kind == "not" for token in window.facts.tokens)
        if not reason and not both_deny and claims.contradicts(sentence, window.facts.plain):
            reason = "the source says otherwise"
        yield Judged(Evidence(passage.index, passage.in_document(window.span), score), reason)
