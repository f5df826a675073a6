"""The embedded index of one collection: SQLite as the truth, tantivy and FAISS derived from it."""

from __future__ import annotations

import sqlite3
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, closing, contextmanager
from pathlib import Path
from threading import Lock, RLock
from uuid import uuid4

import msgspec
import numpy as np
import numpy.typing as npt

from headrace.retrieval.base import DocumentInfo, NewChunk, Removal, Scored
from headrace.retrieval.derived import Persister, Reader
from headrace.retrieval.files import exclusive, folder_bytes
from headrace.retrieval.lexicon import Lexicon, LexiconKeeper
from headrace.retrieval.ranker import RankerFile
from headrace.retrieval.rows import Embedder, Pointers, embedder_of, generation_of
from headrace.retrieval.sides import (
    IndexSettings,
    Side,
    exchange,
    point_side_to,
    side_pointers,
)
from headrace.retrieval.snapshot import CollectionSnapshot
from headrace.retrieval.store import Store
from headrace.retrieval.verify import VerifyReport, verify
from headrace.types import Document, Filter, Hit

STORE_FILE = "collection.sqlite"
LOCK_FILE = "writer.lock"
PERSIST_SECONDS = 2.0
"""How far the derived files may lag behind while a writer is at work. Readers hold the rest in
memory, so nobody sees the lag; a crash costs this much catching up."""
PERSIST_GENERATIONS = 64


class CollectionInfo(msgspec.Struct, frozen=True):
    """What a collection is, and how large. `size` is in bytes on disk. Where `problem` says why the
    collection cannot be read, only its name is known."""

    name: str
    embedder: str = ""
    fingerprint: str = ""
    dimensions: int = 0
    created: str = ""
    documents: int = 0
    chunks: int = 0
    characters: int = 0
    generation: int = 0
    size: int = 0
    problem: str = ""


class EmbeddedIndex:
    """See `base.Index`. Thread-safe; any number of processes may have the same folder open."""

    def __init__(self, folder: Path, *, side: Side | None = None) -> None:
        """Raises `StorageError` if the folder does not hold a collection that can be read."""
        self.folder = folder
        self.token = uuid4().hex
        """Names this very collection as long as it is open: one that is made anew under the same
        name, or restored from a backup, gets another."""
        self._store = Store(folder / STORE_FILE, side=side)
        meta = self._store.meta()
        self.name = meta["name"]
        self._created = meta["created"]
        self.ranker = RankerFile(folder)
        self._reader = Reader(folder, self._store)
        self._persister = Persister(folder, self._store)
        self._lexicon = LexiconKeeper(folder)
        self._snapshot: CollectionSnapshot | None = None
        self._seen = -1
        self._snapshot_lock = Lock()
        self._writing_lock = RLock()
        self._held = False
        self._persisted_at = 0.0
        self._persisted_generation = 0

    # Reading ------------------------------------------------------------------------------------

    def snapshot(self) -> CollectionSnapshot:
        version = self._store.db.version()  # before what it stands for is read
        snapshot = self._snapshot
        if snapshot is not None and version == self._seen:
            return snapshot
        with self._snapshot_lock:
            version = self._store.db.version()
            if self._snapshot is None or version != self._seen:
                self._snapshot = self._reader.catch_up()
                self._seen = version
            return self._snapshot

    def generation(self) -> int:
        return int(self._store.meta()["generation"])

    def embedder(self) -> Embedder:
        """Whose vectors the collection holds at this moment; a snapshot has its own."""
        with self._store.db.reading() as db:
            return embedder_of(db)

    def seen_embedder(self) -> Embedder | None:
        """That of the newest snapshot made here so far. Does not block."""
        return None if self._snapshot is None else self._snapshot.embedder

    def search_dense(self, vector: npt.NDArray[np.float32], k: int, where: Filter) -> list[Scored]:
        return self.snapshot().search_dense(vector, k, where)

    def search_lexical(self, query: str, k: int, where: Filter) -> list[Scored]:
        return self.snapshot().search_lexical(query, k, where)

    def get(self, scored: Mapping[int, Mapping[str, float]], where: Filter) -> list[Hit]:
        return self._store.hits(scored, where)

    def passages(self, ids: Sequence[int]) -> dict[int, tuple[str, str]]:
        """Title path and text of chunks that a filtered search found, by id, for ranking them;
        what leaves the index comes from `get`."""
        return self._store.passages(ids)

    def keys(self, ids: Sequence[int]) -> dict[int, bytes]:
        """What was embedded of chunks, as `chunk_key` names it."""
        return self._store.keys(ids)

    def places(self, keys: Sequence[bytes], snapshot: CollectionSnapshot) -> dict[bytes, list[int]]:
        """Ids of the snapshot's chunks of which that was embedded."""
        live = snapshot.live
        return {
            key: [id_ for id_ in ids if id_ < len(live) and live[id_]]
            for key, ids in self._store.chunks_with(keys).items()
        }

    def document(self, document_id: str) -> Document | None:
        return self._store.document(document_id)

    def text(self, document_id: str) -> str | None:
        """The parsed text of a document, without what else is known of it."""
        return self._store.text(document_id)

    def documents(self) -> list[DocumentInfo]:
        return self._store.documents()

    def vectors(self, keys: Sequence[bytes]) -> dict[bytes, npt.NDArray[np.float32]]:
        return self._store.vectors(keys)

    def lexicon(self) -> Lexicon:
        """What the collection names and defines, as of its present generation."""
        return self._lexicon.newest(self._store.db.reading)

    def reading(self) -> AbstractContextManager[sqlite3.Connection]:
        """A read transaction on the collection's SQLite file."""
        return self._store.db.reading()

    def info(self) -> CollectionInfo:
        with self._store.db.reading() as db:
            generation, embedder = generation_of(db), embedder_of(db)
            documents, chunks, characters = db.execute(
                "SELECT count(*), coalesce(sum(last - first + 1), 0), "
                "coalesce(sum(characters), 0) FROM documents"
            ).fetchone()
        return CollectionInfo(
            name=self.name,
            embedder=embedder.name,
            fingerprint=embedder.fingerprint,
            dimensions=embedder.dimensions,
            created=self._created,
            documents=documents,
            chunks=chunks,
            characters=characters,
            generation=generation,
            size=folder_bytes(self.folder),
        )

    # Writing ------------------------------------------------------------------------------------

    @contextmanager
    def writer(self) -> Iterator[EmbeddedIndex]:
        """Be the collection's only writer; at the end the derived files are brought up to date.
        Raises `Busy` with the PID of who writes already, be it this process."""
        with exclusive(self.folder / LOCK_FILE):
            with self._writing_lock:
                self._held = True
            try:
                self._persist(final=False)
                yield self
                self.lexicon()
                self._lexicon.save()
            finally:
                with self._writing_lock:
                    try:
                        self._persist(final=True)
                        self._persister.close()
                    finally:
                        self._held = False

    def upsert(self, document: Document, chunks: Sequence[NewChunk]) -> int:
        with self._writing():
            generation = self._store.upsert(document, chunks)
            self._persist_if_due(generation)
        return generation

    def delete(self, document_ids: Sequence[str]) -> int:
        return self.remove(document_ids).generation

    def remove(self, document_ids: Sequence[str]) -> Removal:
        """Like `delete`, and say what went. The sides lose the documents too."""
        with self._writing():
            removal = self._store.remove(document_ids)
            self._persist_if_due(removal.generation)
        return removal

    def stage(self, vectors: Mapping[bytes, npt.NDArray[np.float32]]) -> None:
        self._store.stage(vectors)

    def clear_staged(self) -> None:
        """Drop vectors that no chunk uses: for the end of a complete ingestion."""
        self._store.clear_staged()

    def connection(self) -> AbstractContextManager[sqlite3.Connection]:
        """One write transaction on the collection's SQLite file, for tables kept beside ours."""
        return self._store.db.transaction()

    def rebuild(self) -> None:
        """Make the derived indexes anew beside the live ones, and switch."""
        with self._writing():
            self._persister.rebuild()
            self._persister.close()

    def side(self, side: Side) -> EmbeddedIndex:
        """A side as if it were in use, for reading; whoever asks for it closes it."""
        return EmbeddedIndex(self.folder, side=side)

    def upsert_side(
        self, side: Side, number: int, document: Document, chunks: Sequence[NewChunk]
    ) -> bool:
        """See `Store.upsert_side`. Needs no lock: nobody sees a side before `exchange`."""
        return self._store.upsert_side(side, number, document, chunks)

    def write_side(self, side: Side) -> None:
        """Make the derived files of a side, unless they are there and of this generation."""
        with self._writing():
            self._write_side(side)

    def _write_side(self, side: Side) -> None:
        with self._store.db.reading() as db:
            if side_pointers(db, side) is not None:
                return
        with closing(self.side(side)) as beside:
            made = beside._write_files()
        with self._store.db.transaction() as db:
            point_side_to(db, side, made)

    def _write_files(self) -> Pointers:
        with self._store.db.reading() as db:
            made = self._persister.write_all(db)
        self._persister.close()
        return made

    def exchange(
        self,
        side: Side,
        in_use: IndexSettings,
        also: Callable[[sqlite3.Connection], None] = lambda db: None,
    ) -> None:
        """Put a side in the place of the index in use; a process that reads sees all of the old
        state or all of the new one. `in_use` are the settings of the old one, `also` is done in
        the same transaction. Raises `StorageError` if a document is missing; then nothing has
        changed."""
        with self._writing():
            self._write_side(side)
            with self._store.db.transaction() as db:
                exchange(db, side, in_use)
                also(db)
            self._persister.close()
            self._persister.clean()

    def verify(self) -> VerifyReport:
        """Compare the truth with what is derived, after bringing that up to date."""
        with self._writing():
            self._persist(final=True)
            return verify(self.folder, self.name, self._store)

    def exists(self) -> bool:
        """Is this still the collection that its folder holds?"""
        return self._store.db.same_file()

    def mark_deleted(self) -> None:
        """From now on every process that has the collection open finds that it is gone."""
        self._store.set_meta(deleted="1")

    def close(self) -> None:
        with self._snapshot_lock, self._writing_lock:
            self._reader.close()
            self._persister.close()
            self._store.db.close()

    @contextmanager
    def _writing(self) -> Iterator[None]:
        """The writer lock: the one this process holds, or one for this call."""
        with self._writing_lock:
            if self._held:
                yield
                return
            with exclusive(self.folder / LOCK_FILE):
                yield
                self._persister.close()

    def _persist_if_due(self, generation: int) -> None:
        behind = generation - self._persisted_generation
        waited = time.monotonic() - self._persisted_at
        if (self._held and waited > PERSIST_SECONDS) or behind >= PERSIST_GENERATIONS:
            self._persist(final=not self._held)

    def _persist(self, *, final: bool) -> None:
        with self._writing_lock:
            self._persister.persist(final=final)
            self._persisted_at = time.monotonic()
            self._persisted_generation = self.generation()
