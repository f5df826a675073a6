"""What one process holds of the derived indexes, and how it catches up with the truth.

A reader opens the folders that the store's meta table names, and keeps in memory what they lack:
flat vectors for the dense index, a small tantivy index for the lexical one. Only the holder of
the collection's writer lock writes folders (`Persister`).
"""

from __future__ import annotations

import shutil
import sqlite3
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path
from uuid import uuid4

import numpy as np

from headrace.errors import StorageError
from headrace.retrieval.dense import (
    FLAT_ROWS,
    MERGE_SHARE,
    REST_SHARE,
    DenseBase,
    DenseDelta,
    DenseView,
    Ids,
    Mask,
    Matrix,
    write_base,
)
from headrace.retrieval.lexical import LexicalIndex, LexicalReader
from headrace.retrieval.rows import (
    Change,
    Embedder,
    Pointers,
    all_documents,
    attributes,
    changes_since,
    chunk_ranges,
    embedder_of,
    generation_of,
    last_chunk_id,
    pointers,
    read_chunks,
    read_vectors,
)
from headrace.retrieval.sides import folders
from headrace.retrieval.snapshot import CollectionSnapshot, mask_of
from headrace.retrieval.store import Store, point_to
from headrace.types import ALL_ACCESS, Filter

_EVERYTHING = Filter(access=ALL_ACCESS)
_BATCH = 16384


class Reader:
    """Makes snapshots. Not thread-safe: `EmbeddedIndex` holds a lock around `catch_up`."""

    def __init__(self, folder: Path, store: Store) -> None:
        self._folder = folder
        self._store = store
        self._embedder = Embedder("", "", 0)
        self._pointers = Pointers("", "", 0)
        self._disk: LexicalIndex | None = None
        self._disk_reader: LexicalReader | None = None
        self._memory = LexicalIndex(None)
        self._memory_generation = 0
        self._base: DenseBase | None = None
        self._delta = DenseDelta(0)
        self._live: Mask = np.zeros(1, np.bool_)
        self._starts: Ids = np.empty(0, np.int64)
        self._snapshot: CollectionSnapshot | None = None
        self._generation = -1

    def catch_up(self) -> CollectionSnapshot:
        """A snapshot of the store's present generation."""
        try:
            return self._catch_up()
        except BaseException:
            self._generation = -1  # what is held may be half of a generation: start afresh
            raise

    def _catch_up(self) -> CollectionSnapshot:
        with self._store.db.reading() as db:
            generation = generation_of(db)
            self._open(pointers(db), generation)
            if (embedder := embedder_of(db)) != self._embedder:
                self._embedder = embedder
                self._generation = -1  # what is held are vectors of another model
            changes = changes_since(db, self._generation) if self._generation >= 0 else None
            if changes is None:
                self._restart(db)
            else:
                self._extend(db, changes)
            self._extend_memory(db, generation)
        self._generation = generation
        lexical = [self._memory.reader()]
        if self._disk_reader is not None:
            lexical.insert(0, self._disk_reader)
        self._snapshot = CollectionSnapshot(
            generation,
            self._embedder,
            self._store,
            DenseView(self._base, self._delta.view()),
            lexical,
            self._live,
            self._starts,
            inherited=self._snapshot.masks() if self._snapshot and changes is not None else {},
        )
        return self._snapshot

    def close(self) -> None:
        self._memory.close_writer()

    def _open(self, found: Pointers, generation: int) -> None:
        """Open what the pointers name, if it is not what is open already. What cannot be opened
        counts as absent: everything is then held in memory until a writer repairs it."""
        if found.lexical != self._pointers.lexical or self._generation < 0:
            self._disk, self._disk_reader = None, None
            if found.lexical:
                try:
                    self._disk = LexicalIndex(self._folder / found.lexical)
                    self._disk_reader = self._disk.reader()
                except StorageError:
                    self._disk = None
            self._forget_memory()
        elif self._disk is not None and self._disk_generation() < found.lexical_generation:
            self._disk_reader = self._disk.reader()
            self._forget_memory()
        if found.dense != self._pointers.dense or self._generation < 0:
            self._base = open_base(self._folder, found.dense)
            if self._base is not None and self._base.meta.generation > generation:
                self._base = None  # of a future that a power failure took away
            self._generation = -1  # the delta starts after the new base
        self._pointers = found

    def _disk_generation(self) -> int:
        return self._disk_reader.generation if self._disk_reader else 0

    def _forget_memory(self) -> None:
        self._memory.close_writer()
        self._memory = LexicalIndex(None)
        self._memory_generation = self._disk_generation()

    def _restart(self, db: sqlite3.Connection) -> None:
        ranges = chunk_ranges(db, _EVERYTHING)
        self._live, self._starts = mask_of(ranges, last_chunk_id(db) + 1), ranges[:, 0].copy()
        dimensions = self._embedder.dimensions
        self._delta = DenseDelta(dimensions)
        after = self._base.meta.last if self._base else 0
        for ids, vectors in vector_batches(db, after + 1, dimensions):
            self._delta.append(ids, vectors)

    def _extend(self, db: sqlite3.Connection, changes: list[Change]) -> None:
        live = np.zeros(last_chunk_id(db) + 1, np.bool_)  # new: snapshots hold the old one
        live[: len(self._live)] = self._live
        for change in changes:
            live[change.first : change.last + 1] = change.added
            if change.added and change.first <= change.last:
                dimensions = self._embedder.dimensions
                self._delta.append(*read_vectors(db, change.first, change.last, dimensions))
        self._live = live
        new = [c.first for c in changes if c.added and c.first <= c.last]
        self._starts = np.concatenate([self._starts, np.asarray(new, np.int64)])

    def _extend_memory(self, db: sqlite3.Connection, generation: int) -> None:
        if self._memory_generation >= generation:
            return
        changes = changes_since(db, self._memory_generation)
        if changes is None:
            self._disk_reader = None
            self._forget_memory()
            changes = all_documents(db)
        if apply_changes(self._memory, db, changes):
            self._memory.commit(generation)
        self._memory_generation = generation


class Persister:
    """Writes the derived folders. For the holder of the writer lock, one call at a time."""

    def __init__(self, folder: Path, store: Store) -> None:
        self._folder = folder
        self._store = store
        self._lexical: LexicalIndex | None = None
        self._name = ""

    def persist(self, *, final: bool) -> None:
        """Bring the lexical index on disk up to date, and merge the dense one if its delta, or
        what is deleted of it, has grown large; `final` if the writer has nothing more."""
        with self._store.db.reading() as db:
            found = pointers(db)
            generation = generation_of(db)
            try:
                self._follow(db, found.lexical, generation)
            except StorageError:  # damaged, or the disk is full: then this fails as well
                self._start_lexical(db, generation)
        self._store.set_meta(lexical=self._name, lexical_generation=str(generation))
        if self._must_merge(found.dense, REST_SHARE if final else MERGE_SHARE):
            with self._store.db.reading() as db:
                dense = self._write_dense(db)
            self._store.set_meta(dense=dense)
        self.clean()

    def _follow(self, db: sqlite3.Connection, name: str, generation: int) -> None:
        """Commit to the lexical index `name` what it lacks. Raises `StorageError` if it cannot be
        read or written."""
        lexical = self._opened(name)
        known = lexical.reader().generation if lexical else 0
        changes = changes_since(db, known) if lexical else None
        if lexical is None or changes is None:
            self._start_lexical(db, generation)
        elif known < generation:
            apply_changes(lexical, db, changes)
            lexical.commit(generation)

    def _start_lexical(self, db: sqlite3.Connection, generation: int) -> None:
        """Make the lexical index anew, in a folder of its own."""
        self._close_lexical()
        name = f"lexical-{generation}-{uuid4().hex[:6]}"
        lexical = LexicalIndex(self._folder / name, create=True)
        apply_changes(lexical, db, all_documents(db))
        lexical.commit(generation)
        self._lexical, self._name = lexical, name

    def rebuild(self) -> None:
        """Make both derived indexes anew beside the live ones, then switch in one transaction."""
        with self._store.db.reading() as db:
            made = self.write_all(db)
        with self._store.db.transaction() as db:
            point_to(db, made)
        self._store.forget_changes(made.lexical_generation)
        self.clean()

    def close(self) -> None:
        self._close_lexical()

    def clean(self) -> None:
        """Remove folders that nothing names. Who has them open keeps them."""
        with self._store.db.reading() as db:
            keep = {*pointers(db)[:2], *folders(db)}
        for path in self._folder.iterdir():
            name = path.name
            if name.startswith(("lexical-", "dense-", ".new-")) and name not in keep:
                shutil.rmtree(path, ignore_errors=True)

    def _opened(self, name: str) -> LexicalIndex | None:
        if self._lexical is not None and name == self._name:
            return self._lexical
        self._close_lexical()
        if not name:
            return None
        try:
            self._lexical, self._name = LexicalIndex(self._folder / name), name
        except StorageError:  # damaged or gone: made anew
            return None
        return self._lexical

    def _close_lexical(self) -> None:
        if self._lexical is not None:
            lexical, self._lexical, self._name = self._lexical, None, ""
            with suppress(StorageError):  # what was committed stays; nothing else is wanted
                lexical.close_writer()

    def _live(self, db: sqlite3.Connection) -> Mask:
        return mask_of(chunk_ranges(db, _EVERYTHING), last_chunk_id(db) + 1)

    def _must_merge(self, name: str, share: float) -> bool:
        base = open_base(self._folder, name)
        with self._store.db.reading() as db:
            live = self._live(db)
            if base is not None and base.meta.generation > generation_of(db):
                return True
        if base is None:
            return bool(name) or int(np.count_nonzero(live)) > FLAT_ROWS
        dead = base.meta.rows - int(np.count_nonzero(live[base.ids]))
        new = int(np.count_nonzero(live[base.meta.last + 1 :]))
        return new > max(FLAT_ROWS, share * base.meta.rows) or dead > share * base.meta.rows

    def write_all(self, db: sqlite3.Connection) -> Pointers:
        """New folders for what `db` sees."""
        generation = generation_of(db)
        self._start_lexical(db, generation)
        rows = int(np.count_nonzero(self._live(db)))
        dense = self._write_dense(db) if rows > FLAT_ROWS else ""
        return Pointers(self._name, dense, generation)

    def _write_dense(self, db: sqlite3.Connection) -> str:
        generation = generation_of(db)
        name = f"dense-{generation}-{uuid4().hex[:6]}"
        dimensions = embedder_of(db).dimensions
        batches = vector_batches(db, 1, dimensions)
        write_base(self._folder / name, generation, last_chunk_id(db), dimensions, batches)
        return name


def open_base(folder: Path, name: str) -> DenseBase | None:
    """The dense base `name`, or None if there is none or it cannot be read."""
    if not name:
        return None
    try:
        return DenseBase(folder / name)
    except (FileNotFoundError, StorageError):
        return None


def apply_changes(lexical: LexicalIndex, db: sqlite3.Connection, changes: list[Change]) -> bool:
    """Bring a lexical index from where the changes start to where they end; not committed.
    Adding removes first, so changes that are there already do no harm."""
    for change in changes:
        lexical.remove(change.document)
        if change.added:
            labels, metadata = attributes(db, change.document)
            for chunk in read_chunks(db, change.first, change.last):
                lexical.add(chunk, labels, metadata)
    return bool(changes)


def vector_batches(
    db: sqlite3.Connection, first: int, dimensions: int
) -> Iterator[tuple[Ids, Matrix]]:
    """All vectors from chunk id `first` on, ascending."""
    last = last_chunk_id(db)
    while first <= last:
        ids, vectors = read_vectors(db, first, first + _BATCH - 1, dimensions)
        if len(ids):
            yield ids, vectors
        first += _BATCH
