"""Passages as a reranker compresses them, kept with the collection: what a late-interaction
reranker needs of a passage, so that it reads the query alone.

They lie in the truth itself, a row for each vector that a chunk has, and go with it in the same
transaction; so there is no generation to keep and nothing to catch up with. A collection holds
those of one reranker, named by its fingerprint; whoever asks for another one's finds none.

Functions over a connection that is within a transaction (`Database`).
"""

from __future__ import annotations

import json
import sqlite3
from collections.abc import Mapping, Sequence
from typing import NamedTuple

from headrace.retrieval.base import embedding_text
from headrace.retrieval.rows import batches, marks

_META = "compressed"
_SCHEMA = """CREATE TABLE IF NOT EXISTS compressed (
    vector INTEGER PRIMARY KEY REFERENCES vectors (id) ON DELETE CASCADE, codes BLOB NOT NULL
)"""


class Uncompressed(NamedTuple):
    """A text that is embedded, by the number of its vector."""

    vector: int
    text: str


def prepare(db: sqlite3.Connection, fingerprint: str) -> None:
    """Make room for what this reranker makes; what another one made goes."""
    db.execute(_SCHEMA)
    if _holder(db) != fingerprint:
        db.execute("DELETE FROM compressed")
        db.execute("INSERT OR REPLACE INTO meta VALUES (?, ?)", (_META, fingerprint))


def missing(db: sqlite3.Connection, after: int, count: int) -> list[Uncompressed]:
    """The next texts, by their vectors' numbers above `after`, that are not there yet. After
    `prepare`."""
    rows = db.execute(
        "SELECT c.vector, c.path, c.text FROM chunks c WHERE c.vector > ? AND NOT EXISTS "
        "(SELECT 1 FROM compressed WHERE vector = c.vector) "
        "GROUP BY c.vector ORDER BY c.vector LIMIT ?",
        (after, count),
    )
    return [Uncompressed(row[0], embedding_text(json.loads(row[1]), row[2])) for row in rows]


def keep(db: sqlite3.Connection, codes: Mapping[int, bytes]) -> None:
    """By the numbers of their vectors."""
    db.executemany("INSERT OR REPLACE INTO compressed VALUES (?, ?)", codes.items())


def read(db: sqlite3.Connection, chunks: Sequence[int], fingerprint: str) -> dict[int, bytes]:
    """What this reranker made of these chunks, by their ids; those without are left out."""
    if _holder(db) != fingerprint:
        return {}
    found: dict[int, bytes] = {}
    for batch in batches(chunks):
        found |= db.execute(
            "SELECT c.id, z.codes FROM chunks c JOIN compressed z ON z.vector = c.vector "
            f"WHERE c.id IN ({marks(batch)})",
            batch,
        )
    return found


def size(db: sqlite3.Connection) -> tuple[int, int]:
    """How many passages there are, and their bytes. After `prepare`."""
    count, total = db.execute(
        "SELECT count(*), coalesce(sum(length(codes)), 0) FROM compressed"
    ).fetchone()
    return int(count), int(total)


def _holder(db: sqlite3.Connection) -> str:
    row = db.execute("SELECT value FROM meta WHERE key = ?", (_META,)).fetchone()
    return str(row[0]) if row else ""
