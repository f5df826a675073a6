"""Answers against gold answers: exact match and F1.

English is compared in words as SQuAD does (Rajpurkar et al. 2016: lower case, no punctuation, no
articles), Chinese in characters as CMRC 2018 does (Cui et al. 2019), mixed text by each one's own
unit: a Han character is a token, and so is a run of letters or digits.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Sequence
from unicodedata import normalize

_MARKS = re.compile(r"\s*\[(?:\d{1,3}|unsupported)\]")
_CJK = "\u3040-\u30ff\u3400-\u9fff\uf900-\ufaff"
_TOKEN = re.compile(rf"[{_CJK}]|[^\W_{_CJK}]+")
_ARTICLES = frozenset({"a", "an", "the"})


def tokens(text: str) -> list[str]:
    """What is compared of an answer: without markers, punctuation and English articles."""
    plain = normalize("NFKC", _MARKS.sub("", text)).lower()
    return [token for token in _TOKEN.findall(plain) if token not in _ARTICLES]


def exact(answer: str, gold: str) -> bool:
    return tokens(answer) == tokens(gold)


def f1(answer: str, gold: str) -> float:
    """Harmonic mean of the shares of tokens in common, each counted as often as it occurs."""
    given, wanted = tokens(answer), tokens(gold)
    if not given or not wanted:
        return float(given == wanted)
    common = (Counter(given) & Counter(wanted)).total()
    return 2 * common / (len(given) + len(wanted))


def best_f1(answer: str, golds: Sequence[str]) -> float:
    return max(f1(answer, gold) for gold in golds)
