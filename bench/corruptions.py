"""Corrupted twins of true sentences, by rules of their own (nothing of the verifier is used).

Each function takes a sentence and a source of chance and gives a sentence that says something
else, or `None` where the sentence has nothing of the kind.
"""

from __future__ import annotations

import random
import re
from collections.abc import Callable, Mapping

Corrupt = Callable[[str, random.Random], str | None]


def _pairs(table: str) -> dict[str, str]:
    return dict(pair.split("/") for pair in table.split())


_DIGITS = "零一二三四五六七八九"
_NUMERAL = "[一二两三四五六七八九十百千万]"
_UNITS = "日|天|个月|年|周岁|岁|万元|元|倍|%|％|人|名|次|小时|分钟|米|公里|吨|公斤|平方米|个工作日"
_COUNTED = re.compile(rf"(?<![第之年月\d])(\d+(?:\.\d+)?|{_NUMERAL}{{1,5}})(?=(?:{_UNITS}))")
_SHARE = re.compile(rf"(?<=百分之)({_NUMERAL}+)")
_DATE = re.compile(r"(\d{4})(?=年)|(?<=年)(\d{1,2})(?=月)|(?<=月)(\d{1,2})(?=日)")
_ARTICLE = re.compile(rf"(?<=第)({_NUMERAL}{{1,7}}|\d{{1,4}})(?=条)")
_OTHER_UNIT = _pairs(
    "个工作日/个月 个月/年 日/个月 天/个月 年/个月 周岁/年 万元/元 元/万元 "
    "倍/元 小时/日 米/公里 公里/米 平方米/公顷 吨/公斤"
)
_COUNTED_UNIT = re.compile(
    rf"(?<![第之年月\d])((?:\d+(?:\.\d+)?|{_NUMERAL}{{1,5}}))({'|'.join(_OTHER_UNIT)})"
)
_PAIRS = [
    tuple(pair.split("/"))
    for pair in [
        "用人单位/劳动者",
        "出租人/承租人",
        "债权人/债务人",
        "出卖人/买受人",
        "原告/被告",
        "申请人/被申请人",
        "保险人/投保人",
        "父母/子女",
        "夫/妻",
        "男方/女方",
        "委托人/受托人",
        "赠与人/受赠人",
        "发包人/承包人",
        "贷款人/借款人",
        "保证人/债权人",
        "公司/股东",
        "经营者/消费者",
        "监护人/被监护人",
        "继承人/被继承人",
        "被侵权人/侵权人",
        "生产者/销售者",
        "业主/建设单位",
        "行政机关/当事人",
        "人民法院/当事人",
        "公安机关/人民检察院",
        "承运人/托运人",
        "定作人/承揽人",
        "抵押人/抵押权人",
        "甲方/乙方",
        "本人/代理人",
        "用人单位/职工",
        "单位/个人",
    ]
]
_REMOVED = (
    *_pairs(
        "不得/可以 不应当/应当 不能/能 不予/予以 无权/有权 无效/有效 没有/有 禁止/允许 不承担/承担 "
        "不构成/构成 不属于/属于 不影响/影响 未/已"
    ).items(),
    ("不", ""),
)
_KEPT = re.compile(
    r"不(?:动产|仅|但|论|可抗力|超过|低于|少于|高于|满|足|同|正当|特定|良|法|断)|未(?:成年|来|满)"
)
_ADDED = tuple(
    _pairs(
        "应当/不应当 可以/不得 有权/无权 必须/无须 有效/无效 承担/不承担 属于/不属于 构成/不构成 "
        "负责/不负责 享有/不享有 适用/不适用"
    ).items()
)
_CONDITION = re.compile(
    r"(?:^|(?<=[，；。]))(?:但|但是|除)[^，；。]{4,60}(?:除外|外|的)?[，。]?|"
    r"(?:^|(?<=[，；]))(?:经|未经|如果|在)?[^，；。]{4,40}(?:的|后|时|情况下)，"
)


def chinese(value: int) -> str:
    """A number below 100,000 as it is written in a statute."""
    if value >= 10_000:
        rest = value % 10_000
        return chinese(value // 10_000) + "万" + (chinese(rest) if rest else "")
    out, zero = "", False
    for sign, size in (("千", 1000), ("百", 100), ("十", 10), ("", 1)):
        digit = value // size % 10
        if digit:
            out += ("零" if zero and out else "") + _DIGITS[digit] + sign
            zero = False
        else:
            zero = True
    return out.removeprefix("一") if out.startswith("一十") else out or "零"


def arabic(text: str) -> int:
    """The value of such a number."""
    total = section = digit = 0
    for c in text.replace("两", "二"):
        if c in _DIGITS:
            digit = _DIGITS.index(c)
        elif c == "万":
            total, section, digit = (total + section + digit) * 10_000, 0, 0
        else:
            section += (digit or 1) * {"十": 10, "百": 100, "千": 1000}[c]
            digit = 0
    return total + section + digit


def in_arabic(sentence: str) -> str:
    """The sentence with its counted numbers and articles in digits: a true paraphrase."""

    def digits(match: re.Match[str]) -> str:
        said = match.group(1)
        return said if said[0].isdigit() else str(arabic(said))

    for pattern in (_ARTICLE, _COUNTED):
        sentence = pattern.sub(digits, sentence)
    return re.sub(r"百分之([一二三四五六七八九十百]+)", lambda m: f"{arabic(m[1])}%", sentence)


def _changed(said: str, chance: random.Random, near: bool = False) -> str:
    value = float(said) if said[0].isdigit() else arabic(said)
    whole = int(value)
    options = [whole + 1, whole + 2, whole * 2, whole * 3, whole * 10, whole + 5]
    options += [max(1, whole // 2), max(1, whole - 1)]
    if near:
        options = [whole + n for n in (-10, -3, -2, -1, 1, 2, 3, 10, 100)]
    new = chance.choice([option for option in options if option not in (value, 0) and option > 0])
    return str(new) if said[0].isdigit() else chinese(new)


def _at_random(pattern: re.Pattern[str], near: bool = False) -> Corrupt:
    def corrupt(sentence: str, chance: random.Random) -> str | None:
        found = list(pattern.finditer(sentence))
        if not found:
            return None
        match = chance.choice(found)
        return (
            sentence[: match.start()]
            + _changed(match.group(), chance, near)
            + sentence[match.end() :]
        )

    return corrupt


def number(sentence: str, chance: random.Random) -> str | None:
    both = re.compile(f"{_COUNTED.pattern}|{_SHARE.pattern}")
    return _at_random(both)(sentence, chance)


def unit(sentence: str, chance: random.Random) -> str | None:
    found = list(_COUNTED_UNIT.finditer(sentence))
    if not found:
        return None
    match = chance.choice(found)
    return sentence[: match.start(2)] + _OTHER_UNIT[match[2]] + sentence[match.end(2) :]


def party(sentence: str, chance: random.Random) -> str | None:
    """Two parties that both occur change places; or one of a pair becomes the other."""
    both, single = [], []
    for one, other in _PAIRS:
        bare = sentence.replace(other, "") if one in other else sentence
        there = sentence.replace(one, "") if other in one else sentence
        if one in bare and other in there:
            both.append((one, other))
        elif one in bare:
            single.append((one, other))
        elif other in there:
            single.append((other, one))
    if both:
        one, other = chance.choice(both)
        longer, shorter = sorted((one, other), key=len, reverse=True)
        return sentence.replace(longer, "\0").replace(shorter, longer).replace("\0", shorter)
    if single:
        one, other = chance.choice(single)
        return sentence.replace(one, other)
    return None


def negation(sentence: str, chance: random.Random) -> str | None:
    kept = {m.start() for m in _KEPT.finditer(sentence)}
    options = [
        (match.start(), old, new)
        for old, new in _REMOVED
        for match in re.finditer(old, sentence)
        if match.start() not in kept
    ]
    if not options or chance.random() < 0.5:
        added = [
            (m.start(), old, new)
            for old, new in _ADDED
            for m in re.finditer(rf"(?<![不无未没]){old}", sentence)
        ]
        options = added or options
    if not options:
        return None
    start, old, new = chance.choice(options)
    return sentence[:start] + new + sentence[start + len(old) :]


def condition(sentence: str, chance: random.Random) -> str | None:
    found = [m for m in _CONDITION.finditer(sentence) if len(sentence) - len(m.group()) >= 10]
    if not found:
        return None
    match = chance.choice(found)
    rest = sentence[: match.start()] + sentence[match.end() :]
    return rest.strip("，；") or None


CHINESE: Mapping[str, Corrupt] = {
    "number": number,
    "date": _at_random(_DATE),
    "unit": unit,
    "article": _at_random(_ARTICLE, near=True),
    "party": party,
    "negation": negation,
    "condition": condition,
}

# English -----------------------------------------------------------------------------------------

_WORDS = [
    "one",
    "two",
    "three",
    "four",
    "five",
    "six",
    "seven",
    "eight",
    "nine",
    "ten",
    "eleven",
    "twelve",
    "fifteen",
    "twenty",
    "thirty",
]
_EN_MONTH = "January|February|March|April|May|June|July|August|September|October|November|December"
_EN_NUMBER = re.compile(
    rf"(?<![\w.,:/-])(?!(?:1[5-9]|20)\d\d\b)\d+(?:,\d{{3}})*"
    rf"(?![\w:/-]|\.\d|,\d)(?! ?(?:{_EN_MONTH}))"
    rf"|\b(?:{'|'.join(_WORDS[1:])})\b"
)
_EN_DATE = re.compile(rf"\b(?:1[5-9]|20)\d\d\b|\b(?:{_EN_MONTH})(?= \d)|\b\d{{1,2}}:\d\d\b")
_EN_UNIT = re.compile(
    r"(?<=\d )(?:days?|hours?|minutes?|metres?|crowns?|miles?|years?|months?|weeks?|feet"
    r"|kilometres?|km|inches)\b"
)
_EN_OTHER = {"day": "months", "hou": "days", "min": "hours", "met": "kilometres", "cro": "euros",
             "mil": "feet", "yea": "months", "mon": "years", "wee": "days", "fee": "miles",
             "kil": "metres", "km": "metres", "inc": "feet"}  # fmt: skip
_EN_ADDED = tuple(
    (f" {verb} ", " cannot " if verb == "can" else f" {verb} not ")
    for verb in ("is", "are", "was", "were", "may", "must", "shall", "can", "has", "will")
)
_EN_NAME = re.compile(r"(?<=[a-z,] )[A-Z][a-z]+(?: [A-Z][a-z]+)*")
_EN_CONDITION = re.compile(
    r"(?:, | )(?:unless|except|if|only if|provided that|without|when) [^,.;]{6,80}(?=[,.;])|"
    r"^(?:Unless|If|When|Where) [^,]{6,80}, "
)


def _en_number(sentence: str, chance: random.Random) -> str | None:
    found = list(_EN_NUMBER.finditer(sentence))
    if not found:
        return None
    match = chance.choice(found)
    said = match.group()
    if said[0].isdigit():
        new = _changed(said.replace(",", ""), chance)
    else:
        new = chance.choice([word for word in _WORDS[1:] if word != said])
    return sentence[: match.start()] + new + sentence[match.end() :]


def _en_date(sentence: str, chance: random.Random) -> str | None:
    found = list(_EN_DATE.finditer(sentence))
    if not found:
        return None
    match = chance.choice(found)
    said = match.group()
    if said.isdigit():
        new = str(int(said) + chance.choice((-10, -2, -1, 1, 2, 10)))
    elif ":" in said:
        new = f"{(int(said.split(':')[0]) + chance.choice((1, 2, 3))) % 24}:{said.split(':')[1]}"
    else:
        new = chance.choice([month for month in _EN_MONTH.split("|") if month != said])
    return sentence[: match.start()] + new + sentence[match.end() :]


def _en_unit(sentence: str, chance: random.Random) -> str | None:
    found = list(_EN_UNIT.finditer(sentence))
    if not found:
        return None
    match = chance.choice(found)
    return sentence[: match.start()] + _EN_OTHER[match.group()[:3]] + sentence[match.end() :]


def _en_article(sentence: str, chance: random.Random) -> str | None:
    return _at_random(re.compile(r"(?<=Article )\d+"), near=True)(sentence, chance)


def _en_party(sentence: str, chance: random.Random) -> str | None:
    """Two names, or two roles, change places."""
    names = sorted(set(_EN_NAME.findall(sentence)))
    roles = [
        pair for pair in _EN_ROLES if all(f" {role}" in f" {sentence.lower()}" for role in pair)
    ]
    if roles:
        one, other = chance.choice(roles)
    elif len(names) >= 2:
        one, other = chance.sample(names, 2)
        if one in other or other in one:
            return None
    else:
        return None
    return sentence.replace(one, "\0").replace(other, one).replace("\0", other)


_EN_ROLES = [("keeper", "dog"), ("employee", "employer"), ("tenant", "landlord"), ("owner", "town"),
             ("warden", "crew"), ("employee", "manager"), ("holder", "town")]  # fmt: skip


def _en_negation(sentence: str, chance: random.Random) -> str | None:
    if " not " in sentence and chance.random() < 0.7:
        return sentence.replace(" not ", " ", 1)
    options = [pair for pair in _EN_ADDED if pair[0] in sentence and pair[1] not in sentence]
    if not options:
        return None
    old, new = chance.choice(options)
    return sentence.replace(old, new, 1)


def _en_condition(sentence: str, chance: random.Random) -> str | None:
    found = list(_EN_CONDITION.finditer(sentence))
    if not found:
        return None
    match = chance.choice(found)
    rest = sentence[: match.start()] + sentence[match.end() :]
    return rest[:1].upper() + rest[1:] if len(rest) > 20 else None


ENGLISH: Mapping[str, Corrupt] = {
    "number": _en_number,
    "date": _en_date,
    "unit": _en_unit,
    "article": _en_article,
    "party": _en_party,
    "negation": _en_negation,
    "condition": _en_condition,
}
