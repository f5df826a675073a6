"""The truth: documents, chunks, vectors, labels and the change log in one SQLite file.

Chunk ids grow and are never used twice; the chunks of a document have consecutive ids. Every
write gets the next *generation* and leaves its trace in `changes`, from which the derived
indexes catch up.
"""

from __future__ import annotations

import json
import sqlite3
import zlib
from bisect import bisect_right
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import msgspec
import numpy as np
import numpy.typing as npt

from headrace.errors import BadRequest, StorageError
from headrace.retrieval import sides
from headrace.retrieval.base import DocumentInfo, NewChunk, Removal, RemovedDocument
from headrace.retrieval.database import Database
from headrace.retrieval.rows import (
    Change,
    Pointers,
    allowed_documents,
    batches,
    embedder_of,
    generation_of,
    last_id,
    marks,
)
from headrace.types import Document, Exclusion, Filter, Hit, Parsed, Span

SCHEMA_VERSION = 1
_SCHEMA = """
CREATE TABLE meta (key TEXT PRIMARY KEY, value TEXT NOT NULL) WITHOUT ROWID;
CREATE TABLE documents (
    number INTEGER PRIMARY KEY AUTOINCREMENT, id TEXT NOT NULL UNIQUE, source TEXT NOT NULL,
    sha256 TEXT NOT NULL, title TEXT NOT NULL, media_type TEXT NOT NULL, chunker TEXT NOT NULL,
    characters INTEGER NOT NULL, added TEXT NOT NULL, labels TEXT NOT NULL,
    metadata TEXT NOT NULL, own_metadata TEXT NOT NULL,
    first INTEGER NOT NULL, last INTEGER NOT NULL, parsed BLOB NOT NULL, exclusions BLOB NOT NULL
);
CREATE INDEX documents_first ON documents (first);
CREATE TABLE chunks (
    id INTEGER PRIMARY KEY AUTOINCREMENT, document INTEGER NOT NULL, ordinal INTEGER NOT NULL,
    start INTEGER NOT NULL, stop INTEGER NOT NULL, path TEXT NOT NULL, page INTEGER,
    vector INTEGER NOT NULL REFERENCES vectors (id), text TEXT NOT NULL
);
CREATE INDEX chunks_vector ON chunks (vector);
CREATE TABLE vectors (id INTEGER PRIMARY KEY, key BLOB NOT NULL UNIQUE, vector BLOB NOT NULL);
CREATE TABLE labels (
    label TEXT NOT NULL, document INTEGER NOT NULL, PRIMARY KEY (label, document)
) WITHOUT ROWID;
CREATE TABLE metadata (
    key TEXT NOT NULL, value TEXT NOT NULL, document INTEGER NOT NULL,
    PRIMARY KEY (key, value, document)
) WITHOUT ROWID;
CREATE TABLE changes (
    generation INTEGER NOT NULL, added INTEGER NOT NULL, document INTEGER NOT NULL,
    first INTEGER NOT NULL, last INTEGER NOT NULL
);
CREATE INDEX changes_generation ON changes (generation);
"""


class Store:
    """One collection's SQLite file. `db` gives transactions; all else is a statement or two."""

    def __init__(
        self, path: Path, *, create: Mapping[str, str] | None = None, side: sides.Side | None = None
    ) -> None:
        """Open the file, or make it with the meta entries `create`. With a `side`, read that in the
        place of the index in use, and write nothing. Raises `StorageError`."""
        self.path = path
        self.db = Database(path, views=() if side is None else sides.views(side))
        try:
            if create is not None:
                self._create(create)
            self._check_version()
        except BaseException:
            self.db.close()
            raise

    def _create(self, meta: Mapping[str, str]) -> None:
        with self.db.transaction() as db:
            for statement in _SCHEMA.split(";\n"):
                db.execute(statement)
            entries = {"schema": str(SCHEMA_VERSION), "generation": "0", "floor": "0", **meta}
            db.executemany("INSERT INTO meta VALUES (?, ?)", entries.items())

    def _check_version(self) -> None:
        version = int(self.meta().get("schema", "0"))
        if version != SCHEMA_VERSION:
            raise StorageError(
                f"{self.path}: schema version {version}, this program reads {SCHEMA_VERSION}; "
                "use the version of Headrace that made it, or delete the collection and ingest "
                "its documents again"
            )

    # Meta ---------------------------------------------------------------------------------------

    def meta(self) -> dict[str, str]:
        with self.db.reading() as db:
            return dict(db.execute("SELECT key, value FROM meta"))

    def set_meta(self, **entries: str) -> None:
        with self.db.transaction() as db:
            for key, value in entries.items():
                _set(db, key, value)

    # Writes -------------------------------------------------------------------------------------

    def upsert(self, document: Document, chunks: Sequence[NewChunk]) -> int:
        with self.db.transaction() as db:
            _check(document, chunks, embedder_of(db).dimensions)
            generation = _next_generation(db)
            orphans, _ = _remove(db, document.id, generation)
            number = last_id(db, "documents") + 1
            first = last_id(db, "chunks") + 1
            last = first + len(chunks) - 1
            _insert_document(db, document, number, first, last)
            _insert_chunks(db, document, number, first, chunks)
            _log(db, Change(generation, True, number, first, last))
            _drop_orphans(db, orphans)
        return generation

    def upsert_side(
        self, side: sides.Side, number: int, document: Document, chunks: Sequence[NewChunk]
    ) -> bool:
        """Give a side the chunks of a document. False if the document, by its number, is not there
        any more: it was changed or deleted meanwhile."""
        with self.db.transaction() as db:
            wanted = sides.settings(db, side)
            known = db.execute("SELECT 1 FROM documents WHERE number = ?", (number,)).fetchone()
            if wanted is None or known is None:
                return False
            _check(document, chunks, wanted.dimensions)
            first = last_id(db, "chunks") + 1
            _insert_chunks(db, document, number, first, chunks)
            db.execute(
                "INSERT INTO side_documents VALUES (?, ?, ?, ?, ?, ?)",
                (
                    *(side, number, document.chunker, first, first + len(chunks) - 1),
                    zlib.compress(msgspec.msgpack.encode(document.exclusions), 6),
                ),
            )
        return True

    def remove(self, document_ids: Sequence[str]) -> Removal:
        """Take documents out of the index in use and of all sides, in one transaction."""
        removed: list[RemovedDocument] = []
        orphans: list[int] = []
        with self.db.transaction() as db:
            generation = _next_generation(db)
            for id_ in dict.fromkeys(document_ids):
                vectors, found = _remove(db, id_, generation)
                orphans += vectors
                removed += [] if found is None else [found]
            dropped = _drop_orphans(db, orphans)
        return Removal(tuple(removed), dropped, generation - 1, generation)

    def stage(self, vectors: Mapping[bytes, npt.NDArray[np.float32]]) -> None:
        with self.db.transaction() as db:
            _insert_vectors(db, vectors)

    def clear_staged(self) -> None:
        """Drop vectors that no chunk uses."""
        with self.db.transaction() as db:
            db.execute(
                "DELETE FROM vectors WHERE NOT EXISTS "
                "(SELECT 1 FROM chunks WHERE chunks.vector = vectors.id)"
            )

    def forget_changes(self, before: int) -> None:
        """Drop the log up to generation `before`; who is older than that starts afresh."""
        with self.db.transaction() as db:
            db.execute("DELETE FROM changes WHERE generation <= ?", (before,))
            _set(db, "floor", str(before))

    # Reads --------------------------------------------------------------------------------------

    def vectors(self, keys: Sequence[bytes]) -> dict[bytes, npt.NDArray[np.float32]]:
        found: dict[bytes, npt.NDArray[np.float32]] = {}
        with self.db.reading() as db:
            for batch in batches(list(dict.fromkeys(keys))):
                for key, blob in db.execute(
                    f"SELECT key, vector FROM vectors WHERE key IN ({marks(batch)})", batch
                ):
                    found[key] = np.frombuffer(blob, np.float16).astype(np.float32)
        return found

    def document(self, document_id: str) -> Document | None:
        with self.db.reading() as db:
            row = db.execute(
                "SELECT id, source, sha256, parsed, chunker, exclusions, labels, own_metadata, "
                "added FROM documents WHERE id = ?",
                (document_id,),
            ).fetchone()
        if row is None:
            return None
        return Document(
            id=row[0],
            source=row[1],
            sha256=row[2],
            parsed=msgspec.msgpack.decode(zlib.decompress(row[3]), type=Parsed),
            chunker=row[4],
            exclusions=msgspec.msgpack.decode(zlib.decompress(row[5]), type=tuple[Exclusion, ...]),
            labels=tuple(json.loads(row[6])),
            metadata=json.loads(row[7]),
            added=row[8],
        )

    def text(self, document_id: str) -> str | None:
        """That of `document`. Of a PDF of 300 pages in 3.3 ms of CPU instead of 8: where its lines
        stand on the pages is not looked at."""
        with self.db.statement() as db:
            row = db.execute("SELECT parsed FROM documents WHERE id = ?", (document_id,)).fetchone()
        return None if row is None else _text.decode(zlib.decompress(row[0])).text

    def documents(self) -> list[DocumentInfo]:
        with self.db.reading() as db:
            rows: list[Any] = db.execute(
                "SELECT id, source, sha256, title, media_type, chunker, last - first + 1, "
                "characters, labels, metadata, added FROM documents ORDER BY source"
            ).fetchall()
        return [
            DocumentInfo._make([*row[:8], tuple(json.loads(row[8])), json.loads(row[9]), row[10]])
            for row in rows
        ]

    def passages(self, ids: Sequence[int]) -> dict[int, tuple[str, str]]:
        """Title path (joined by spaces) and text of chunks by id; nobody's access is checked."""
        found: dict[int, tuple[str, str]] = {}
        with self.db.reading() as db:
            for batch in batches(ids):
                rows = db.execute(
                    f"SELECT id, path, text FROM chunks WHERE id IN ({marks(batch)})", batch
                )
                found.update((row[0], (" ".join(json.loads(row[1])), row[2])) for row in rows)
        return found

    def keys(self, ids: Sequence[int]) -> dict[int, bytes]:
        """The key of what was embedded of each chunk, by chunk id."""
        found: dict[int, bytes] = {}
        with self.db.reading() as db:
            for batch in batches(ids):
                found.update(
                    db.execute(
                        "SELECT c.id, v.key FROM chunks c JOIN vectors v ON v.id = c.vector "
                        f"WHERE c.id IN ({marks(batch)})",
                        batch,
                    ).fetchall()
                )
        return found

    def chunks_with(self, keys: Sequence[bytes]) -> dict[bytes, list[int]]:
        """Ids of the chunks that have each key, those of other sides and of nobody included."""
        found: dict[bytes, list[int]] = {}
        with self.db.reading() as db:
            for batch in batches(list(dict.fromkeys(keys))):
                for key, chunk_id in db.execute(
                    "SELECT v.key, c.id FROM vectors v JOIN chunks c ON c.vector = v.id "
                    f"WHERE v.key IN ({marks(batch)})",
                    batch,
                ):
                    found.setdefault(key, []).append(chunk_id)
        return found

    def hits(self, scored: Mapping[int, Mapping[str, float]], where: Filter) -> list[Hit]:
        """Hits in the mapping's order; what is gone or not allowed is left out."""
        rows: dict[int, _HitRow] = {}
        condition, values = allowed_documents(where)
        wanted = list(batches(list(scored)))
        with self.db.reading() if len(wanted) > 1 else self.db.statement() as db:
            for batch in wanted:
                # One row for all: Python's lock is given up and taken again for every row, and
                # under load each time means waiting for it.
                (found,) = db.execute(
                    "SELECT json_group_array(json_array(c.id, d.id, d.source, d.title, "
                    "json(c.path), c.start, c.stop, c.text, c.page, json(d.metadata))) "
                    "FROM chunks c JOIN documents d ON d.number = c.document "
                    f"WHERE c.id IN ({marks(batch)}) AND {condition}",
                    [*batch, *values],
                ).fetchone()
                rows.update((row.chunk_id, row) for row in _hit_rows.decode(found))
        return [rows[id_].hit(scores) for id_, scores in scored.items() if id_ in rows]


# Within a transaction ----------------------------------------------------------------------------


def point_to(db: sqlite3.Connection, found: Pointers) -> None:
    """Name the derived indexes that are in force."""
    _set(db, "lexical", found.lexical)
    _set(db, "lexical_generation", str(found.lexical_generation))
    _set(db, "dense", found.dense)


def _check(document: Document, chunks: Sequence[NewChunk], dimensions: int) -> None:
    length = len(document.parsed.text)
    for new in chunks:
        if new.chunk.span.end > length:
            raise BadRequest(f"{document.source}: chunk {new.chunk.span} is outside of the text")
        if new.vector.shape != (dimensions,) or not np.isfinite(new.vector).all():
            raise BadRequest(
                f"{document.source}: a vector of shape {new.vector.shape} is not "
                f"{dimensions} finite numbers"
            )


def _set(db: sqlite3.Connection, key: str, value: str) -> None:
    db.execute("INSERT OR REPLACE INTO meta VALUES (?, ?)", (key, value))


def _next_generation(db: sqlite3.Connection) -> int:
    generation = generation_of(db) + 1
    _set(db, "generation", str(generation))
    return generation


def _insert_document(
    db: sqlite3.Connection, document: Document, number: int, first: int, last: int
) -> None:
    parsed = document.parsed
    labels = list(dict.fromkeys(document.labels))
    metadata = {**parsed.metadata, **document.metadata}
    db.execute(
        "INSERT INTO documents VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?)",
        (
            number,
            document.id,
            document.source,
            document.sha256,
            parsed.title,
            parsed.media_type,
            document.chunker,
            len(parsed.text),
            document.added,
            _json(labels),
            _json(metadata),
            _json(document.metadata),
            first,
            last,
            zlib.compress(msgspec.msgpack.encode(parsed), 6),
            zlib.compress(msgspec.msgpack.encode(document.exclusions), 6),
        ),
    )
    db.executemany("INSERT INTO labels VALUES (?, ?)", ((label, number) for label in labels))
    db.executemany(
        "INSERT INTO metadata VALUES (?, ?, ?)",
        ((key, value, number) for key, value in metadata.items()),
    )


def _insert_vectors(
    db: sqlite3.Connection, vectors: Mapping[bytes, npt.NDArray[np.float32]]
) -> None:
    db.executemany(
        "INSERT OR IGNORE INTO vectors (key, vector) VALUES (?, ?)",
        ((key, vector.astype(np.float16).tobytes()) for key, vector in vectors.items()),
    )


def _insert_chunks(
    db: sqlite3.Connection, document: Document, number: int, first: int, chunks: Sequence[NewChunk]
) -> None:
    """With ids from `first` on, and their vectors."""
    pages = [page.span.start for page in document.parsed.pages]
    _insert_vectors(db, {new.key: new.vector for new in chunks})
    db.executemany(
        "INSERT INTO chunks VALUES (?, ?, ?, ?, ?, ?, ?, "
        "(SELECT id FROM vectors WHERE key = ?), ?)",
        (
            (
                first + i,
                number,
                i,
                new.chunk.span.start,
                new.chunk.span.end,
                _json(new.chunk.path),
                _page(document.parsed, pages, new.chunk.span.start),
                new.key,
                new.chunk.span.of(document.parsed.text),
            )
            for i, new in enumerate(chunks)
        ),
    )


def _remove(
    db: sqlite3.Connection, document_id: str, generation: int
) -> tuple[list[int], RemovedDocument | None]:
    """Take a document out of the index in use and of all sides; returns the ids of its vectors,
    for `_drop_orphans`, and what was removed, if it was there."""
    row = db.execute(
        "SELECT number, first, last, source FROM documents WHERE id = ?", (document_id,)
    ).fetchone()
    if row is None:
        return [], None
    number, first, last, source = row
    beside, of_sides = sides.take_out(db, number)
    between = (first, last)
    vectors = db.execute("SELECT vector FROM chunks WHERE id BETWEEN ? AND ?", between).fetchall()
    db.execute("DELETE FROM chunks WHERE id BETWEEN ? AND ?", between)
    for table, column in (
        ("labels", "document"),
        ("metadata", "document"),
        ("documents", "number"),
    ):
        db.execute(f"DELETE FROM {table} WHERE {column} = ?", (number,))
    _log(db, Change(generation, False, number, first, last))
    removed = RemovedDocument(document_id, source, len(vectors), of_sides)
    return [*beside, *(vector for (vector,) in vectors)], removed


def _drop_orphans(db: sqlite3.Connection, vectors: Sequence[int]) -> int:
    """How many of them no chunk uses any more; those are gone."""
    return db.executemany(
        "DELETE FROM vectors WHERE id = ?1 AND NOT EXISTS (SELECT 1 FROM chunks WHERE vector = ?1)",
        [(vector,) for vector in dict.fromkeys(vectors)],
    ).rowcount


def _log(db: sqlite3.Connection, change: Change) -> None:
    db.execute("INSERT INTO changes VALUES (?, ?, ?, ?, ?)", change)


def _page(parsed: Parsed, starts: Sequence[int], position: int) -> int | None:
    i = bisect_right(starts, position) - 1
    return parsed.pages[i].number if i >= 0 else None


class _HitRow(msgspec.Struct, frozen=True, array_like=True):
    chunk_id: int
    document_id: str
    source: str
    title: str
    path: tuple[str, ...]
    start: int
    stop: int
    text: str
    page: int | None
    metadata: dict[str, str]

    def hit(self, scores: Mapping[str, float]) -> Hit:
        return Hit(
            chunk_id=self.chunk_id,
            document_id=self.document_id,
            source=self.source,
            title=self.title,
            path=self.path,
            span=Span(self.start, self.stop),
            text=self.text,
            score=list(scores.values())[-1] if scores else 0.0,
            scores=dict(scores),
            page=self.page,
            metadata=self.metadata,
        )


class _Text(msgspec.Struct):
    """What of a `Parsed` is its text; the rest is passed over."""

    text: str


_text = msgspec.msgpack.Decoder(_Text)
_hit_rows = msgspec.json.Decoder(list[_HitRow])


def _json(value: object) -> str:
    return json.dumps(value, ensure_ascii=False, separators=(",", ":"))
