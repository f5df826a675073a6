"""Does what is derived still equal the truth?"""

from __future__ import annotations

import sqlite3
from collections.abc import Iterator
from pathlib import Path

import msgspec
import numpy as np

from headrace.errors import StorageError
from headrace.retrieval.dense import FLAT_ROWS, DenseBase
from headrace.retrieval.lexical import LexicalIndex
from headrace.retrieval.rows import (
    IN_USE,
    all_ids,
    embedder_of,
    generation_of,
    last_chunk_id,
    pointers,
    read_vectors,
)
from headrace.retrieval.store import Store

SAMPLE = 200
SAME_VECTOR = 0.99
"""Least cosine between a vector and its 8-bit code (measured: above 0.999 on the laws)."""


class VerifyReport(msgspec.Struct, frozen=True):
    """What was compared, and every difference in words; none means that all is well."""

    name: str
    generation: int
    documents: int
    chunks: int
    differences: tuple[str, ...] = ()

    @property
    def ok(self) -> bool:
        return not self.differences


def verify(folder: Path, name: str, store: Store) -> VerifyReport:
    """Compare SQLite, tantivy and FAISS: SQLite's own integrity, that chunks are what their
    documents' texts say, ids, generations, and a sample of vectors. Call with the writer lock."""
    with store.db.reading() as db:
        generation = generation_of(db)
        documents = int(db.execute("SELECT count(*) FROM documents").fetchone()[0])
        ids = all_ids(db)
        found = pointers(db)
        differences = [
            *_truth(db, store),
            *_lexical(folder, found.lexical, ids, generation),
            *_dense(folder, found.dense, ids, db),
        ]
    return VerifyReport(name, generation, documents, len(ids), tuple(differences))


def _truth(db: sqlite3.Connection, store: Store) -> Iterator[str]:
    for (line,) in db.execute("PRAGMA quick_check"):
        if line != "ok":
            yield f"SQLite: {line}"
    in_use = f"SELECT c.document, count(*) FROM chunks c {IN_USE} GROUP BY c.document"
    counted = dict(db.execute(in_use))
    rows = db.execute("SELECT number, id, source, last - first + 1 FROM documents").fetchall()
    for number, document_id, source, expected in rows:
        if counted.pop(number, 0) != expected:
            yield f"SQLite: {source}: {expected} chunks announced, not all there"
        document = store.document(document_id)
        if document is None:
            continue
        spans = db.execute("SELECT start, stop, text FROM chunks WHERE document = ?", (number,))
        if any(document.parsed.text[start:stop] != text for start, stop, text in spans):
            yield f"SQLite: {source}: a chunk's text is not the document's"
    (lost,) = db.execute(
        "SELECT count(*) FROM chunks WHERE document NOT IN (SELECT number FROM documents)"
    ).fetchone()
    if lost:
        yield f"SQLite: {lost} chunks belong to no document"


def _lexical(
    folder: Path, name: str, ids: np.ndarray[tuple[int], np.dtype[np.int64]], generation: int
) -> Iterator[str]:
    if not name:
        if len(ids):
            yield "tantivy: there is no lexical index on disk yet"
        return
    try:
        reader = LexicalIndex(folder / name).reader()
        have = np.asarray(reader.ids(), np.int64)
    except StorageError as error:
        yield f"tantivy: {error}"
        return
    if reader.generation != generation:
        yield f"tantivy: reflects generation {reader.generation}, SQLite is at {generation}"
    yield from _compare("tantivy", ids, have)


def _dense(
    folder: Path,
    name: str,
    ids: np.ndarray[tuple[int], np.dtype[np.int64]],
    db: sqlite3.Connection,
) -> Iterator[str]:
    if not name:
        if len(ids) > FLAT_ROWS:
            yield f"FAISS: there is no file, though {len(ids)} chunks are too many to go without"
        return
    try:
        base = DenseBase(folder / name)
    except (StorageError, FileNotFoundError) as error:
        yield f"FAISS: {error}"
        return
    if base.meta.generation > generation_of(db) or base.meta.last > last_chunk_id(db):
        yield f"FAISS: made from generation {base.meta.generation}, which SQLite does not know"
    dimensions = embedder_of(db).dimensions
    if base.meta.dimensions != dimensions:
        yield f"FAISS: vectors of {base.meta.dimensions} dimensions, SQLite has {dimensions}"
        return
    live = np.isin(base.ids, ids)
    covered = ids[ids <= base.meta.last]
    yield from _compare("FAISS", covered, base.ids[live])
    rows = np.flatnonzero(live)
    rows = np.random.default_rng(0).permutation(rows)[:SAMPLE]
    decoded = base.vectors(rows) if len(rows) else np.empty((0, dimensions), np.float32)
    for row, code in zip(rows.tolist(), decoded, strict=True):
        chunk_id = int(base.ids[row])
        _, vectors = read_vectors(db, chunk_id, chunk_id, dimensions)
        norm = float(np.linalg.norm(vectors[0]) * np.linalg.norm(code))
        if norm and float(vectors[0] @ code) / norm < SAME_VECTOR:
            yield f"FAISS: the vector of chunk {chunk_id} is not SQLite's"


def _compare(
    who: str,
    expected: np.ndarray[tuple[int], np.dtype[np.int64]],
    have: np.ndarray[tuple[int], np.dtype[np.int64]],
) -> Iterator[str]:
    if len(have) != len(np.unique(have)):
        yield f"{who}: {len(have) - len(np.unique(have))} chunks are there twice"
    if len(missing := np.setdiff1d(expected, have)):
        yield f"{who}: {len(missing)} chunks are missing, the first is {missing[0]}"
    if len(foreign := np.setdiff1d(have, expected)):
        yield f"{who}: {len(foreign)} chunks are not in SQLite, the first is {foreign[0]}"
