"""Whether the answer to one question may be given to another one: by rules, beside their vectors.

Vectors of 第44条 and 第45条 are nearly equal, and so are those of a question and of its opposite,
of `before` and `after`, of two parties who change places (用人单位可以辞退员工吗, and the reverse:
a cosine of .996 with the default embedder). What such pairs differ in is a word or two, so here
every word that differs must be one that cannot matter.
"""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Callable, Iterable

from headrace.pipeline.facts.reading import denies, read
from headrace.pipeline.language import language
from headrace.pipeline.words import STOP
from headrace.retrieval.analyze import tokens

_POLITE = re.compile(
    r"\b(?:please|kindly|thanks|thank you|hello|hi|hey|excuse me)\b"
    r"|\b(?:can|could|would) you (?:please )?(?:tell me|explain|say)\b"
    r"|\b(?:I(?:'d| would) like to know|I want to know|do you know|I wonder|tell me)\b"
    r"|请问一下|请问|想问一下|我想问|想问|我想知道|想知道|请告诉我|告诉我|麻烦问下|麻烦|谢谢|您好|你好|一下"
    r"|是否|[的了吗呢啊吧呀哦嘛]",
    re.IGNORECASE,
)
"""What makes a question kinder and asks nothing, and what only says that it is one."""

_ALIKE = tuple(
    (re.compile(pattern, re.IGNORECASE), word)
    for pattern, word in (
        (r"能不能|可不可以|能否|可否|是否可以", "可以"),
        (r"有没有", "有"),
        (r"([\u4e00-\u9fff])不\1", r"\1"),  # 会不会, 是不是: they ask, and deny nothing
        (r"怎么样|怎样|如何", "怎么"),
        (r"什么时候|什么时间|几时", "何时"),
        (r"多少钱", "多少"),
        (r"应该", "应当"),
        (r"\b(?:have|has|had) to\b|\b(?:am|is|are|be) (?:required|obliged) to\b", "must"),
        (r"\bcan\b|\b(?:am|is|are|be) (?:allowed|permitted) to\b", "may"),
    )
)
"""Function words that say the same in a question."""

_NEUTRAL = frozenset(
    {"a", "an", "the", "is", "are", "was", "were", "be", "been", "do", "does", "did", "of", "it"}
    | {"its", "this", "that", "there", "s"}
)
"""English words that a question can have or not have. All other function words count: `before` and
`after`, `must` and `may`, `who` and `when`."""

_FUNCTION = frozenset(token for word in STOP for token in tokens(word)) - _NEUTRAL
_DENIES = re.compile("[不没未无非否别勿莫]|^(?:un|non)")
_LATIN_NAME = re.compile(r"(?<![.!?。？！\n])(?<!^)\s+([A-Z][\w'’-]+)", re.MULTILINE)
_PARTY = re.compile(r"[甲乙丙丁]方?|某[\u4e00-\u9fff]|[\u4e00-\u9fff]某")


def same_question(asked: str, known: str, used: Callable[[Iterable[str]], frozenset[str]]) -> bool:
    """Whether the answer to `known` answers `asked`; `used` gives those of some tokens that the
    collection has.

    1. They are in one language, and both deny something or neither does. 2. Numbers, dates,
    provisions and identifiers are the same; so are names, as far as they can be told: words with a
    capital within a sentence, and parties (甲方, 某乙). 3. A word that only one of them has is no
    function word, denies nothing, and is none that the documents use: a word of theirs may be the
    very distinction that they make. 4. What they share of the documents' words is in the same
    order: `can A sue B` is not `can B sue A`."""
    if asked == known:
        return True
    asked, known = _plain(asked), _plain(known)
    if language(asked) != language(known) or denies(asked) != denies(known):
        return False
    if read(asked).written.keys() != read(known).written.keys():
        return False
    if _names(asked) != _names(known):
        return False
    one, other = _words(asked), _words(known)
    different = set(one) ^ set(other)
    if different & _FUNCTION or any(map(_DENIES.search, different)):
        return False
    theirs = used({*one, *other})
    return not different & theirs and _in_order(one, theirs) == _in_order(other, theirs)


def _plain(text: str) -> str:
    plain = unicodedata.normalize("NFKC", text.encode("utf-8", "replace").decode()).strip()
    for pattern, word in _ALIKE:
        plain = pattern.sub(word, plain)
    return _POLITE.sub("", plain)


def _names(text: str) -> frozenset[str]:
    found = _LATIN_NAME.findall(text) + _PARTY.findall(text)
    return frozenset(name.casefold() for name in found)


def _words(text: str) -> list[str]:
    """The tokens of a question that count, in order."""
    return [token for token in tokens(_plain(text)) if token not in _NEUTRAL]


def _in_order(found: list[str], used: frozenset[str]) -> list[str]:
    """Those of the documents' words that are no function words, each where it stands first."""
    return [word for word in dict.fromkeys(found) if word in used and word not in _FUNCTION]
