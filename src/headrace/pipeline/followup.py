"""Follow-up questions: what is looked up for a question that means little without the last one."""

from __future__ import annotations

import re
from collections.abc import Sequence

from headrace.pipeline import claims
from headrace.pipeline.facts.reading import read
from headrace.pipeline.language import language
from headrace.types import Message

_POINTS_BACK = re.compile(
    r"\b(?:it|its|they|them|their|this|that|these|those|he|him|his|she|her|there|former|latter)\b"
    r"|^\s*(?:and|but|or|so|then|also|else|what about|how about|what if|otherwise)\b"
    r"|[它其该此这那他她]|^\s*(?:还有|另外|如果|要是|否则|然后)|呢\s*[？?]?\s*$",
    re.IGNORECASE,
)
_ASKED_BEFORE = 1_000
"""Characters taken of the question before."""


def standalone(question: str, history: Sequence[Message]) -> str:
    """The text to search with: the user's last question goes before one that points back to it, by
    a pronoun or by saying hardly anything. Rules, no model: what is added too much only widens the
    search, and the generator sees the conversation as it was."""
    before = next((turn.content for turn in reversed(history) if turn.role == "user"), "").strip()
    if not before:
        return question
    if _POINTS_BACK.search(question) or _says_nothing(question):
        return f"{before[-_ASKED_BEFORE:]}\n{question}"
    return question


def _says_nothing(question: str) -> bool:
    """Whether the question names no subject: `Why?`, 超过了怎么办？ (its one term is 超过)."""
    most = 0 if language(question) == "en" else 1
    return len(claims.terms(question)) <= most and not read(question).written
