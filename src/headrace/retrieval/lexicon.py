"""What a collection names and defines: its titles and its definitions, by the words that say them.

A *name* is what a document or a section of it is called; it leads from a passage that mentions it
to the passage that it belongs to. A *definition* says what a term of the collection means
(本法所称X，是指…; `X means ...`; a row of a glossary), so that a question in other words can be
given it.

The lexicon is derived from SQLite like the two indexes: it carries the generation that it reflects,
catches up from the change log, lies in a file that can be deleted at any time, and is made anew if
it cannot be read. It holds chunk ids, and whoever uses one filters it by what the caller may read.
"""

from __future__ import annotations

import logging
import re
import sqlite3
import unicodedata
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager
from functools import cached_property
from pathlib import Path
from threading import Lock

import msgspec

from headrace.retrieval.database import translated
from headrace.retrieval.files import replace_file
from headrace.retrieval.rows import (
    StoredChunk,
    all_documents,
    changes_since,
    generation_of,
    read_chunks,
)

logger = logging.getLogger(__name__)

FILE = "lexicon.msgpack"
VERSION = 1
"""Raise it when what is found in a chunk changes, and lexicons are made anew."""

MOST_NAMES = 200_000
"""Names and definitions beyond which none are added: some 50 MiB. Larger collections are searched
by their indexes alone."""

MOST_OWNERS = 4
"""Chunks that one name may belong to; what more sections are called (`Introduction`) names none."""

LONGEST_NAME = 80
_LONGEST_GLOSS = 300
_HAN = "\u3400-\u9fff"
_HAN_CHARACTER = re.compile(f"[{_HAN}]")
_PIECE = re.compile(rf"[{_HAN}]|[^\W_{_HAN}]+")  # words; each Han character is one
_ASIDE = re.compile(r"\s*[（(【\[][^()（）\[\]【】]{0,60}[）)】\]]\s*$")
_STATE = "中华人民共和国"
_DEFINED_ZH = re.compile(
    r"(?:所称(?:的)?|(?:^|\n|。|；|：)\s*[（(]?[一二三四五六七八九十\d]{0,3}[）)、.]?\s*)"
    rf"[“\"《]?(?P<term>[{_HAN}A-Za-z0-9、]{{2,16}}?)[”\"》]?\s*[，：,:]?\s*(?:是指|系指|指)"
    rf"(?P<gloss>[^。；\n]{{4,{_LONGEST_GLOSS}}})"
)
_DEFINED_EN = re.compile(
    r"(?:^|(?<=[.;:]\s)|\n)\s*(?:[-*]\s+|\(?\w{1,3}[.)]\s+)?(?:an?\s+|the\s+)?[“\"*_`]{0,3}"
    r"(?P<term>[^\W\d_][\w'’./-]*(?: [\w'’./-]+){0,4}?)[”\"*_`]{0,3}\s+"
    r"(?:means|refers to|is defined as|stands for|denotes)\s+"
    rf"(?P<gloss>[^.;\n]{{8,{_LONGEST_GLOSS}}})",
    re.IGNORECASE,
)
_ROW = re.compile(
    r"^(?:term|word|abbreviation|acronym|name|术语|名词|缩写|词语)\s*[:：]\s*(?P<term>[^\n]{1,80})\n"
    r"(?:[^\n]*\n){0,3}?"
    r"(?:definition|meaning|description|expansion|explanation|定义|含义|释义|解释|说明)\s*[:：]\s*"
    rf"(?P<gloss>[^\n]{{2,{_LONGEST_GLOSS}}})",
    re.IGNORECASE | re.MULTILINE,
)
_CALLED = re.compile(r"^[本前该][\u3400-\u9fff]{0,6}所称的?|是$")
_NO_TERM = re.compile(
    r"^(?:it|this|that|these|those|which|what|he|she|they|there|such|its|his|her|their|name|title"
    r"|term|word)\b|^[其该此这那第前本]|[、不得能]$",
    re.IGNORECASE,
)
"""What is no term: a pronoun before `means`, 本法 before 所指, half of a list."""


class Definition(msgspec.Struct, frozen=True, array_like=True):
    """`chunk` says that `term` means `gloss`."""

    term: str
    gloss: str
    chunk: int


class Named(msgspec.Struct, frozen=True):
    """A name that a text mentions at `[start, end)`, as the text writes it, and the chunks that it
    belongs to."""

    text: str
    start: int
    end: int
    chunks: tuple[int, ...]


class Lexicon:
    """Names (by `key`) with the first chunk of what they name, and definitions by term. Immutable;
    what was deleted since is in it still."""

    def __init__(
        self,
        generation: int,
        names: Mapping[str, tuple[int, ...]],
        definitions: Mapping[str, tuple[Definition, ...]],
    ) -> None:
        self.generation = generation
        self.names = names
        self.definitions = definitions

    def mentioned(self, text: str) -> list[Named]:
        """The names in a text, from left to right, the longest at each place. One in letters with
        case counts only where it is written with a capital or a digit. Linear in the text's
        length."""
        words = [(*word.span(), _folded(word.group())) for word in _PIECE.finditer(text)]
        found: list[Named] = []
        at = 0
        while at < len(words):
            step = 1
            for length in self._starts.get(_head([word for _, _, word in words[at : at + 2]]), ()):
                piece = words[at : at + length]
                if len(piece) < length:
                    continue
                name = _joined([word for _, _, word in piece])
                chunks = self.names.get(name)
                written = text[piece[0][0] : piece[-1][1]]
                if chunks and len(chunks) <= MOST_OWNERS and _looks_named(written):
                    found.append(Named(written, piece[0][0], piece[-1][1], chunks))
                    step = length
                    break
            at += step
        return found

    @cached_property
    def _starts(self) -> dict[str, tuple[int, ...]]:
        """How many words the names have that begin alike, the longest first."""
        lengths: dict[str, set[int]] = {}
        for name in self.names:
            words = _PIECE.findall(name)
            lengths.setdefault(_head(words), set()).add(len(words))
        return {head: tuple(sorted(found, reverse=True)) for head, found in lengths.items()}


def key(name: str) -> str:
    """A name in one form: NFKC, no case, words with one space between, none between Han
    characters."""
    return _joined(_PIECE.findall(_folded(name)))


def says(text: str, names: Collection[str]) -> bool:
    """Whether a text has one of the names (as `key` gives them), whole words only. For some
    names, this is much faster than `Lexicon.mentioned`."""
    plain = f" {key(text)} "
    return any(
        name in plain if _HAN_CHARACTER.match(name) else f" {name} " in plain for name in names
    )


def _folded(text: str) -> str:
    if not text.isascii():
        text = unicodedata.normalize("NFKC", text.encode("utf-8", "replace").decode())
    return text.casefold()


def spellings(title: str) -> list[str]:
    """The keys under which a title is known: without what stands in brackets after it
    (`Always (2011 film)`), and without the state's name before a law's (中华人民共和国民法典)."""
    full = key(title)
    short = key(_ASIDE.sub("", title))
    found = {full: None, short: None}
    for name in (full, short):
        if name.startswith(_STATE) and len(name) > len(_STATE) + 1:
            found[name.removeprefix(_STATE)] = None
    return [name for name in found if _worth(name)]


def definitions_in(chunk: StoredChunk) -> Iterator[Definition]:
    """The definitions that a chunk's text holds."""
    for pattern in (_DEFINED_ZH, _DEFINED_EN, _ROW):
        for match in pattern.finditer(chunk.text):
            term = _CALLED.sub("", match["term"].strip())
            if len(term) > 1 and not _NO_TERM.search(term):
                yield Definition(term, match["gloss"].strip(), chunk.id)


def caught_up(old: Lexicon | None, db: sqlite3.Connection) -> Lexicon:
    """The lexicon of the present generation, from an older one where the change log reaches back
    to it. Within a transaction."""
    now = generation_of(db)
    if old is not None and old.generation == now:
        return old
    changes = None if old is None else changes_since(db, old.generation)
    if old is None or changes is None:
        old, changes = Lexicon(0, {}, {}), all_documents(db)
    names, definitions = dict(old.names), dict(old.definitions)
    for change in changes:
        row = db.execute(
            "SELECT title FROM documents WHERE number = ?", (change.document,)
        ).fetchone()
        if change.added and row:
            _add(names, definitions, row[0], read_chunks(db, change.first, change.last))
    return Lexicon(now, names, definitions)


class _Stored(msgspec.Struct, frozen=True, array_like=True):
    version: int
    generation: int
    names: dict[str, tuple[int, ...]]
    definitions: dict[str, tuple[Definition, ...]]


class LexiconKeeper:
    """The lexicon of one collection: in memory, and in a file beside its SQLite file. Thread-safe;
    processes that write the file at once each replace it whole."""

    def __init__(self, folder: Path) -> None:
        self._path = folder / FILE
        self._lock = Lock()
        self._held: Lexicon | None = None

    def newest(self, reading: Callable[[], AbstractContextManager[sqlite3.Connection]]) -> Lexicon:
        """The present generation's. The first time, it takes what the chunks take to be read: 4 s
        for 58,594 articles."""
        with self._lock:
            if self._held is None:
                self._held = self._read()
            with reading() as db:
                self._held = caught_up(self._held, db)
            return self._held

    def save(self) -> None:
        """Write down what is held, for the next process. Raises `StorageError`."""
        with self._lock, translated(self._path):
            if self._held is None:
                return
            held = self._held
            stored = _Stored(VERSION, held.generation, dict(held.names), dict(held.definitions))
            replace_file(self._path, msgspec.msgpack.encode(stored))

    def _read(self) -> Lexicon | None:
        """What the file holds; nothing, if it is of another version or broken: it is derived."""
        try:
            stored = msgspec.msgpack.decode(self._path.read_bytes(), type=_Stored)
        except FileNotFoundError:
            return None
        except (OSError, msgspec.DecodeError) as error:
            logger.warning("%s cannot be read (%s) and is made anew", self._path, error)
            return None
        if stored.version != VERSION:
            return None
        return Lexicon(stored.generation, stored.names, stored.definitions)


def _add(
    names: dict[str, tuple[int, ...]],
    definitions: dict[str, tuple[Definition, ...]],
    title: str,
    chunks: Iterator[StoredChunk],
) -> None:
    """What one document brings: its title, each heading where it first stands, its definitions."""
    seen: set[str] = set()
    for chunk in chunks:
        for heading in (title, *chunk.path):
            for name in spellings(heading):
                if name not in seen and len(names) < MOST_NAMES:
                    seen.add(name)
                    owners = names.get(name, ())
                    if len(owners) <= MOST_OWNERS and chunk.id not in owners:
                        names[name] = (*owners, chunk.id)
        for definition in definitions_in(chunk):
            given = definitions.get(definition.term, ())
            if len(given) < MOST_OWNERS and len(definitions) < MOST_NAMES:
                definitions[definition.term] = (*given, definition)


def _head(words: Sequence[str]) -> str:
    """What names are looked up by: the first word, or the first two Han characters."""
    return "".join(words[:2]) if _HAN_CHARACTER.match(words[0]) else words[0]


def _joined(words: Sequence[str]) -> str:
    out: list[str] = []
    if not any(map(_HAN_CHARACTER.match, words)):
        return " ".join(words)
    for word in words:
        if out and not (_HAN_CHARACTER.match(word) and _HAN_CHARACTER.match(out[-1][-1])):
            out.append(" ")
        out.append(word)
    return "".join(out)


def _worth(name: str) -> bool:
    """Whether it can name something: not a number, not a letter or two, not a provision (第四条 is
    in every law), no sentence."""
    if len(name) > LONGEST_NAME or name.replace(" ", "").isdigit():
        return False
    if _HAN_CHARACTER.match(name):
        return len(name) > 2 and not name.startswith("第")
    return len(name) > 2 and not re.match(r"(?:article|chapter|section|part|annex) \w+$", name)


def _looks_named(written: str) -> bool:
    """A capital, a digit, or a script without case."""
    return any(c.isupper() or c.isdigit() or (c.isalpha() and not c.islower()) for c in written)
