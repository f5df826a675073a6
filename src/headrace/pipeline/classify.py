"""What kind of question it is: by rules, in Chinese and in English, without a model.

In this order; the first that fits decides:

1. `chat`: a greeting, thanks or a farewell, and nothing beside it. Nothing is searched.
2. `multi_part`: several questions in one (两个问号, `what ... and when ...`).
3. `comparison`: two things side by side (A 与 B 的区别, `Are both A and B ...`).
4. `identifier`: a provision or an identifier is named (第四十四条, `38.401`), and little else.
5. `definition`: what something is or means (什么是X, `What is X?`).
6. `multi_hop`: who or what is asked about is itself only described (`the city where the founder of
   X was born`, 依照本法第十条...应当向哪个机关...).
7. `simple`: the rest.
"""

from __future__ import annotations

import re
from typing import Literal, NamedTuple, TypeAlias

from headrace.pipeline import claims
from headrace.retrieval.analyze import references

Kind: TypeAlias = Literal[
    "chat", "multi_part", "comparison", "identifier", "definition", "multi_hop", "simple"
]
Effort: TypeAlias = Literal["fast", "balanced", "deep"]

EFFORTS: dict[Kind, Effort] = {
    "chat": "fast",
    "identifier": "fast",
    "definition": "balanced",
    "simple": "balanced",
    "multi_part": "deep",
    "comparison": "deep",
    "multi_hop": "deep",
}
"""What effort `auto` takes for a kind of question."""


class Classified(NamedTuple):
    """`why` quotes what in the question decided."""

    kind: Kind
    why: str


_CHAT = re.compile(
    r"\W*(?:(?:hi|hello|hey|good (?:morning|afternoon|evening|day)|thanks?(?: you)?(?: very much)?"
    r"|thank you|bye|goodbye|ok(?:ay)?|how are you|who are you|what can you do|help|there)\b\W*)+"
    r"|\W*(?:你好|您好|大家好|嗨|哈喽|早上好|上午好|中午好|下午好|晚上好|谢谢你?|多谢|感谢|再见|拜拜|辛苦了"
    r"|好的|在吗|你是谁|你能做什么|你会什么|[吗呀啊哦了您]|\W)+",
    re.IGNORECASE,
)
_WH = r"(?:what|who|whom|whose|when|where|which|why|how)"
_ASKS_ZH = "什么|多少|如何|怎么|怎样|哪些|哪个|哪里|何时|何地|谁|是否|能否|几[天日年个]|多久|多长"
_MARKS = re.compile(r"[?？]")
_AND_ASKS = re.compile(
    rf"\b{_WH}\b[^?]{{3,}}?(?:;|,?\s\band)\s+(?:what|when|where|why|how)\b"
    rf"|(?:{_ASKS_ZH})[^？?]*(?:；|。|以及|并且|同时|另外|还有)[^？?]*(?:{_ASKS_ZH})",
    re.IGNORECASE,
)
_LISTED = re.compile(
    r"(?:^|\n|\s)(?:1[.)、]|（一）|\(1\)|一、).+(?:2[.)、]|（二）|\(2\)|二、)", re.DOTALL
)
_RESPECTIVELY = re.compile(r"分别|各自|respectively", re.IGNORECASE)
_RELATIVE = re.compile(rf"\b(?:in|by|of|to|for|with|from) {_WH}\b", re.IGNORECASE)
_COMPARES = re.compile(
    r"\b(?:differences? between|differs? from|differ\b|compared? (?:to|with)|versus|vs\.?"
    r"|more \w+ than|(?:are|were|do|did|is|have) both\b|which (?:of )?(?:the )?(?:two|one)\b"
    r"|in common|the same \w+)"
    r"|\bboth\b.{2,80}\band\b|\b(?:are|were|is|do|did|have|has)\b[^?]*\band\b[^?]*\bboth\b"
    r"|\bbetween\b.{2,80}\band\b.{2,80}\b(?:which|who|what)\b"
    r"|\b(?:which|who|what)\b[^?]*\b(?:\w+er|first|more|most|\w+est|american|british)\b[^?]*\bor\b"
    r"|(?:区别|差别|不同(?:点|之处|吗)|差异|异同|相比|比较|哪(?:个|一个|种)更)|与[^？]{1,20}(?:一样|相同)",
    re.IGNORECASE,
)
_OR = re.compile(
    r"^\W*(?:which|who|what)\b[^?]*?,?\s[A-Z][\w.'-]*(?: [\w.'-]+){0,4}? or (?:the )?[A-Z]"
)
_DEFINES = re.compile(
    r"^\W*(?:please )?(?:what (?:is|are|was|were)|what's|define|explain|describe)\s+"
    r"(?:an?\s+|the\s+)?(?P<en>[^?]{2,60})\W*$"
    r"|\bwhat does (?P<means>[^?]{1,60}) (?:mean|stand for)\b"
    r"|^\W*(?:请问|请解释)?(?:什么是|何谓|何为|何谓)(?P<zh>[^？?，,]{1,30})"
    r"|^\W*(?:请问)?(?P<zh2>[^？?，,]{1,24}?)(?:是什么意思|是指什么|指的?是什么|的(?:定义|含义)(?:是什么)?"
    r"|是什么)\W*$",
    re.IGNORECASE,
)
_NESTED_EN = re.compile(
    r"(?<=\w\s)(?:that|who|whom|whose|where|by which|in which|on which)\b"
    r"|\b(?:of|by|in|from|for|with|at|on) the [^,?]*? (?:of|by|in|from|for|at|with|on|that|who) "
    r"|\b(?:by|from|in|of|at|for) (?:what|which) \w+"
    r"|\b(?:named after|known for|based (?:in|on)|developed by|founded by|directed by|starred"
    r"|starring|performed|born|played|located|featuring|called|produced by|written by)\b",
    re.IGNORECASE,
)
_NAME_EN = re.compile(r"(?<![.?!]\s)(?<!^)\b[A-Z][\w'’-]+|[\"“][^\"”]{2,}[\"”]|\b\d{4}\b")
_NESTED_ZH = re.compile(
    r"(?:依照|根据|按照|违反|适用)[^，？]{0,30}(?:第[〇零一二三四五六七八九十百千\d]+条|《[^》]+》)"
    r"|(?:所在|所属|规定|设立|创办|创立|出生|出版|导演|发布|制定|批准|主管|任职|签订)[^，？的]{0,8}的"
    rf"[^，？]{{1,20}}(?:{_ASKS_ZH}|的)"
    r"|的[^的，。？]{1,12}的[^的，。？]{1,12}的[^的，。？]{1,12}"
)
READ = 600
"""Characters of a question that are looked at."""

_SHORT = 3
"""Terms beside a named provision up to which a question is a look-up."""


def classify(question: str) -> Classified:
    """Kind of a question that is not blank, and why. What stands beyond `READ` characters decides
    nothing: it is a story, and the rules would take seconds over it."""
    text = question.strip()[:READ]
    if _CHAT.fullmatch(text):
        return Classified("chat", "a greeting")
    if found := _several(text):
        return Classified("multi_part", found)
    if match := _COMPARES.search(text) or _OR.search(text):
        return Classified("comparison", f"“{_short(match.group())}”")
    if named := sorted(references(text)):
        rest = claims.terms(text) - {token for name in named for token in claims.terms(name)}
        if len([term for term in rest if term not in named]) <= _SHORT * (1 + (not text.isascii())):
            return Classified("identifier", f"names {', '.join(named[:3])}")
    if (match := _DEFINES.search(text)) and not _NESTED_EN.search(match.group()):
        return Classified("definition", f"“{_short(match.group())}”")
    if (match := _NESTED_ZH.search(text)) or (
        (match := _NESTED_EN.search(text)) and _NAME_EN.search(text)
    ):
        return Classified("multi_hop", f"“{_short(match.group())}”")
    return Classified("simple", "none of the others")


def _several(text: str) -> str:
    """What shows that a text asks several things; empty if nothing does."""
    if len([part for part in _MARKS.split(text) if len(part.strip()) > 3]) > 1:
        return "several question marks"
    if _LISTED.search(text):
        return "a numbered list"
    if _RESPECTIVELY.search(text):
        return "“respectively”"
    match = _AND_ASKS.search(_RELATIVE.sub(" ", text))
    return f"“{_short(match.group())}”" if match else ""


def _short(text: str) -> str:
    plain = " ".join(text.split())
    return plain if len(plain) <= 40 else f"{plain[:18]} … {plain[-18:]}"
