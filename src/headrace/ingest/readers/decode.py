"""From bytes to text: a byte-order mark decides, then UTF-8 if it fits, then the likeliest of the
older encodings.

The older ones are told apart by counting characters that are usual in the language they were made
for. This is right from about four Chinese characters on, where statistics made for whole pages
are not; those (charset-normalizer) are asked last, for the many encodings of alphabets.
"""

from __future__ import annotations

import codecs
import re
from functools import cache
from typing import NamedTuple

import charset_normalizer

from headrace.errors import ReadError
from headrace.ingest.readers.source import Source

_MARKS = (
    (codecs.BOM_UTF8, "utf-8-sig"),
    (codecs.BOM_UTF32_LE, "utf-32"),
    (codecs.BOM_UTF32_BE, "utf-32"),
    (codecs.BOM_UTF16_LE, "utf-16"),
    (codecs.BOM_UTF16_BE, "utf-16"),
)
_WHOLE = {"gb2312": "gb18030", "gbk": "gb18030", "iso-8859-1": "cp1252", "ascii": "utf-8"}
_ENCODINGS = re.compile(
    r"(?i)utf-?(?:8|16|16le|16be)|gb\w+|big5\S*|shift.?jis|sjis|euc-\w+|iso-8859-\d+"
    r"|windows-\d+|koi8-[ru]|cp\d+|(?:us-)?ascii|iso-2022-jp"
)
_SAMPLE = 1 << 16
_CONTROL = re.compile(r"[\x00-\x08\x0e-\x1a\x1c-\x1f\x7f]")

# Lead bytes and trail bytes of the usual characters, and whether kana must be among them.
_USUAL: dict[str, tuple[tuple[int, int], ...]] = {
    "gb18030": ((0xA1, 0xA1), (0xA3, 0xA3), (0xB0, 0xD7)),
    "big5": ((0xA1, 0xA1), (0xA4, 0xC6)),
    "shift_jis": ((0x81, 0x83), (0x88, 0x97)),
    "euc_jp": ((0xA1, 0xA1), (0xA3, 0xA5), (0xB0, 0xCF)),
    "euc_kr": ((0xA1, 0xA1), (0xB0, 0xC8)),
}
_JAPANESE = ("shift_jis", "euc_jp")
_FREQUENT = frozenset(
    "的一是在不了有和人这中大为上个国我以要他时来用们生到作地于出就分对成会可主发年动同工也能下过"
    "子说产种面而方后多定行学法所民得经十三之进着等部度家力理起小物现实加量都两体制当使点从业本性"
    "应开合还因由其前外天政四日社义事平相全表间与关各重新内数正心第条规保章权任责违反行为规劳合同"
    "编号名称地址电话价格数量日期备注姓部门项目类型状态说明单位金额时间请假员司管理制度水市城通知"
    "這個們來說時國學會對發過還後為於與無條規權實經業產動勞應當關員機關處罰違"
    "のにはをたがでてとしれさあいうかなもりるこ、。，"
    "이다는을가의에한고하지로를은사기도어"
)


class Decoded(NamedTuple):
    text: str
    encoding: str
    notes: tuple[str, ...] = ()


def decode(source: Source, stated: str | None = None) -> Decoded:
    """The text of a file that should be text; `stated` is the encoding it claims. Raises
    `ReadError` if it is binary or in no encoding that can be told."""
    data, name = source.data, source.path.name
    decoded = (
        _marked(data, name)
        or _stated(data, stated)
        or _utf16_unmarked(data)
        or _utf8(data)
        or _legacy(data)
    )
    if decoded is None:
        raise ReadError(
            f"{name}: its character encoding cannot be told; save it as UTF-8 and try again"
        )
    _refuse_binary(decoded.text, name)
    return decoded


def _refuse_binary(text: str, name: str) -> None:
    sample = text[:_SAMPLE]
    controls = len(_CONTROL.findall(sample))
    if controls > max(3, len(sample) // 200):
        raise ReadError(
            f"{name} holds binary data, not text; give it the extension of its real format"
        )


def _marked(data: bytes, name: str) -> Decoded | None:
    for mark, encoding in _MARKS:
        if data.startswith(mark):
            return _tolerant(data, encoding) or _fail(name, encoding)
    return None


def _fail(name: str, encoding: str) -> Decoded:
    raise ReadError(f"{name} is marked as {encoding} but is not; save it as UTF-8 and try again")


def _stated(data: bytes, stated: str | None) -> Decoded | None:
    """What the file says of itself, if it is so. The common names of subsets stand for the whole
    encoding, as in every browser."""
    if stated is None or not _ENCODINGS.fullmatch(stated):
        return None
    name = _WHOLE.get(stated.lower(), stated.lower())
    try:
        return Decoded(data.decode(name), name)
    except (LookupError, UnicodeError, ValueError):
        return None


def _tolerant(data: bytes, encoding: str) -> Decoded | None:
    """Decode with at most one wrong character in two hundred, each replaced and counted."""
    try:
        return Decoded(data.decode(encoding), encoding)
    except UnicodeError:
        text = data.decode(encoding, errors="replace")
    wrong = text.count("\ufffd")
    if wrong > max(1, len(text) // 200):
        return None
    note = f"{wrong} characters are not valid {encoding} and were replaced"
    return Decoded(text, encoding, (note,))


def _utf8(data: bytes) -> Decoded | None:
    try:
        return Decoded(data.decode("utf-8"), "utf-8")
    except UnicodeDecodeError as error:
        # Cut off in the middle of a character, or a stray byte in what is otherwise UTF-8.
        multibyte = len(re.findall(rb"[\xc2-\xf4][\x80-\xbf]+", data[:_SAMPLE]))
        high = len(re.findall(rb"[\x80-\xff]+", data[:_SAMPLE]))
        if error.start < len(data) - 3 and multibyte < 0.95 * high:
            return None
        return _tolerant(data, "utf-8") if multibyte else None


def _utf16_unmarked(data: bytes) -> Decoded | None:
    """UTF-16 without a mark, told by where the zero bytes (or the lines' ends) are."""
    sample = data[:_SAMPLE]
    if len(data) % 2 or len(data) < 4 or b"\0" not in sample:
        return None
    even, odd = sample[0::2].count(0), sample[1::2].count(0)
    if max(even, odd) < max(2, len(sample) // 20, 3 * min(even, odd) + 1):
        return None
    try:
        text = data.decode("utf-16-le" if odd > even else "utf-16-be")
    except UnicodeDecodeError:
        return None
    return Decoded(text, "utf-16-le" if odd > even else "utf-16-be")


def _legacy(data: bytes) -> Decoded | None:
    sample = data[:_SAMPLE]
    if b"\0" in sample:
        return None
    scores = {encoding: _score(sample, encoding) for encoding in _USUAL}
    scores["cp1252"] = _latin_score(sample)
    best = max(scores, key=lambda encoding: scores[encoding])
    if scores[best] >= 0.75 and (decoded := _tolerant(data, best)):
        return decoded
    guess = charset_normalizer.from_bytes(sample).best()
    return _tolerant(data, guess.encoding) if guess else None


@cache
def _usual(encoding: str) -> frozenset[str]:
    pairs = (
        bytes((lead, trail)).decode(encoding, errors="ignore")
        for first, last in _USUAL[encoding]
        for lead in range(first, last + 1)
        for trail in range(0x40, 0xFF)
    )
    return frozenset(char for char in pairs if len(char) == 1 and char > "\x7f")


def _score(sample: bytes, encoding: str) -> float:
    """How usual the characters are: 1 if all are, up to 2 if all are frequent, 0 if the bytes do
    not fit the encoding."""
    try:
        text = codecs.getincrementaldecoder(encoding)().decode(sample)
    except UnicodeDecodeError as error:
        if error.start < len(sample) * 0.5:
            return 0.0
        text = sample[: error.start].decode(encoding, errors="ignore")
    foreign = [char for char in text if char > "\x7f"]
    if not foreign:
        return 0.0
    usual = _usual(encoding)
    score = (
        sum(char in usual for char in foreign) + sum(char in _FREQUENT for char in foreign)
    ) / len(foreign)
    if encoding in _JAPANESE and not any("\u3040" <= char <= "\u30ff" for char in foreign):
        score *= 0.7  # nearly all Japanese text has kana
    if encoding == "euc_kr" and sum("\uac00" <= char <= "\ud7a3" for char in foreign) >= 8:
        score += 0.2 * all(char in usual for char in foreign)  # Chinese would give hanja as well
    return score


def _latin_score(sample: bytes) -> float:
    """Western text: bytes above 127 stand alone, beside ASCII letters, and not too many."""
    runs = re.findall(rb"[\x80-\xff]+", sample)
    lone = re.findall(
        rb"(?:[A-Za-z][\xc0-\xd6\xd8-\xf6\xf8-\xff]|[\xc0-\xd6\xd8-\xf6\xf8-\xff](?=[A-Za-z])"
        rb"|[\x80\x85\x91-\x97\xa0-\xbf](?![\x80-\xff]))",
        sample,
    )
    high = sum(map(len, runs))
    if not runs or high > 0.3 * len(sample):
        return 0.0
    single = sum(len(run) == 1 for run in runs)
    return min(1.0, len(lone) / len(runs)) * single / len(runs) * 1.2
