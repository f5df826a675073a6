"""The embedded index of one collection: SQLite as the truth, tantivy and FAISS derived from it."""

from __future__ import annotations

import sqlite3
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, contextmanager
from pathlib import Path
from threading import Lock, RLock
from uuid import uuid4

import msgspec
import numpy as np
import numpy.typing as npt

from headrace.retrieval.base import DocumentInfo, NewChunk, Scored
from headrace.retrieval.derived import Persister, Reader
from headrace.retrieval.files import exclusive, folder_bytes
from headrace.retrieval.rows import Embedder, embedder_of, generation_of
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

    def __init__(self, folder: Path) -> None:
        """Raises `StorageError` if the folder does not hold a collection that can be read."""
        self.folder = folder
        self.token = uuid4().hex
        """Names this very collection as long as it is open: one that is made anew under the same
        name, or restored from a backup, gets another."""
        self._store = Store(folder / STORE_FILE)
        meta = self._store.meta()
        self.name = meta["name"]
        self._created = meta["created"]
        self._reader = Reader(folder, self._store)
        self._persister = Persister(folder, self._store)
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

    def search_dense(self, vector: npt.NDArray[np.float32], k: int, where: Filter) -> list[Scored]:
        return self.snapshot().search_dense(vector, k, where)

    def search_lexical(self, query: str, k: int, where: Filter) -> list[Scored]:
        return self.snapshot().search_lexical(query, k, where)

    def get(self, scored: Mapping[int, Mapping[str, float]], where: Filter) -> list[Hit]:
        return self._store.hits(scored, where)

    def document(self, document_id: str) -> Document | None:
        return self._store.document(document_id)

    def documents(self) -> list[DocumentInfo]:
        return self._store.documents()

    def vectors(self, keys: Sequence[bytes]) -> dict[bytes, npt.NDArray[np.float32]]:
        return self._store.vectors(keys)

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
        with self._writing():
            generation = self._store.delete(document_ids)
            self._persist_if_due(generation)
        return generation

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

    def change_embedder(self, embedder: Embedder) -> None:
        """Switch to another embedder, for which every chunk's vector is staged under its
        `chunk_key`; a process that reads sees all of the old state or all of the new one. Raises
        `StorageError` if a vector is missing; then nothing has changed."""
        with self._writing():
            self._persister.change_embedder(embedder)
            self._persister.close()

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
