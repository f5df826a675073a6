"""Versions of one text: the newer is answered from, the older is named.

Two documents are versions of one text if their titles are equal without what dates them, and both
dates are known and differ. A date comes from, in this order: the metadata (given or front matter),
the title, the name of the file. What has no date is nobody's older version.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from pathlib import PurePosixPath
from typing import NamedTuple
from unicodedata import normalize

from headrace.retrieval.base import Index
from headrace.types import Conflict, Hit

KEYS = (
    *("effective", "effective_date", "valid_from", "date", "published", "updated", "year"),
    *("version", "施行日期", "生效日期", "修订日期", "公布日期", "发布日期", "日期", "版本"),
)
"""Entries of the metadata that date a document, the most telling first."""

_DATE = re.compile(
    r"(?<!\d)(?P<year>(?:1[89]|20)\d\d)"
    r"(?:\s*[-/.年_]\s*(?P<month>0?[1-9]|1[0-2])(?!\d)(?:\s*[-/.月_]\s*(?P<day>[0-3]?\d)(?!\d))?)?"
    r"(?!\d)"
)
_NUMBERS = r"\d{1,9}(?:\.\d{1,9}){0,7}"
_VERSION = re.compile(_NUMBERS)
_NUMBER = re.compile(
    rf"(?i)(?<![a-z0-9])(?:v|ver|version|rev|revision)[\s._-]*({_NUMBERS})(?!\.?\d)\b"
)
_BRACKETS = re.compile(r"[(\[（【〔][^()\[\]（）【】〔〕]*[)\]）】〕]")
_AMENDED = re.compile(r"(?i)\b(?:revised|amended|edition|as of)\b|修订版?|修正版?|版$")
_NOT_A_LETTER = re.compile(r"[\W_]+")

Date = tuple[int, ...]


class Dated(NamedTuple):
    """A document's date (year, month, day as far as known; after those, or alone, the parts of its
    version number), and how it is written there."""

    value: Date
    written: str


class Current(NamedTuple):
    """The hits to answer from, and what was put aside for them."""

    hits: tuple[Hit, ...]
    superseded: tuple[Conflict, ...]


def current(hits: Sequence[Hit], index: Index) -> Current:
    """Of each text, hits of the newest version before those of older ones; where both versions have
    the same place (article, heading) among the hits, the older one's hit is left out. Blocks where
    titles are shared: their documents are read."""
    groups: dict[str, dict[str, Hit]] = {}
    for hit in hits:
        groups.setdefault(base_title(hit.title), {}).setdefault(hit.document_id, hit)
    rivals = [group for title, group in groups.items() if title and len(group) > 1]
    dates: dict[str, Dated] = {}
    newest: dict[str, str] = {}
    found: list[Conflict] = []
    for group in rivals:
        known = {name: dated for name, hit in group.items() if (dated := _dated(hit, index))}
        order = sorted(known, key=lambda name: known[name].value, reverse=True)
        for older in order[1:]:
            if not _comparable(known[order[0]], known[older]):
                continue
            newest[older] = order[0]
            found.append(_superseded(group[order[0]], group[older], known[order[0]], known[older]))
        dates |= known
    if not found:
        return Current(tuple(hits), ())
    return Current(_preferred(hits, newest), tuple(found))


def base_title(title: str) -> str:
    """A title without what dates it: `采矿条例（2018年修订）` and `采矿条例 2009` are one."""
    plain = normalize("NFKC", title)
    plain = _BRACKETS.sub(
        lambda m: " " if dated(m.group()) or _AMENDED.search(m.group()) else m[0], plain
    )
    for pattern in (_NUMBER, _DATE, _AMENDED):
        plain = pattern.sub(" ", plain)
    return _NOT_A_LETTER.sub("", plain).casefold()


def dated(text: str) -> Dated | None:
    """The last date in a text (a title says when it was passed, then when it was amended), or its
    version number."""
    plain = normalize("NFKC", text)
    found = list(_DATE.finditer(plain))
    if found:
        last = max(found, key=_parts)
        return Dated(_parts(last), last.group().strip(" -_."))
    number = _NUMBER.search(plain)
    if number is None:
        return None
    return Dated((0, *map(int, number[1].split("."))), number.group().strip())


def _parts(match: re.Match[str]) -> Date:
    return tuple(int(part) for part in match.groups() if part is not None)


def _dated(hit: Hit, index: Index) -> Dated | None:
    document = index.document(hit.document_id)
    stated = {**document.parsed.metadata, **hit.metadata} if document else dict(hit.metadata)
    texts = [stated[key] for key in KEYS if key in stated]
    texts += [hit.title, PurePosixPath(hit.source).stem]
    for text in texts:
        found = dated(text)
        if found is None and text in stated.values() and _VERSION.fullmatch(text.strip(" .")):
            found = Dated((0, *map(int, text.strip(" .").split("."))), text.strip())
        if found is not None:
            return found
    return None


def _comparable(newer: Dated, older: Dated) -> bool:
    """Two dates, or two version numbers; and one of them is later as far as both are known (2018 is
    not later than May 2018)."""
    if (newer.value[0] == 0) != (older.value[0] == 0):
        return False
    both = min(len(newer.value), len(older.value))
    return newer.value[:both] > older.value[:both] or (
        newer.value[0] == 0 and newer.value > older.value
    )


def _superseded(newer: Hit, older: Hit, new: Dated, old: Dated) -> Conflict:
    sources = (newer.source, older.source)
    return Conflict("superseded", sources, (new.written, old.written))


def _preferred(hits: Sequence[Hit], newest: dict[str, str]) -> tuple[Hit, ...]:
    """`newest`: which document took the place of an older one."""
    places = {(hit.document_id, _place(hit)) for hit in hits}
    new = [hit for hit in hits if hit.document_id not in newest]
    old = [
        hit
        for hit in hits
        if hit.document_id in newest and (newest[hit.document_id], _place(hit)) not in places
    ]
    return (*new, *old)


def _place(hit: Hit) -> str:
    """The last title over a hit, without a date."""
    return base_title(hit.path[-1]) if hit.path else ""
