"""A SQLite file in WAL mode: one writing connection, a pool of reading ones, typed errors."""

from __future__ import annotations

import sqlite3
from collections import deque
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from threading import Lock, RLock

from headrace.errors import Busy, HeadraceError, StorageError, UnknownCollection

BUSY_SECONDS = 10.0
_HINTS = {
    "SQLITE_FULL": "the disk is full: free some space and try again",
    "SQLITE_READONLY": "the folder or file is read-only: make it writable for this user",
    "SQLITE_CANTOPEN": "the file cannot be opened: check that the folder exists and is writable",
    "SQLITE_PERM": "access is denied: make the folder readable and writable for this user",
    "SQLITE_IOERR": "the disk reports an error: check it, and that space is left",
    "SQLITE_CORRUPT": "the file is damaged: restore it from a backup, or delete the collection "
    "and ingest its documents again",
    "SQLITE_NOTADB": "the file is not a database of ours: restore it from a backup, or delete the "
    "collection and ingest its documents again",
}


class Database:
    """Thread-safe. Reads never wait for writes; writes of all threads go one after another.

    `synchronous=FULL`: a committed transaction survives a power failure, which costs one fsync
    (about 5 ms) per document.
    """

    def __init__(self, path: Path, *, views: Sequence[str] = ()) -> None:
        """`views` are statements that every connection begins with."""
        self.path = path
        self._views = views
        self._write_lock = RLock()
        self._pool: deque[sqlite3.Connection] = deque()
        self._closed = False
        with translated(path):
            self._writer = self._connect()
            self._watch = self._connect()
            status = path.stat()
        self._identity = (status.st_dev, status.st_ino)
        self._watch_lock = Lock()

    def _connect(self) -> sqlite3.Connection:
        db = sqlite3.connect(
            self.path, timeout=BUSY_SECONDS, isolation_level=None, check_same_thread=False
        )
        db.execute("PRAGMA journal_mode=WAL")
        db.execute("PRAGMA synchronous=FULL")
        db.execute("PRAGMA foreign_keys=ON")
        for statement in self._views:
            db.execute(statement)
        return db

    @contextmanager
    def transaction(self) -> Iterator[sqlite3.Connection]:
        """One write transaction: committed at the end, rolled back by an exception."""
        with self._write_lock, translated(self.path):
            self._check_open()
            self._writer.execute("BEGIN IMMEDIATE")
            try:
                yield self._writer
                self._writer.execute("COMMIT")
            except BaseException:
                with suppress(sqlite3.Error):  # SQLite has rolled back by itself, or cannot
                    self._writer.execute("ROLLBACK")
                raise

    @contextmanager
    def reading(self) -> Iterator[sqlite3.Connection]:
        """One read transaction: all its statements see the same state."""
        with self.statement() as db:
            db.execute("BEGIN")
            try:
                yield db
            finally:
                with suppress(sqlite3.Error):
                    db.execute("ROLLBACK")

    @contextmanager
    def statement(self) -> Iterator[sqlite3.Connection]:
        """A connection for one statement, which is a transaction by itself."""
        with translated(self.path):
            self._check_open()
            try:
                db = self._pool.pop()
            except IndexError:
                db = self._connect()
            try:
                yield db
            finally:
                if self._closed:
                    db.close()
                else:
                    self._pool.append(db)

    def version(self) -> int:
        """A number that changes with every commit to the file, by whichever process. Costs a
        few microseconds."""
        with self._watch_lock, translated(self.path):
            self._check_open()
            return int(self._watch.execute("PRAGMA data_version").fetchone()[0])

    def same_file(self) -> bool:
        """False if the file was removed or replaced since it was opened."""
        try:
            status = self.path.stat()
        except OSError:
            return False
        return (status.st_dev, status.st_ino) == self._identity

    def close(self) -> None:
        with self._write_lock, self._watch_lock:
            self._closed = True
            self._writer.close()
            self._watch.close()
            while self._pool:
                self._pool.pop().close()

    def _check_open(self) -> None:
        if not self._closed:
            return
        if not self.same_file():
            raise UnknownCollection(self.path.parent.name, None)
        raise StorageError(f"{self.path}: the collection is closed")


@contextmanager
def translated(path: Path, then: str = "the index is unchanged") -> Iterator[None]:
    """Turns what SQLite and the file system raise into our errors, naming the file; `then` ends
    those of the file system."""
    try:
        yield
    except sqlite3.Error as error:
        raise _translate(path, error) from error
    except OSError as error:
        place = error.filename or path
        raise StorageError(f"{place}: {error.strerror or error}; {then}") from error
    except UnicodeEncodeError as error:
        raise StorageError(
            f"{path}: text with lone surrogates (half characters) cannot be stored; "
            "read the file with another encoding"
        ) from error


def _translate(path: Path, error: sqlite3.Error) -> HeadraceError:
    name = getattr(error, "sqlite_errorname", "") or ""
    if name.startswith(("SQLITE_BUSY", "SQLITE_LOCKED")):
        return Busy(f"{path}: another process has been writing for {BUSY_SECONDS:.0f} s; try again")
    for prefix, hint in _HINTS.items():
        if name.startswith(prefix):
            return StorageError(f"{path}: {hint} ({error})")
    return StorageError(f"{path}: {error} ({name or type(error).__name__})")
