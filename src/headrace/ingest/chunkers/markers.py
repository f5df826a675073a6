"""Lines of a statute that open an article or a larger unit, told from references to them."""

from __future__ import annotations

import re
import unicodedata
from bisect import bisect_right
from collections import Counter
from collections.abc import Iterator
from itertools import pairwise

import msgspec

from headrace.types import Heading, Parsed, Span

_DIGITS = {char: value for value, char in enumerate("零一二三四五六七八九")} | {
    "〇": 0,
    "○": 0,
    "两": 2,
}
_POWERS = {"十": 10, "百": 100, "千": 1000}
_ROMAN = {"I": 1, "V": 5, "X": 10, "L": 50, "C": 100, "D": 500, "M": 1000}

_NUMBER = r"(?:[零〇○一二三四五六七八九十百千两]{1,12}|[0-9０-９]{1,5})"
_GAP = r"[ \t\u2002\u2003\u3000\xa0]{0,4}"
_START = r"^[ \t\u2002\u2003\u3000\xa0#>*_]{0,40}"
_WORDS = "Book|Title|Part|Division|Subpart|Chapter|Subchapter|Article|Art\\.|Section|Sec\\."

_CHINESE = re.compile(
    rf"{_START}(?P<label>第{_GAP}(?P<number>{_NUMBER}){_GAP}(?P<kind>分编|编|篇|部分|章|节|条)"
    rf"(?:{_GAP}之{_GAP}{_NUMBER})?)(?P<strong>(?=[\s:：.．【*_—–-]|$))?",
    re.MULTILINE,
)
_ENGLISH = re.compile(
    rf"{_START}(?P<label>(?P<kind>{_WORDS}|{_WORDS.upper()}|§{{1,2}}){_GAP}"
    r"(?P<number>[0-9]{1,5}(?:[.-][0-9]{1,5}){0,5}[A-Za-z]?|[IVXLCDM]{1,8}|[A-Z]))"
    r"(?P<strong>(?=[\s:.\[(*_—–-]|$))",
    re.MULTILINE,
)
_NUMBERED = re.compile(
    rf"{_START}(?P<label>(?P<number>[一二三四五六七八九十百]{{1,5}}))、", re.MULTILINE
)
_BACK = re.compile(
    rf"{_START}(?P<label>(?:附{_GAP}[则件录表]|序{_GAP}言){_GAP}{_NUMBER}?)(?=[\s:：]|$)",
    re.MULTILINE,
)

_REFERENCE = re.compile(
    r"[ \u3000]*(?:的|之?规定|之外|以外|所称|所列|相应改|[、，,；;。)）]"
    rf"|(?:和|或|及|与|至|到|或者|以及)?第{_NUMBER}[条款项节章编])"
)
_ENGLISH_REFERENCE = re.compile(r"[ \t]*(?:[a-z,;)]|\(\w{1,4}\))")

_RANKS = {
    "book": 1, "title": 1, "编": 1, "篇": 1, "part": 2, "division": 2, "分编": 2, "部分": 2,
    "subpart": 3, "chapter": 4, "章": 4, "subchapter": 5, "节": 5, "article": 6, "section": 6,
}  # fmt: skip
_FAMILIES = {"art.": "article", "sec.": "section", "§": "section", "§§": "section"}

_LONGEST_UNIT = 80
_WIDEST_GAP = 2


class Marker(msgspec.Struct, frozen=True):
    """A line that opens an article or a larger unit. `span` is the line with its end, `family`
    the kind of number (`条`, `section`, ...), `label` its name (`第四十四条`), `title` the whole
    line's words; `rank` orders units, 1 outermost."""

    span: Span
    family: str
    label: str
    title: str
    number: int
    rank: int
    article: bool


class Line(msgspec.Struct, frozen=True):
    """A line that may be a marker: `rest` follows the label, `strong` says that something
    between label and text sets it off, `heading` that the reader found a heading here."""

    marker: Marker
    rest: str
    strong: bool
    heading: bool
    after_blank: bool


def find_markers(parsed: Parsed) -> list[Marker]:
    """The articles and units of a statute in order. Numbered items (`一、`) count as its articles
    if it has no other."""
    heads = {heading.span.start: heading for heading in parsed.headings}
    lines = sorted(
        (
            line
            for pattern in (_CHINESE, _ENGLISH, _BACK)
            for line in _lines(pattern, parsed, heads)
        ),
        key=lambda line: line.marker.span.start,
    )
    units = _units([line for line in lines if line.marker.family not in _ARTICLES])
    articles = _articles([line for line in lines if line.marker.family in _ARTICLES])
    if not articles:
        articles = _numbered(list(_lines(_NUMBERED, parsed, heads)))
    return sorted(units + _with_leaves(articles), key=lambda marker: marker.span.start)


_ARTICLES = frozenset({"条", "article", "section"})


def _lines(pattern: re.Pattern[str], parsed: Parsed, heads: dict[int, Heading]) -> Iterator[Line]:
    text = parsed.text
    hidden = sorted(exclusion.span.end for exclusion in parsed.hidden)
    starts = sorted(exclusion.span.start for exclusion in parsed.hidden)
    for match in pattern.finditer(text):
        start = match.start()
        if bisect_right(starts, start) > bisect_right(hidden, start):
            continue
        stop = text.find("\n", match.end())
        stop = len(text) if stop < 0 else stop
        groups = match.groupdict()
        kind = groups.get("kind", "back").lower()
        family = _FAMILIES.get(kind, kind)
        label = match["label"]
        label = "".join(label.split()) if label[0] > "\xff" else " ".join(label.split())
        heading = heads.get(start)
        title = heading.title if heading else " ".join(text[start:stop].split()).strip("#*_> ")
        marker = Marker(
            Span(start, min(stop + 1, len(text))), family, label, title,
            number_value(groups.get("number", "")), _RANKS.get(family, 1), family in _ARTICLES,
        )  # fmt: skip
        yield Line(
            marker,
            text[match.end() : stop],
            groups.get("strong") is not None,
            heading is not None,
            not text[max(0, start - 2) : start].strip("\n"),
        )


def _units(lines: list[Line]) -> list[Marker]:
    """Units stand alone on a short line. Where the reader found a good part of them as headings
    (Markdown), the others are references."""
    lines = [line for line in lines if line.heading or _is_unit(line)]
    headed = sum(line.heading for line in lines)
    if headed >= 0.4 * len(lines):
        lines = [line for line in lines if line.heading]
    return [line.marker for line in lines]


def _is_unit(line: Line) -> bool:
    title, rest = line.marker.title, line.rest.strip()
    if len(title) > _LONGEST_UNIT or re.search("[。；，]", title):
        return False
    if line.marker.label[0] <= "\xff":
        return not _ENGLISH_REFERENCE.match(line.rest) and not rest.endswith((".", ";", ","))
    if _REFERENCE.match(line.rest):
        return False
    return line.strong or len(title) <= _LONGEST_UNIT // 3 or not rest


def _articles(lines: list[Line]) -> list[Marker]:
    """Articles, told from references at a line's start by what follows the label and, where that
    does not decide, by whether the number continues the last one."""
    found: list[Marker] = []
    last = 0
    for line in lines:
        number = line.marker.number
        continues = number == 1 or last <= number <= last + _WIDEST_GAP
        if line.heading or _is_article(line, continues):
            found.append(line.marker)
            last = number
    return found


def _is_article(line: Line, continues: bool) -> bool:
    rest = line.rest
    if line.marker.family == "条":
        if _REFERENCE.match(rest):
            return False
        return continues or (line.strong and bool(rest.strip()))
    if _ENGLISH_REFERENCE.match(rest):
        return False
    return continues or line.after_blank


def _numbered(lines: list[Line]) -> list[Marker]:
    found: list[Marker] = []
    for line in lines:
        if not line.heading and line.marker.number == len(found) + 1:
            found.append(msgspec.structs.replace(line.marker, article=True))
    return found if len(found) > 1 else []


def _with_leaves(articles: list[Marker]) -> list[Marker]:
    """Where English articles contain sections, the fewer of the two are units."""
    counts = Counter(marker.family for marker in articles)
    if not (counts["article"] and counts["section"]):
        return articles
    unit = "article" if counts["section"] > counts["article"] else "section"
    return [
        msgspec.structs.replace(marker, article=False) if marker.family == unit else marker
        for marker in articles
    ]


def number_value(text: str) -> int:
    """The value of a Chinese, Arabic or Roman numeral; the first part of `3.1`; 0 for others."""
    text = unicodedata.normalize("NFKC", text)
    if found := re.match(r"[0-9]+", text):
        return int(found.group())
    if set(text) <= _DIGITS.keys():
        return int("".join(str(_DIGITS[char]) for char in text) or "0")
    if set(text) <= _DIGITS.keys() | _POWERS.keys():
        return _chinese_value(text)
    if set(text.upper()) <= _ROMAN.keys():
        values = [_ROMAN[char] for char in text.upper()] + [0]
        return sum(-v if v < after else v for v, after in pairwise(values))
    return 0


def _chinese_value(text: str) -> int:
    total = digit = 0
    for char in text:
        if char in _DIGITS:
            digit = _DIGITS[char]
        else:
            total += (digit or 1) * _POWERS[char]
            digit = 0
    return total + digit
