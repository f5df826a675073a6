"""A text as tokens and typed facts."""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Iterator, Sequence
from fractions import Fraction
from functools import lru_cache
from itertools import pairwise

import rjieba

from headrace.pipeline.facts import numerals, units
from headrace.pipeline.facts.kinds import (
    Date,
    Fact,
    Facts,
    Identifier,
    Kind,
    Name,
    Number,
    Provision,
    Time,
    Token,
)
from headrace.pipeline.facts.patterns import MASTER, MONTH
from headrace.pipeline.facts.wording import (
    AFFIRMING,
    BY,
    COUNTERPARTS,
    DENIABLE,
    DENYING,
    JOINING,
    MAY,
    MUST,
    NO_PARTY,
    NOT,
    PARTY_ENDS,
)
from headrace.pipeline.words import STOP
from headrace.retrieval.analyze import tokens as analysed

_APART = {ord("，"): ", "} | {ord("①") + n: f"({n + 1})" for n in range(20)}
_PARTS = {"art": "条", "sec": "条", "cha": "章", "cla": "款", "par": "款", "": "条"}
_BASES = {"百": 100, "千": 1000, "万": 10_000}
_MONEY = {"$": "dollar", "€": "euro", "£": "pound", "¥": "yuan"}
_LAW = re.compile(
    r"([\u4e00-\u9fff]{1,20}(?:法典|宪法|法|条例|规定|办法|解释|规则|细则))(?:\(.{0,12}\))?\Z"
)
_LEADING = re.compile(
    r"^.*(?:根据|依据|按照|依照|违反|符合|适用|参照|存在|属于|触犯|援引|结合|以及|或者|中华人民共和国|和|与|及|、|的)(?=.)"
)
_ASIDE = re.compile(r"[《》<>〈〉]|中华人民共和国")
_THIS_LAW = re.compile(r"^(?:本|该|同|此|前述|上述)|[本该此]\w{1,2}$")


def normalised(text: str) -> str:
    """Compatibility forms unified (full-width digits and signs); a full-width comma and the circled
    number of an item stay apart from the digits around them."""
    if text.isascii():
        return text
    plain = text.translate(_APART).encode("utf-8", "replace").decode()
    return unicodedata.normalize("NFKC", plain)


def bare_title(text: str) -> str:
    """A law's title without its brackets, those of titles within it, and the state's name."""
    return _ASIDE.sub("", text)


@lru_cache(maxsize=8192)
def read(text: str) -> Facts:
    """Take a text apart. Linear in its length; raises nothing."""
    plain = normalised(text)
    tokens: list[Token] = []
    written: dict[Fact, str] = {}
    for match in MASTER.finditer(plain):
        name, start, said = match.lastgroup or "", match.start(), match.group()
        if name == "han":
            tokens += _han(said, start)
        elif name == "latin":
            tokens += _latin(said, start, match.string)
        elif name in ("whole", "most", "least"):
            key = {"most": "≤", "least": "≥"}.get(name, said)
            kind = "party" if said.startswith("第三") or said == "未成年人" else "word"
            tokens.append(Token(kind, key, said, start))  # type: ignore[arg-type]
        elif name == "label":
            continue
        elif name == "end":
            tokens.append(Token("end", said, said, start))
        else:
            fact = _fact(match, name, plain)
            if fact is not None:
                tokens.append(Token("fact", fact, said.strip(), start))
            if name == "quantity" and match["noun"]:
                tokens += _latin(match["noun"], match.start("noun"), match.string)
    tokens = _ranges(tokens, plain)
    for token in tokens:
        if token.kind == "fact":
            written.setdefault(token.key, token.text)  # type: ignore[arg-type]
    for name_fact in _names(tokens, plain):
        written.setdefault(name_fact, name_fact.text)
    return Facts(tuple(tokens), written, plain)


def denies(text: str) -> bool:
    """Whether the text has a negation; bounds such as `not more than` are none."""
    return any(token.kind == "not" for token in read(text).tokens)


_STOPS = Token("end", "\n", "\n")


def joined(parts: Sequence[Facts]) -> Facts:
    """Neighbouring sentences as one text."""
    written: dict[Fact, str] = {}
    for part in parts:
        for fact, text in part.written.items():
            written.setdefault(fact, text)
    tokens = (token for part in parts for token in (*part.tokens, _STOPS))
    return Facts(tuple(tokens), written, "\n".join(part.plain for part in parts))


def _fact(match: re.Match[str], name: str, plain: str) -> Fact | None:
    said = match.group()
    if name in ("address", "identifier"):
        return Identifier(said.lower().rstrip(".-"))
    if name == "provision":
        return _provision(match, plain)
    if name == "date":
        return _date(match)
    if name == "time":
        return _time(match)
    if name == "fraction":
        return _fraction(match)
    if name == "halved":
        kind, factor = units.unit(match["han_half"] or match["en_half"])
        if match["han_half"] == "月":
            kind, factor = "month", Fraction(1)
        return Number(factor / 2, kind)
    if name == "ordinal":
        return Number(numerals.value(match["on"] or match["oe"]), "ordinal")
    if name == "title":
        return Name(bare_title(said))
    return _quantity(match)


def _provision(match: re.Match[str], plain: str) -> Provision:
    if match["number"]:
        part = _PARTS[(match["word"] or "").lower()[:3]]
        return Provision(part, int(match["number"]), 0, (match["act"] or "").strip())
    if match["bare"]:
        return Provision("条", int(match["bare"]))
    sub = int(numerals.value(match["sub"])) if match["sub"] else 0
    law = match["law"] or ""
    if not law and match["part"] == "条":
        before = _LAW.search(plain, max(0, match.start() - 24), match.start())
        law = _LEADING.sub("", before[1]) if before else ""
    law = "" if _THIS_LAW.search(law) else bare_title(law)
    return Provision(match["part"], int(numerals.value(match["pn"])), sub, law)


def _date(match: re.Match[str]) -> Fact | None:
    def number(*names: str) -> int:
        said = next((match[name] for name in names if match[name]), "")
        return int(numerals.value(said)) if said else 0

    month = number("m", "m2", "im")
    english = match["em"] or match["em2"] or match["em3"]
    if english:
        month = MONTH[english[:3].lower()]
    return Date(number("y", "iy", "ey", "ey2", "ey3"), month, number("d", "d2", "id", "ed", "ed2"))


def _time(match: re.Match[str]) -> Time:
    hour = int(numerals.value(match["h"] or match["h2"] or match["h3"]))
    minute = int(numerals.value(match["min"] or match["min3"] or "0"))
    half = (match["half"] or match["half2"] or "").lower()
    if half:
        hour = hour % 12 + (12 if half == "p" else 0)
    return Time(60 * hour + (30 if match["half3"] else minute))


def _fraction(match: re.Match[str]) -> Number:
    if match["base"]:
        share = numerals.value(match["share"]) / _BASES[match["base"]]
    elif match["below"]:
        below = numerals.chinese(match["below"])
        share = numerals.chinese(match["above"]) / below if below else Fraction(0)
    elif match["a"]:
        share = Fraction(int(match["a"]), int(match["b"]))
    elif match["over"]:
        over = (
            Fraction(1, 2) if match["over"].lower() == "half" else numerals.english(match["over"])
        )
        share = over / numerals.ORDINALS[match["under"].lower()]
    else:
        share = Fraction(1, 2)
    return Number(100 * share, "percent")


def _quantity(match: re.Match[str]) -> Fact | None:
    said = match["q"]
    value = numerals.value(said)
    kind, factor = units.unit(match["unit"]) if match["unit"] else ("", Fraction(1))
    if match["money"]:
        kind, factor = _MONEY[match["money"]], Fraction(1)
    noun = (match["noun"] or "").lower()
    if not kind and value == 1 and not said[0].isdigit():
        return None  # 一个, `one of`
    if not kind and match["unit"] and _SUMMED.match(match.string, match.end()):
        kind = "kind"
    if (
        not match["unit"]
        and not noun
        and said.isdigit()
        and len(said) == 4
        and 1000 <= value < 2100
    ):
        return Date(int(value))
    return Number(value * factor, kind, "" if kind or noun in STOP else _stem(noun) if noun else "")


def _ranges(tokens: list[Token], plain: str) -> list[Token]:
    """三年至七年 written as 三至七年: the first number has the unit of the second."""
    places = [place for place, token in enumerate(tokens) if isinstance(token.key, Number)]
    for here, there in pairwise(places):
        one, two = tokens[here].key, tokens[there].key
        assert isinstance(one, Number)
        assert isinstance(two, Number)
        between = plain[tokens[here].start + len(tokens[here].text) : tokens[there].start].strip()
        if not one.unit and two.unit and _RANGE.fullmatch(between):
            said = _UNIT_AT_END.search(tokens[there].text)
            factor = units.unit(said[1])[1] if said else Fraction(1)
            scale = _SCALE.match(tokens[there].text)
            if scale and one.value < numerals.value(scale[1]):  # 1-5万元
                factor *= numerals.value("1" + scale[2])
            tokens[here] = tokens[here]._replace(key=Number(one.value * factor, two.unit))
    return tokens


_ROLE = re.compile(
    "|".join(
        re.escape(word)
        for word in sorted(COUNTERPARTS, key=len, reverse=True)
        if not word.isascii() and len(word) > 2
    )
)
_RANGE = re.compile(r"至|到|或者?|、|[-~—–]|to|or|and")
_SCALE = re.compile(r"(\d+(?:\.\d+)?)\s?([千万亿]+)")
_SUMMED = re.compile("条件|情形|情况|方面|要件|原因|步骤|途径|方式|部分|特征|问题|层次")
"""What an answer counts that sums up a list of its source."""
_UNIT_AT_END = re.compile(rf"({units.UNIT})\Z")


@lru_cache(maxsize=1 << 16)
def _stem(word: str) -> str:
    found = analysed(word)
    return found[0] if found else word


def _latin(said: str, start: int, text: str) -> Iterator[Token]:
    word = said.lower().replace("’", "'")
    if word.endswith("n't") or word in NOT:
        yield Token("not", "¬", said, start)
    elif word in MUST:
        yield Token("must", "must", said, start)
    elif word in MAY and not (said[0].isupper() and word == "may" and start):
        yield Token("may", "may", said, start)
    elif word in BY:
        yield Token("by", "by", said, start)
    elif word not in STOP:
        stem = _stem(word)
        named = said[0].isupper()
        yield Token("party" if named or word in COUNTERPARTS else "word", stem, said, start)


def _han(run: str, start: int) -> Iterator[Token]:
    """The words of a run of Chinese characters: names of roles whole, negations split from what
    they deny, no function words."""
    place = 0
    for role in _ROLE.finditer(run):
        yield from _words(run[place : role.start()], start + place)
        yield Token("party", role.group(), role.group(), start + role.start())
        place = role.end()
    yield from _words(run[place:], start + place)


def _words(run: str, start: int) -> Iterator[Token]:
    words: list[str] = []
    for word in rjieba.cut(run) if run else ():
        if word in ("人", "者", "方") and words and len(words[-1]) > 1 and words[-1] not in NOT:
            words[-1] += word
        else:
            words.append(word)
    for word in words:
        yield from _word(word, start)
        start += len(word)


def _word(word: str, start: int) -> Iterator[Token]:
    for kind, key, text, offset in _classified(word):
        yield Token(kind, key, text, start + offset)


@lru_cache(maxsize=1 << 16)
def _classified(word: str) -> tuple[tuple[Kind, str, str, int], ...]:
    """Kind, key, text and place of what a Chinese word is made of; nothing for function words."""
    if word in NOT:
        permission: tuple[tuple[Kind, str, str, int], ...] = (
            (("may", "may", "权", 1),) if word == "无权" else ()
        )
        return (("not", "¬", word, 0), *permission)
    for kind, words in _KINDS:
        if word in words:
            return ((kind, kind, word, 0),)
    if not word:
        return ()
    if len(word) > 1 and word[0] in DENYING:
        return ("not", "¬", word[0], 0), ("word", word[1:], word[1:], 1)
    glued = len(word) - 1 if word[-1] == "不" and word not in AFFIRMING else word.find("未", 1)
    if glued > 0:  # the segmenter takes 前未 and 人未 for words
        after = (
            (k, key, said, at + glued + 1) for k, key, said, at in _classified(word[glued + 1 :])
        )
        return (*_classified(word[:glued]), ("not", "¬", word[glued], glued), *after)
    if len(word) == 2 and word[0] == "有" and word[1] in DENIABLE:
        return (("word", word[1], word, 0),)
    if word in STOP or word in JOINING:
        return ()
    named = len(word) > 1 and word.endswith(tuple(PARTY_ENDS)) and word not in NO_PARTY
    return (("party" if named or word in COUNTERPARTS else "word", word, word, 0),)


_KINDS: tuple[tuple[Kind, frozenset[str]], ...] = (("must", MUST), ("may", MAY), ("by", BY))


def _names(tokens: list[Token], plain: str) -> Iterator[Name]:
    """Words in Latin letters that are written large within a sentence."""
    for place, token in enumerate(tokens):
        if token.kind != "party" or not token.text[0].isupper() or not token.text.isascii():
            continue
        first = place == 0 or tokens[place - 1].kind == "end"
        followed = place + 1 < len(tokens) and tokens[place + 1].text[:1].isupper()
        if (not first or followed) and len(token.text) > 1:
            yield Name(token.text)
