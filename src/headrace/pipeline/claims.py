"""What a sentence claims, taken apart so that each part can be looked up in a source.

A claim is compared by *terms* (the analyzer's tokens without function words), by *facts* (numbers,
dates, article references and identifiers, which must occur as they are) and by whether it denies.
"""

from __future__ import annotations

import math
import re
from functools import lru_cache

from headrace.pipeline.words import (
    EVERYBODY,
    GLUE,
    STOP,
)
from headrace.retrieval.analyze import tokens

_STEM_STOP = frozenset(token for word in STOP for token in tokens(word))

YES_OR_NO = frozenset(("yes", "no", "not", "correct", "答案", "肯定", "否定"))
"""Terms of a bare verdict. `no more than 2 dogs` has the word of `The answer is no.` and proves
nothing of it."""

_QUOTED = re.compile(r"“([^”]{2,})”|\"([^\"]{2,})\"|「([^」]{2,})」|『([^』]{2,})』")
_MARKER = re.compile(r"\s*\[(\d{1,3})\]")


@lru_cache(maxsize=4096)
def terms(text: str) -> frozenset[str]:
    """The analyzer's tokens that carry meaning: no function words, no single CJK character, no
    bigram across the end of a word (定了, 是什)."""
    found = set(tokens(text)) - _STEM_STOP
    return frozenset(
        t for t in found if (len(t) > 1 or t.isdigit()) and not (len(t) == 2 and GLUE & set(t))
    )


def markers(text: str) -> list[int]:
    """The numbers in brackets, in order."""
    return [int(number) for number in _MARKER.findall(text)]


def without_markers(text: str) -> str:
    return _MARKER.sub("", text)


def quoted(text: str) -> list[str]:
    """What stands in quotation marks."""
    return ["".join(groups) for groups in _QUOTED.findall(text)]


def coverage(wanted: frozenset[str], there: frozenset[str]) -> float:
    """Share of `wanted` that occurs in `there`, in [0, 1]; longer terms count more, since a
    word's bigrams and a compound's parts repeat what the whole already said."""
    if not wanted:
        return 0.0
    return _weight(wanted & there) / _weight(wanted)


def _weight(some: frozenset[str]) -> float:
    return sum(math.sqrt(len(term)) for term in some)


def contradicts(claim: str, source: str) -> bool:
    """Whether a claim says of everybody what the source does not say of everybody."""
    return bool(EVERYBODY.search(claim)) and not EVERYBODY.search(source)
