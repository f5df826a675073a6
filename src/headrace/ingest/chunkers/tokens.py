"""A cheap estimate of how many tokens a text has for a multilingual unigram vocabulary.

Chunks are cut before any model is loaded, so the budget is kept by an estimate: a few weights per
run of characters of one class, in thousandths of a token, fitted on the vocabulary of
multilingual-e5 so that it is seldom below the true count (see `tests/ingest/test_tokens.py`).
Every run costs `first + more * length`, so the estimate of a joined text is never above the sum
of the estimates of its parts: pieces that fit can be packed by adding.
"""

from __future__ import annotations

import re
from typing import NamedTuple

_CLASSES = re.compile(
    r"(?P<latin>[A-Za-z\u00c0-\u024f\u1e00-\u1eff]+)"
    r"|(?P<cjk>[\u2e80-\u2fdf\u3005-\u3007\u3040-\u30ff\u3400-\u4dbf\u4e00-\u9fff\uf900-\ufaff\U00020000-\U0003ffff]+)"
    r"|(?P<digits>[0-9]+)"
    r"|(?P<space>\s+)"
    r"|(?P<letters>[^\W\d_]+)"
    r"|(?P<marks>[^\w\s]+|_+|[^\D0-9]+)",
)


class Weight(NamedTuple):
    """Thousandths of a token: `first` for a run, `more` for each of its characters."""

    first: int
    more: int


WEIGHTS = {
    "latin": Weight(600, 190),
    "cjk": Weight(300, 720),
    "digits": Weight(300, 450),
    "space": Weight(0, 20),
    "letters": Weight(500, 450),
    "marks": Weight(200, 800),
}


def milli_tokens(text: str, start: int = 0, end: int | None = None) -> int:
    """Thousandths of a token in `text[start:end]`; linear in its length."""
    total = 0
    for match in _CLASSES.finditer(text, start, len(text) if end is None else end):
        weight = WEIGHTS[match.lastgroup or "marks"]
        total += weight.first + weight.more * (match.end() - match.start())
    return total


def estimate_tokens(text: str) -> int:
    """About how many tokens `text` has, rounded up."""
    return -(-milli_tokens(text) // 1000)


class Run(NamedTuple):
    """Characters `[start, end)` of one class, and what they cost."""

    start: int
    end: int
    weight: Weight

    @property
    def cost(self) -> int:
        return self.weight.first + self.weight.more * (self.end - self.start)


def runs(text: str, start: int, end: int) -> list[Run]:
    """The runs of `text[start:end]`, which they cover without a gap."""
    return [
        Run(match.start(), match.end(), WEIGHTS[match.lastgroup or "marks"])
        for match in _CLASSES.finditer(text, start, end)
    ]
