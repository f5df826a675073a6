"""Multiple choice: how such a question is put, and which option an answer means."""

from __future__ import annotations

import re
from collections.abc import Sequence
from unicodedata import normalize

from headrace.evaluation.format import Question
from headrace.pipeline.claims import coverage, terms
from headrace.types import Quote

MARGIN = 0.05
"""Share of an option's terms by which the best must lead the second to be meant."""

_NUMBERED = re.compile(r"^\s*\(?(\d{1,2})\s*[.):、．）]\s*")
_MARKS = re.compile(r"\[(?:\d+|unsupported)\]")
_SAYS = re.compile(
    r"(?:^\W*|\b(?:option|answer|choice|number)\W*(?:is|:)?\W*|(?:选项|答案|选择?)\W*[是为]?\W*)"
    r"(\d{1,2})(?=\s*(?:[.):、．）。]|$))",
    re.IGNORECASE,
)


def with_choices(question: Question) -> str:
    """The question with its options below, one a line and numbered from 1."""
    return "\n".join([question.text, *numbered(question.choices)]).lstrip()


def numbered(choices: Sequence[str]) -> list[str]:
    return [f"{number}. {bare(choice)}" for number, choice in enumerate(choices, 1)]


def bare(choice: str) -> str:
    """An option without the number that a data set wrote before it."""
    return _NUMBERED.sub("", choice, count=1).strip()


def choose(
    question: Question, answer: str, quotes: Sequence[Quote], *, refused: bool
) -> tuple[int | None, str]:
    """The number of the option that an answer means, and how it shows; `None` where none does.

    1. `number`: the answer says one number of an option. 2. `text`: the words of one option stand
    in it, and of no other that is not part of that one. 3. `terms`: the answer and its quotes cover
    the terms in which the options differ; the option covered best, if it leads by `MARGIN`.
    A refusal means none.
    """
    if not question.choices or refused:
        return None, ""
    said = _MARKS.sub("", answer)
    numbers = {int(number) for number in _SAYS.findall(said)}
    numbers &= set(range(1, len(question.choices) + 1))
    if len(numbers) == 1:
        return numbers.pop(), "number"
    options = [_plain(bare(choice)) for choice in question.choices]
    plain = _plain(said)
    inside = [option for option in options if option and option in plain]
    longest = max(inside, key=len, default="")
    if longest and all(option in longest for option in inside) and options.count(longest) == 1:
        return options.index(longest) + 1, "text"
    return _by_terms(question, " ".join([said, *(quote.text for quote in quotes)]))


def _by_terms(question: Question, text: str) -> tuple[int | None, str]:
    choices = [terms(bare(choice)) for choice in question.choices]
    shared = frozenset.intersection(*choices)
    found = terms(text)
    scores = [coverage(one - shared, found) if one - shared else 0.0 for one in choices]
    best, *others = sorted(scores, reverse=True)
    if best > 0 and best - max(others, default=0.0) >= MARGIN:
        return scores.index(best) + 1, "terms"
    return None, ""


def _plain(text: str) -> str:
    return " ".join(normalize("NFKC", text).lower().split()).rstrip(".。")
