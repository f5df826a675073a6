"""The one regular expression that takes a text apart; each alternative is a named group."""

from __future__ import annotations

import re

from headrace.pipeline.facts import numerals, units
from headrace.pipeline.facts.wording import AT_LEAST, AT_MOST, WHOLE

HAN = "\u3400-\u9fff\uf900-\ufaff\U00020000-\U0003ffff"
_C = numerals.CHINESE
_N = rf"(?:\d{{1,5}}|{_C}{{1,9}})"
_MONTHS = [
    "January",
    "February",
    "March",
    "April",
    "May",
    "June",
    "July",
    "August",
    "September",
    "October",
    "November",
    "December",
]
MONTH = {name[:3].lower(): number for number, name in enumerate(_MONTHS, 1)}
_MONTH = "(?:" + "|".join((*_MONTHS, *(name[:3] + r"\.?" for name in _MONTHS))) + r")(?![a-z])"
_DIGITS = (
    rf"{numerals.ARABIC}(?:\s?(?:[十百千万亿]+(?!分之)|(?i:hundred|thousand|million|billion)\b))?"
)
_CHINESE = rf"{_C}{{1,16}}(?:点{_C}{{1,6}})?"
_COUNTS = (  # a Chinese numeral is one only before a unit, or at the head of a range
    rf"(?=[多余来几]?(?:{units.HAN})|(?:至|到|或者?|、|[-~—–])(?:{_C}{{1,9}}|\d+)(?:{units.HAN}))"
)
_CHINESE_SHARE = rf"(?:[百千万]分之(?:{_CHINESE}|{numerals.ARABIC})|{_C}{{1,3}}分之{_C}{{1,3}})"

_LABEL = (  # of an item of a list: (3), 3., 3、 and 第三, say nothing of the matter
    r"\((?:\d{1,2}|[一二三四五六七八九十]{1,3})\)|(?:\A|(?<=[。;:,\n]))\s?"
    r"(?:(?:\d{1,2}|[一二三四五六七八九十]{1,3})(?:、|\.(?!\d)|\))"
    r"|第[一二三四五六七八九十]{1,2}(?=[,、:]))"
)
_PROVISION = (
    r"(?:《(?P<law>[^《》]{2,60})》\s?(?:\([^()]{0,20}\)\s?)?)?"
    rf"第\s?\(?(?P<pn>{_N})\)?\s?(?P<part>[条款项章编节])(?:\s?之(?P<sub>{_C}{{1,3}}|\d{{1,3}}))?"
    r"|(?<![\d.第])(?P<bare>\d{1,4})\s?条(?=规定|第|之|,|。|的规定)"
    r"|(?:\b(?i:(?P<word>articles?|art\.?|sections?|sec\.|chapters?|clauses?|paragraphs?))\s|§\s?)"
    r"(?P<number>\d{1,4})\b(?!\.\d)"
    r"(?:\s(?:of|in)\sthe\s(?P<act>[A-Z][A-Za-z]*(?:\s(?:of\s|and\s)?[A-Z][A-Za-z]*){0,6}))?"
)
_DATE = (
    rf"(?P<y>\d{{4}}|[〇零一二三四五六七八九]{{4}})\s?年(?!度)"
    rf"(?:\s?(?P<m>\d{{1,2}}|{_C}{{1,2}})\s?月(?:\s?(?P<d>\d{{1,2}}|{_C}{{1,3}})\s?[日号])?)?"
    rf"|(?P<m2>(?<!\d)\d{{1,2}}|{_C}{{1,2}})\s?月\s?(?P<d2>\d{{1,2}}|{_C}{{1,3}})\s?[日号]"
    r"|(?<![\d.])(?P<iy>\d{4})(?P<sep>[-/.])(?P<im>\d{1,2})(?P=sep)(?P<id>\d{1,2})(?!\d)"
    rf"|\b(?P<ed>\d{{1,2}})(?:st|nd|rd|th)?\s(?:of\s)?(?P<em>{_MONTH})(?:,?\s(?P<ey>\d{{4}})\b)?"
    rf"|\b(?P<em2>{_MONTH})\s(?P<ed2>\d{{1,2}})(?:st|nd|rd|th)?\b(?!:)(?:,?\s(?P<ey2>\d{{4}})\b)?"
    rf"|\b(?P<em3>{_MONTH}),?\s(?P<ey3>\d{{4}})\b"
)
_TIME = (
    r"\b(?P<h>\d{1,2}):(?P<min>\d{2})\b(?:\s?(?P<half>[ap])\.?m\b\.?)?"
    r"|\b(?P<h2>\d{1,2})\s?(?P<half2>[ap])\.?m\b\.?"
    rf"|(?!一时)(?P<h3>(?<!\d)\d{{1,2}}|[一二两三四五六七八九十]{{1,3}})"
    r"(?:时(?!间|候|期|效|刻)|点钟|点(?=前|后|至|到|整))"
    rf"(?:(?P<min3>\d{{1,2}}|{_C}{{1,3}})分|(?P<half3>半))?"
)
_SHARE = (
    rf"(?P<base>[百千万])分之(?P<share>{_CHINESE}|{numerals.ARABIC})"
    rf"|(?P<below>{_C}{{1,3}})分之(?P<above>{_C}{{1,3}})"
    r"|(?<![\d/⁄])(?P<a>\d{1,3})\s?[/⁄]\s?(?P<b>[1-9]\d{0,2})(?![\d/⁄])"
    r"|(?P<middle>一半|半数)"
    r"|(?i:\b(?P<over>one|two|three|half)[\s-](?P<under>third|fourth|quarter|fifth|sixth|tenth)s?\b)"
    r"|(?i:\b(?P<halfof>half)\s(?=of\b|the\b))"
)
_HALF = (
    r"半(?P<han_half>年|个月|月|个?小时|天|日)"
    r"|(?i:\bhalf\s(?:a|an)\s(?P<en_half>year|month|hour|day)\b)"
)
_IDENTIFIER = (
    r"(?<![\w.])(?=[A-Za-z0-9./_-]{0,63}\d)(?=[A-Za-z0-9./_-]{0,63}[A-Za-z])"
    rf"(?!\d[\d,.]*(?i:{units.LATIN}|st\b|nd\b|rd\b|th\b))"
    r"[A-Za-z0-9](?:[A-Za-z0-9-]|[./_](?=[A-Za-z0-9])){1,63}"
)
_QUANTITY = (
    rf"(?P<money>[$€£¥])?(?P<q>(?<![A-Za-z\d.]){_DIGITS}|{_CHINESE}{_COUNTS}|(?i:{numerals.ENGLISH}))"
    rf"[多余来几]?(?:[\s-]?(?P<unit>{units.UNIT}))?(?:\s(?P<noun>[a-z]{{3,20}})\b)?"
)
_HAN_END = (
    rf"[^{HAN}]|第|{_CHINESE}{_COUNTS}|{_CHINESE_SHARE}|半(?:年|个月|月|小时|天|日|数)|一半"
    rf"|{_C}{{1,2}}月{_C}{{1,3}}[日号]|[〇零一二三四五六七八九]{{4}}年"
    rf"|[一二两三四五六七八九十]{{1,3}}(?:时(?!间|候|期|效|刻)|点钟)|{WHOLE}|{AT_MOST}|{AT_LEAST}|$"
)

MASTER = re.compile(
    "|".join(
        f"(?P<{name}>{pattern})"
        for name, pattern in (
            ("address", r"\b(?:https?://|www\.)[^\s<>()\[\]{},。;]+|[\w.+-]{1,64}@[\w-]+\.[\w.]+"),
            ("label", _LABEL),
            ("whole", WHOLE),
            ("provision", _PROVISION),
            ("date", _DATE),
            ("time", _TIME),
            ("fraction", _SHARE),
            ("halved", _HALF),
            ("ordinal", rf"第\s?(?P<on>{_N})|\b(?P<oe>\d{{1,3}})(?:st|nd|rd|th)\b"),
            ("identifier", _IDENTIFIER),
            ("most", AT_MOST),
            ("least", AT_LEAST),
            ("quantity", _QUANTITY),
            ("title", r"《[^《》]{2,60}》"),
            ("latin", r"[A-Za-z]+(?:['’][A-Za-z]+)?"),
            ("han", rf"[{HAN}]+?(?={_HAN_END})"),
            ("end", r"[,;:。!?\n]|\.(?=\s|$)"),
        )
    )
)
