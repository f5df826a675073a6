"""Reading the truth: functions over a connection that is within a transaction (`Database`)."""

from __future__ import annotations

import json
import sqlite3
from collections.abc import Iterator, Sequence
from typing import NamedTuple, TypeVar

import numpy as np
import numpy.typing as npt

from headrace.errors import UnknownCollection
from headrace.types import Filter

_T = TypeVar("_T")


IN_USE = "JOIN documents d ON d.number = c.document AND c.id BETWEEN d.first AND d.last"
"""Which chunks `c` belong to the index in use, and not to a side (`headrace.retrieval.sides`)."""


class Pointers(NamedTuple):
    """Which folders hold the derived indexes (empty for none), and the generation that the
    lexical one reflects at least."""

    lexical: str
    dense: str
    lexical_generation: int


class Embedder(NamedTuple):
    """Whose vectors a collection holds: the model's name, the fingerprint of what makes its
    vectors, and their length."""

    name: str
    fingerprint: str
    dimensions: int


class Change(NamedTuple):
    """Chunks `first` to `last` (inclusive) of a document came (`added`) or went."""

    generation: int
    added: bool
    document: int
    first: int
    last: int


class StoredChunk(NamedTuple):
    """What the lexical index needs of a chunk."""

    id: int
    document: int
    path: tuple[str, ...]
    text: str


def allowed_documents(where: Filter) -> tuple[str, list[str]]:
    """An SQL condition on `documents d` that holds for what `where` allows, and its values."""
    parts, values = ["1"], list[str]()
    if "*" not in where.access:
        labels = sorted(where.access)
        parts.append(
            "EXISTS (SELECT 1 FROM labels l WHERE l.document = d.number "
            f"AND l.label IN ({marks(labels)}))"
        )
        values += labels
    for key, wanted in where.metadata.items():
        parts.append(
            "EXISTS (SELECT 1 FROM metadata m WHERE m.document = d.number AND m.key = ? "
            f"AND m.value IN ({marks(wanted)}))"
        )
        values += [key, *wanted]
    if where.documents:
        parts.append(f"d.id IN ({marks(where.documents)})")
        values += where.documents
    return " AND ".join(parts), values


def generation_of(db: sqlite3.Connection) -> int:
    return int(db.execute("SELECT value FROM meta WHERE key = 'generation'").fetchone()[0])


def pointers(db: sqlite3.Connection) -> Pointers:
    rows = dict(db.execute("SELECT key, value FROM meta"))
    if "deleted" in rows:
        raise UnknownCollection(rows.get("name", ""), None)
    generation = int(rows.get("lexical_generation", "0"))
    return Pointers(rows.get("lexical", ""), rows.get("dense", ""), generation)


def embedder_of(db: sqlite3.Connection) -> Embedder:
    rows = dict(db.execute("SELECT key, value FROM meta"))
    return Embedder(rows["embedder"], rows["fingerprint"], int(rows["dimensions"]))


def changes_since(db: sqlite3.Connection, generation: int) -> list[Change] | None:
    """The log after `generation`, or None if it does not reach back so far (or `generation` is
    from a future that a power failure took away)."""
    floor = int(db.execute("SELECT value FROM meta WHERE key = 'floor'").fetchone()[0])
    if generation < floor or generation > generation_of(db):
        return None
    rows = db.execute(
        "SELECT generation, added, document, first, last FROM changes WHERE generation > ? "
        "ORDER BY rowid",
        (generation,),
    )
    return [Change(row[0], bool(row[1]), *row[2:]) for row in rows]


def all_documents(db: sqlite3.Connection) -> list[Change]:
    """Everything that is there, as if it had just been added."""
    rows = db.execute(
        "SELECT ?, 1, number, first, last FROM documents ORDER BY number", (generation_of(db),)
    )
    return [Change(row[0], True, *row[2:]) for row in rows]


def chunk_ranges(db: sqlite3.Connection, where: Filter, *, after: int = 0) -> npt.NDArray[np.int64]:
    """int64 [n, 2]: first and last chunk id of every document that `where` allows, ascending;
    only those whose chunks have ids above `after`."""
    condition, values = allowed_documents(where)
    rows = db.execute(
        f"SELECT first, last FROM documents d WHERE first > ? AND first <= last AND {condition} "
        "ORDER BY first",
        [after, *values],
    ).fetchall()
    return np.asarray(rows, np.int64).reshape(-1, 2)


def document_numbers(db: sqlite3.Connection, ids: Sequence[str]) -> list[int]:
    """The numbers of documents, in no order; unknown ids are left out."""
    numbers: list[int] = []
    for batch in batches(ids):
        rows = db.execute(f"SELECT number FROM documents WHERE id IN ({marks(batch)})", batch)
        numbers += [number for (number,) in rows]
    return numbers


def last_chunk_id(db: sqlite3.Connection) -> int:
    """The highest chunk id ever given, 0 at first."""
    return last_id(db, "chunks")


def all_ids(db: sqlite3.Connection) -> npt.NDArray[np.int64]:
    """Every chunk id of the index in use, ascending."""
    rows = db.execute(f"SELECT c.id FROM chunks c {IN_USE} ORDER BY c.id")
    return np.fromiter((row[0] for row in rows), np.int64)


def read_vectors(
    db: sqlite3.Connection, first: int, last: int, dimensions: int
) -> tuple[npt.NDArray[np.int64], npt.NDArray[np.float32]]:
    """Ids int64 [n] and vectors float32 [n, dimensions] of the chunks `first` to `last` that the
    index in use has; a side's may be of other dimensions."""
    rows = db.execute(
        f"SELECT c.id, v.vector FROM chunks c {IN_USE} JOIN vectors v ON v.id = c.vector "
        "WHERE c.id BETWEEN ? AND ? ORDER BY c.id",
        (first, last),
    ).fetchall()
    ids = np.fromiter((row[0] for row in rows), np.int64, len(rows))
    flat = np.frombuffer(b"".join(row[1] for row in rows), np.float16)
    return ids, flat.reshape(len(rows), dimensions).astype(np.float32)


def read_chunks(db: sqlite3.Connection, first: int, last: int) -> Iterator[StoredChunk]:
    for row in db.execute(
        "SELECT id, document, path, text FROM chunks WHERE id BETWEEN ? AND ? ORDER BY id",
        (first, last),
    ):
        yield StoredChunk(row[0], row[1], tuple(json.loads(row[2])), row[3])


def attributes(db: sqlite3.Connection, number: int) -> tuple[tuple[str, ...], dict[str, str]]:
    """Labels and metadata of the document `number`."""
    row = db.execute(
        "SELECT labels, metadata FROM documents WHERE number = ?", (number,)
    ).fetchone()
    return (tuple(json.loads(row[0])), json.loads(row[1])) if row else ((), {})


def last_id(db: sqlite3.Connection, table: str) -> int:
    row = db.execute("SELECT seq FROM sqlite_sequence WHERE name = ?", (table,)).fetchone()
    return int(row[0]) if row else 0


def marks(values: Sequence[object]) -> str:
    return ",".join("?" * len(values))


def batches(values: Sequence[_T]) -> Iterator[Sequence[_T]]:
    for i in range(0, len(values), 500):
        yield values[i : i + 500]
