"""Sub-questions: what a question asks, piece by piece, by rules in Chinese and in English."""

from __future__ import annotations

import re
from collections.abc import Sequence

from headrace.pipeline import claims
from headrace.pipeline.classify import READ, Kind
from headrace.pipeline.facts.reading import read
from headrace.pipeline.rewrite import keeps_together, points_back

MOST = 4
"""Sub-questions of one question; what is asked beyond them is in the question itself."""

_PARTS = re.compile(
    r"[？?;；\n]+|(?:^|\s|，)(?:\d{1,2}[.)、]|[（(][一二三四五六七八九\d][）)]|[一二三四五]、)\s*"
    r"|,?\s+and\s+(?=(?:what|when|where|which|who|why|how)\b)"
    r"|(?:，|。)?(?:以及|并且|同时|另外|还有)(?=[^？?]*(?:什么|多少|如何|怎么|怎样|哪|何|谁|是否|能否|多久))",
    re.IGNORECASE,
)
_PAIR_EN = re.compile(
    r"^(?P<before>(?:.*?(?:\b(?:between|both|is|are|were|was|do|did|does|have|has|of|first|than"
    r"|[a-z]+(?:er|est))|[,:])\s|(?i:is|are|was|were|do|did|does|have|has|both)\s))"
    r"(?P<a>(?:the )?[\"“A-Z][^,?]*?) (?:and|or|versus|vs\.?|than|with) "
    r"(?P<b>(?:the )?[\"“A-Z][^,?]*?)(?P<after>(?:,? [a-z][^?]*)?\s*\??)$"
)
_PAIR_ZH = re.compile(
    r"^(?P<before>.{0,12}?)(?P<a>[^，。？?和与跟同]{2,24}?)(?:和|与|跟|同|还是|、)(?P<b>[^，。？?]{2,24}?)"
    r"(?P<after>(?:之间)?(?:的)?(?:有|在|是|相比|哪|区别|差别|差异|不同|异同|一样|相同)[^。]*)$"
)


def decompose(question: str, kind: Kind) -> list[str]:
    """The questions that a comparison or a multi-part question is made of, each to be searched
    alone; none if the rules see no pieces, or if the pieces together lose something of it."""
    if len(question) > READ:
        return []
    if kind == "comparison":
        pieces = _compared(question)
    elif kind == "multi_part":
        pieces = _asked_together(question)
    else:
        return []
    pieces = list(dict.fromkeys(piece for piece in pieces if piece != question))[:MOST]
    if len(pieces) < 2 or not keeps_together(question, pieces):
        return []
    return pieces


def _compared(question: str) -> Sequence[str]:
    """One question for each of the two things, with what is asked about both."""
    plain = " ".join(question.split())
    match = _PAIR_ZH.match(plain)
    if match is None and "?" not in plain.rstrip("? "):  # over several the rule takes a second
        match = _PAIR_EN.match(plain)
    if match is None:
        return []
    return [
        " ".join(f"{match['before']}{match[side]}{match['after']}".split()) for side in ("a", "b")
    ]


def _asked_together(question: str) -> Sequence[str]:
    """The parts; one that points back, or has no subject of its own, is read with the first."""
    parts = [part.strip(" ,，。、\t/") for part in _PARTS.split(question)]
    parts = [part for part in parts if len(claims.terms(part)) > 0 or read(part).written]
    return [
        f"{parts[0]}\n{part}" if i and (points_back(part) or len(claims.terms(part)) < 3) else part
        for i, part in enumerate(parts)
    ]
