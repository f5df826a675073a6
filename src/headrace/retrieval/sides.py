"""Another index of the same documents beside the one in use: cut or embedded differently.

There are at most two: `next`, which a reindexing fills, and `previous`, which was in use before the
last switch. Their chunks and vectors stand in the same tables as all others. Which chunks are a
document's says `documents` for the index in use and `side_documents` for a side, so a switch moves
no chunk: it exchanges the two, in one transaction. A document that is changed or deleted leaves the
sides by the same transaction by which it leaves the index in use.

A connection with `views` of a side sees it as if it were in use, so everything that reads (search,
filters, the making of derived files) works on it unchanged.

All functions but `views` work within a transaction.
"""

from __future__ import annotations

import sqlite3
from collections.abc import Sequence
from typing import NamedTuple, TypeAlias

import msgspec

from headrace.errors import StorageError
from headrace.retrieval.rows import Pointers, generation_of

Side: TypeAlias = str
NEXT: Side = "next"
PREVIOUS: Side = "previous"
_MOVING: Side = "moving"

_TABLE = """
CREATE TABLE IF NOT EXISTS side_documents (
    side TEXT NOT NULL, document INTEGER NOT NULL, chunker TEXT NOT NULL,
    first INTEGER NOT NULL, last INTEGER NOT NULL, exclusions BLOB NOT NULL,
    PRIMARY KEY (side, document)
) WITHOUT ROWID
"""
_DERIVED = ("lexical", "dense", "lexical_generation")
_NUMBERS = ("generation", "floor")
_OWN = ("embedder", "fingerprint", "dimensions", "chunker", "chunk_tokens", *_DERIVED, *_NUMBERS)


class IndexSettings(msgspec.Struct, frozen=True):
    """How an index is made of documents. `chunker` is what was asked for, such as `auto`."""

    embedder: str
    fingerprint: str
    dimensions: int
    chunker: str
    chunk_tokens: int


class Unfilled(NamedTuple):
    """A document that a side lacks."""

    number: int
    id: str
    source: str
    characters: int


def views(side: Side) -> tuple[str, ...]:
    """For a connection that shall see `side` in the place of the index in use: as it would be if
    it were switched to now, in the next generation. Derived files made through it need nothing
    after the switch. Its change log reaches back nowhere, so a reader always starts afresh."""
    own = ", ".join(f"'{key}'" for key in _OWN)
    return (
        "CREATE TEMP VIEW documents AS SELECT d.number, d.id, d.source, d.sha256, d.title, "
        "d.media_type, s.chunker, d.characters, d.added, d.labels, d.metadata, d.own_metadata, "
        "s.first, s.last, d.parsed, s.exclusions FROM main.documents d "
        f"JOIN main.side_documents s ON s.document = d.number AND s.side = '{side}'",
        f"CREATE TEMP VIEW meta AS SELECT key, value FROM main.meta WHERE key NOT IN ({own}) "
        f"UNION ALL SELECT substr(key, {len(side) + 2}), value FROM main.meta "
        f"WHERE key GLOB '{side}.*' "
        + "".join(
            f"UNION ALL SELECT '{key}', CAST(value + 1 AS TEXT) FROM main.meta "
            "WHERE key = 'generation' "
            for key in _NUMBERS
        ),
    )


def ensure(db: sqlite3.Connection) -> None:
    db.execute(_TABLE)


def settings(db: sqlite3.Connection, side: Side | None = None) -> IndexSettings | None:
    """Of a side, if it is there, or of the index in use, if its chunker is known: a collection that
    was never reindexed has that of the configuration."""
    prefix = "" if side is None else f"{side}."
    rows = dict(db.execute("SELECT key, value FROM meta"))
    names = IndexSettings.__struct_fields__
    if not all(prefix + name in rows for name in names):
        return None
    return msgspec.convert(
        {name: rows[prefix + name] for name in names}, IndexSettings, strict=False
    )


def begin(db: sqlite3.Connection, side: Side, wanted: IndexSettings) -> None:
    """Go on with a side of these settings, or start one; one with others goes."""
    ensure(db)
    if settings(db, side) != wanted:
        drop(db, side)
        _set_all(db, f"{side}.", msgspec.to_builtins(wanted))


def drop(db: sqlite3.Connection, side: Side) -> int:
    """How many chunks it had; their vectors stay until `Store.clear_staged`."""
    ensure(db)
    gone = db.execute(
        "DELETE FROM chunks WHERE id IN (SELECT c.id FROM side_documents s "
        "JOIN chunks c ON c.id BETWEEN s.first AND s.last WHERE s.side = ?)",
        (side,),
    ).rowcount
    db.execute("DELETE FROM side_documents WHERE side = ?", (side,))
    db.execute("DELETE FROM meta WHERE key GLOB ?", (f"{side}.*",))
    return int(gone)


def unfilled(db: sqlite3.Connection, side: Side) -> list[Unfilled]:
    """What a side lacks, in the order in which it came."""
    rows = db.execute(
        "SELECT number, id, source, characters FROM documents d WHERE NOT EXISTS (SELECT 1 FROM "
        "side_documents s WHERE s.side = ? AND s.document = d.number) ORDER BY number",
        (side,),
    )
    return [Unfilled(*row) for row in rows]


def counts(db: sqlite3.Connection, side: Side) -> tuple[int, int]:
    """Documents and chunks of a side."""
    ensure(db)
    row = db.execute(
        "SELECT count(*), coalesce(sum(last - first + 1), 0) FROM side_documents WHERE side = ?",
        (side,),
    ).fetchone()
    return int(row[0]), int(row[1])


def take_out(db: sqlite3.Connection, document: int) -> tuple[list[int], dict[Side, int]]:
    """Remove a document from all sides: the ids of its vectors, and how many chunks it had."""
    ensure(db)
    vectors: list[int] = []
    found: dict[Side, int] = {}
    for side, first, last in db.execute(
        "SELECT side, first, last FROM side_documents WHERE document = ?", (document,)
    ).fetchall():
        between = (first, last)
        rows = db.execute("SELECT vector FROM chunks WHERE id BETWEEN ? AND ?", between).fetchall()
        vectors += [vector for (vector,) in rows]
        found[side] = len(rows)
        db.execute("DELETE FROM chunks WHERE id BETWEEN ? AND ?", between)
    db.execute("DELETE FROM side_documents WHERE document = ?", (document,))
    return vectors, found


def point_side_to(db: sqlite3.Connection, side: Side, found: Pointers) -> None:
    """Name the derived indexes that were made for a side."""
    _set_all(db, f"{side}.", dict(zip(_DERIVED, found, strict=True)))


def side_pointers(db: sqlite3.Connection, side: Side) -> Pointers | None:
    """`None` if none were made since the documents last changed."""
    rows = dict(db.execute("SELECT key, value FROM meta WHERE key GLOB ?", (f"{side}.*",)))
    generation = int(rows.get(f"{side}.lexical_generation", "-1"))
    if generation != generation_of(db) + 1:
        return None
    return Pointers(rows[f"{side}.lexical"], rows[f"{side}.dense"], generation)


def folders(db: sqlite3.Connection) -> set[str]:
    """Derived folders that belong to sides."""
    rows = db.execute("SELECT value FROM meta WHERE key GLOB '*.lexical' OR key GLOB '*.dense'")
    return {name for (name,) in rows if name}


def exchange(db: sqlite3.Connection, side: Side, in_use: IndexSettings) -> None:
    """Put a side, which must hold every document, in the place of the index in use, which becomes
    `previous`; `in_use` are its settings. Raises `StorageError` if a document is missing."""
    found, wanted = side_pointers(db, side), settings(db, side)
    if found is None or wanted is None or unfilled(db, side):
        raise StorageError(f"the index {side!r} does not hold every document; nothing was changed")
    if side != PREVIOUS:
        drop(db, PREVIOUS)
    db.execute(
        "INSERT INTO side_documents "
        "SELECT ?, number, chunker, first, last, exclusions FROM documents",
        (_MOVING,),
    )
    db.execute(
        "UPDATE documents SET chunker = s.chunker, first = s.first, last = s.last, "
        "exclusions = s.exclusions FROM side_documents s "
        "WHERE s.side = ? AND s.document = documents.number",
        (side,),
    )
    db.execute("DELETE FROM side_documents WHERE side = ?", (side,))
    db.execute("UPDATE side_documents SET side = ? WHERE side = ?", (PREVIOUS, _MOVING))
    db.execute("DELETE FROM meta WHERE key GLOB ?", (f"{side}.*",))
    _set_all(db, f"{PREVIOUS}.", msgspec.to_builtins(in_use))
    _set_all(db, "", msgspec.to_builtins(wanted))
    _set_all(db, "", dict(zip(_DERIVED, found, strict=True)))
    # All chunks are others, so whoever is older than this generation starts afresh.
    db.execute("DELETE FROM changes")
    _set_all(db, "", dict.fromkeys(_NUMBERS, found.lexical_generation))


def _set_all(db: sqlite3.Connection, prefix: str, entries: dict[str, object]) -> None:
    rows: Sequence[tuple[str, str]] = [(prefix + key, str(value)) for key, value in entries.items()]
    db.executemany("INSERT OR REPLACE INTO meta VALUES (?, ?)", rows)
