"""Between the generator and the reader: every sentence is checked, marked and given its quotes."""

from __future__ import annotations

import asyncio
import re
from collections.abc import AsyncGenerator, Sequence

from headrace.pipeline import claims
from headrace.pipeline.conflicts import Clash
from headrace.pipeline.evidence import Evidence, Passage
from headrace.pipeline.facts.reading import read
from headrace.pipeline.phrases import phrase
from headrace.pipeline.plan import Plan
from headrace.pipeline.quotes import Quotations
from headrace.pipeline.untrusted import Instructions
from headrace.pipeline.verify import Verdict, verify
from headrace.retrieval.base import Index
from headrace.types import (
    Conflict,
    ConflictEvent,
    DeltaEvent,
    Event,
    Quote,
    QuoteEvent,
    Span,
    UnsupportedEvent,
)

_FINAL_MARK = re.compile(r"([。！？.!?]+[”’」』）)\"]*)$")
_DECLINES = re.compile(
    r"\b(?:do(?:es)?|did) not (?:answer|contain|mention|provide|specify|state|say|include)\b"
    r"|\bno (?:information|passage|mention|answer)\b"
    r"|\b(?:I|we) (?:do not|don't|cannot) (?:know|answer)\b"
    r"|没有(?:回答|提到|提及|说明|相关)|无法回答|未提及",
    re.IGNORECASE,
)

LONGEST_EXCUSE = 120


class Checker:
    """Turns sentences into events. Keeps count of where the answer's text stands."""

    def __init__(self, plan: Plan, index: Index, sources: Sequence[Passage]) -> None:
        self._plan = plan
        self._sources = sources
        self._quotations = Quotations(index, sources)
        self._position = 0
        self._ending = ""
        self._seen: set[str] = set()
        self._instructions = Instructions(
            plan.answer.system_prompt,
            [plan.question, *(" ".join((*p.hit.path, p.hit.text)) for p in sources)],
        )
        self._withheld = False
        self.cited: set[str] = set()
        """Sources that were quoted."""
        self.supported = 0
        """Sentences that stand: proved, or, where none are checked, said at all."""
        self.refused = False
        self.repeats = False
        """The generator says the same again, so it is not heard any more."""

    def _say(self, text: str) -> DeltaEvent:
        self._position += len(text)
        self._ending = (self._ending + text)[-2:]
        return DeltaEvent(text)

    async def check(self, sentence: str) -> AsyncGenerator[Event, None]:
        """The events for one sentence as it came (white space and markers included)."""
        said = claims.without_markers(sentence)
        key = " ".join(said.split()).casefold()
        if not key:
            if said and self._position:  # white space; a marker alone points at nothing
                yield self._say(said)
            return
        if key in self._seen:
            self.repeats = True
            return
        self._seen.add(key)
        if self._instructions.told_by(said):
            self._withheld = True
            yield UnsupportedEvent("", "it repeats the instruction", self._here())
            return
        judge = self._pointed_at if self._plan.verification == "off" else self._judge
        verdict, cited = await asyncio.to_thread(judge, sentence)
        for quote, new in cited:
            if new:
                yield self._new(quote)
        tail = sentence[len(sentence.rstrip()) :]
        if verdict.reason and not _declines(verdict.text):
            async for event in self._unsupported(verdict, tail):
                yield event
            return
        self.supported += bool(verdict.evidence) or self._plan.verification == "off"
        yield self._say(_marked(verdict.text, [quote.number for quote, _ in cited]) + tail)

    def _judge(self, sentence: str) -> tuple[Verdict, list[tuple[Quote, bool]]]:
        """The verdict, and the quotes that prove it with whether they are new. Blocks."""
        verdict = verify(sentence, self._sources, self._plan.question)
        cited = [self._quotations.cite(evidence) for evidence in verdict.evidence]
        quotes = [quote for quote in cited if quote is not None]
        if len(quotes) < len(cited):
            return Verdict(verdict.text, (), "the source changed while it was read"), []
        return verdict, quotes

    def _pointed_at(self, sentence: str) -> tuple[Verdict, list[tuple[Quote, bool]]]:
        """The sentence unchecked, with the passages that its markers name. Blocks."""
        numbers = [n - 1 for n in claims.markers(sentence) if 0 < n <= len(self._sources)]
        named = [Evidence(n, self._sources[n].hit.span, 1.0) for n in numbers]
        cited = [self._quotations.cite(evidence) for evidence in named]
        quotes = [quote for quote in cited if quote is not None]
        return Verdict(claims.without_markers(sentence).strip(), tuple(named)), quotes

    def _here(self) -> Span:
        return Span(self._position, self._position)

    async def _unsupported(self, verdict: Verdict, tail: str) -> AsyncGenerator[Event, None]:
        if self._plan.verification == "strict":
            self._withheld = True
            yield UnsupportedEvent(verdict.text, verdict.reason, self._here())
            return
        end = self._position + len(verdict.text)
        yield UnsupportedEvent(verdict.text, verdict.reason, Span(self._position, end))
        mark = phrase("unsupported", self._plan.question)
        yield self._say(f"{verdict.text} {mark}{tail}")

    async def quote(self, found: Sequence[Evidence]) -> AsyncGenerator[Event, None]:
        """Quotations as the answer, or under what the generator could not prove."""
        cited = await asyncio.to_thread(lambda: [self._quotations.cite(each) for each in found])
        quotes = [quote[0] for quote in cited if quote is not None]
        if not quotes:
            return
        if self._position:
            yield self._say(self._gap() + phrase("fallback", self._plan.question) + "\n")
        for quote in quotes:
            yield self._new(quote)
            where = " › ".join(quote.path) or quote.title
            yield self._say(f"“{quote.text}” [{quote.number}] ({where})\n")
            self.supported += 1

    def withheld(self) -> DeltaEvent | None:
        """Say that something was withheld, if it was."""
        if not self._withheld:
            return None
        return self._say(self._gap() + phrase("withheld", self._plan.question))

    def greet(self) -> DeltaEvent:
        """Return a greeting, and say what can be asked."""
        return self._say(phrase("greeting", self._plan.question))

    async def contradict(self, clash: Clash) -> AsyncGenerator[Event, None]:
        """Name a contradiction, with both sides quoted; nothing, if one cannot be quoted."""
        both = (clash.one, clash.other)
        cited = await asyncio.to_thread(lambda: [self._quotations.cite(each) for each in both])
        quotes = [found for found in cited if found is not None]
        if len(quotes) < len(both):
            return
        yield self.name("contradiction", values=" / ".join(clash.values))
        for quote, new in quotes:
            if new:
                yield self._new(quote)
            where = " › ".join(quote.path) or quote.title
            yield self._say(f"\n“{quote.text}” [{quote.number}] ({where})")
        sources = tuple(quote.source for quote, _ in quotes)
        numbers = tuple(quote.number for quote, _ in quotes)
        yield ConflictEvent(Conflict("contradiction", sources, clash.values, numbers))

    def name(self, what: str, **values: str) -> DeltaEvent:
        """A paragraph of its own: one of Headrace's phrases."""
        return self._say(self._gap() + phrase(what, self._plan.question).format(**values))

    def _new(self, quote: Quote) -> QuoteEvent:
        self.cited.add(quote.source)
        return QuoteEvent(quote)

    def refuse(self) -> DeltaEvent:
        """Say that the documents do not answer."""
        self.refused = True
        return self._say(self._gap() + phrase("refusal", self._plan.question))

    def _gap(self) -> str:
        """What makes a new paragraph after what was said."""
        said = self._ending
        return "\n" * (2 - len(said) + len(said.rstrip("\n"))) if self._position else ""


def _declines(text: str) -> bool:
    """Whether a sentence only says that there is no answer, and claims nothing beside that."""
    return bool(_DECLINES.search(text)) and len(text) < LONGEST_EXCUSE and not read(text).written


def _marked(text: str, numbers: Sequence[int]) -> str:
    """The sentence with its markers before the final punctuation."""
    if not numbers:
        return text
    signs = "".join(f"[{number}]" for number in dict.fromkeys(numbers))
    match = _FINAL_MARK.search(text)
    if match is None:
        return f"{text} {signs}"
    return f"{text[: match.start()]} {signs}{match.group()}"
