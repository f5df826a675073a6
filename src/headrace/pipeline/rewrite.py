"""What is looked up for a question: the question itself, made to stand alone, and in other words.

A rewriting never replaces the question: both are searched, in one batch. One that loses a number,
an identifier or a name of the question, or invents one, is not searched at all (`keeps`).
"""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Callable, Mapping, Sequence
from typing import NamedTuple

import rjieba

from headrace.pipeline import claims
from headrace.pipeline.classify import Kind
from headrace.pipeline.language import language
from headrace.pipeline.words import STOP
from headrace.retrieval.analyze import references
from headrace.retrieval.lexicon import Definition, Lexicon
from headrace.types import Message

_POINTS_BACK = re.compile(
    r"\b(?:it|its|they|them|their|this|that|these|those|he|him|his|she|her|there|former|latter)\b"
    r"|^\s*(?:and|but|or|so|then|also|else|what about|how about|what if|otherwise)\b"
    r"|[它其该此这那他她]|^\s*(?:还有|另外|如果|要是|否则|然后)|呢\s*[？?]?\s*$",
    re.IGNORECASE,
)
_ASKED_BEFORE = 1_000
"""Characters taken of the question before."""

_TITLED = re.compile(r"《([^》]{1,60})》")
_LATIN = re.compile(r"[^\W\d_\u3040-\u30ff\u3400-\u9fff\uac00-\ud7af][\w’'.-]*")
_SENTENCE_START = re.compile(r"(?:\A|[.?!:\n]\s|\n|[\"“(]\s?)\Z")
_PERSON_OR_PLACE = frozenset({"nr", "ns", "nt", "nrt", "nrfg"})
LONGEST = 400
"""Characters of a rewriting; a longer one is an essay and not a question."""


class Rewriting(NamedTuple):
    """Another text for the same question, and what made it."""

    text: str
    why: str


# Follow-up questions -----------------------------------------------------------------------------


def standalone(question: str, history: Sequence[Message]) -> str:
    """The text to search with: the user's last question goes before one that points back to it, by
    a pronoun or by saying hardly anything. Rules, no model: what is added too much only widens the
    search, and the generator sees the conversation as it was."""
    before = next((turn.content for turn in reversed(history) if turn.role == "user"), "").strip()
    if before and points_back(question):
        return f"{before[-_ASKED_BEFORE:]}\n{question}"
    return question


def points_back(question: str) -> bool:
    """Whether a question means little without the one before it."""
    return bool(_POINTS_BACK.search(question)) or _says_nothing(question)


def _says_nothing(question: str) -> bool:
    """Whether the question names no subject: `Why?`, 超过了怎么办？ (its one term is 超过)."""
    most = 0 if language(question) == "en" else 1
    return len(claims.terms(question)) <= most and not claims.facts(question)


# What must not be lost ----------------------------------------------------------------------------


def keeps(question: str, other: str) -> bool:
    """Whether `other` has every number, identifier, reference and name of the question, and no
    number, identifier or reference that the question does not have."""
    return precise(question) == precise(other) and names(question) <= _words(other)


def keeps_together(question: str, parts: Sequence[str]) -> bool:
    """Whether the parts of a question together have all that it must not lose, and invent
    nothing."""
    return keeps(question, "\n".join(parts))


def precise(text: str) -> frozenset[str]:
    """What a rewriting may neither lose nor invent: numbers, dates, identifiers, references."""
    return claims.facts(text) | frozenset(references(text))


def names(text: str) -> frozenset[str]:
    """The words of a text's names, in lower case: titles in 《》, what is quoted, words with a
    capital but for those that begin a sentence, Latin words in a Chinese text, and what the
    tagger takes for people, places and institutions."""
    plain = unicodedata.normalize("NFKC", text)
    found: set[str] = set()
    for piece in (*_TITLED.findall(plain), *claims.quoted(plain)):
        found |= _words(piece)
    chinese = language(plain) == "zh"
    for match in _LATIN.finditer(plain):
        begins = _SENTENCE_START.search(plain, max(0, match.start() - 3), match.start())
        if chinese or (match.group()[0].isupper() and not begins):
            found |= _words(match.group())
    if chinese:
        for word, tag in rjieba.tag(plain):
            if tag in _PERSON_OR_PLACE and len(word) > 1:
                found |= _words(word)
    return frozenset(found - STOP)


_RUN = re.compile(r"[\u3400-\u9fff]|[^\W_\u3400-\u9fff]+")


def _words(text: str) -> frozenset[str]:
    """Words in lower case; Han text by its characters, since a rewriting may cut it elsewhere."""
    return frozenset(_RUN.findall(unicodedata.normalize("NFKC", text).casefold()))


# The collection's words ---------------------------------------------------------------------------

MOST_TERMS = 2
"""Terms added to a question."""

COVERED = 0.4
"""Share of a question's terms, weighted by rarity, that a definition must explain."""


def cannot_help(kind: Kind, question: str, lexicon: Lexicon) -> str:
    """Why the question is searched in its own words alone; empty if a rewriting may help."""
    if kind == "identifier":
        return "it names what it looks for"
    for term in lexicon.definitions:
        if len(term) > 2 and term in question:
            return f"it has the collection's term “{term}”"
    return ""


def in_its_words(
    question: str,
    lexicon: Lexicon,
    allowed: Callable[[int], bool],
    rarity: Callable[[frozenset[str]], Mapping[str, float]],
) -> tuple[Definition, ...]:
    """The definitions, best first, that explain much of the question's words by a term that it
    does not have. `allowed` says which chunks the caller may read."""
    asked = claims.terms(question)
    weights = rarity(asked)
    total = sum(weights.values())
    best: dict[str, tuple[float, Definition]] = {}
    for term, given in lexicon.definitions.items():
        if term in question:
            continue
        for definition in given:
            share = sum(weights[word] for word in asked & claims.terms(definition.gloss))
            better = share > best.get(term, (COVERED * total, definition))[0]
            if better and allowed(definition.chunk):
                best[term] = (share, definition)
    ranked = sorted(best.values(), key=lambda item: (-item[0], item[1].term))
    return tuple(definition for _, definition in ranked[:MOST_TERMS])
