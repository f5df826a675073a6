"""What was asked already: one SQLite file per run, which survives the death of its process.

A record is committed as soon as its question is answered, and its id is the primary key, so a run
that is killed at any moment and started again answers every question exactly once; only what was
being asked at that moment is asked anew.
"""

from __future__ import annotations

import contextlib
import sqlite3
from collections.abc import Iterator
from pathlib import Path
from threading import Lock
from types import TracebackType

import msgspec

from headrace.errors import BadRequest, Busy, StorageError
from headrace.retrieval.database import translated
from headrace.retrieval.files import exclusive
from headrace.types import Usage

FILE = "journal.sqlite"
LOCK = "run.lock"


class Identity(msgspec.Struct, frozen=True):
    """What makes the answers of a run comparable; a journal holds those of one identity only."""

    suite: str  # fingerprint
    config_version: str
    program: str
    collection: str
    created: str  # of the collection: one made anew counts its generations from the start
    generation: int
    fitted: str = ""
    machine: str = ""  # where times are measured

    def changes(self, now: Identity) -> str:
        """What is another one now, in words."""
        names = [name for name in _WORDS if getattr(self, name) != getattr(now, name)]
        return " and ".join(_WORDS[name] for name in names)


_WORDS = {
    "suite": "the suite or its --limit",
    "config_version": "the configuration",
    "program": "the version of headrace",
    "collection": "the collection",
    "created": "the collection (it was made anew)",
    "generation": "the collection's content",
    "fitted": "the collection's calibration or ranker",
    "machine": "the machine",
}

OTHER_FOLDER = "free some space, make it writable, or give another --out"
"""What to do about a folder that cannot be written."""


class Record(msgspec.Struct, frozen=True, kw_only=True):
    """What became of one question. `ranks` has for each stage the rank (from 1, or 0) of each need
    of its gold, `depths` how many hits the stage's list had. Fields of kinds that were not asked
    for stay empty. `failed` is the error's code and message."""

    id: str
    generation: int = 0
    failed: str = ""
    ranks: dict[str, tuple[int, ...]] = {}
    depths: dict[str, int] = {}
    answer: str = ""
    refusal: bool | None = None
    sources: tuple[str, ...] = ()  # where its quotes stand
    quotes: int = 0
    quotes_gold: int = 0
    quotes_identical: int = 0
    needs_quoted: tuple[int, ...] = ()
    unsupported: int = 0
    chosen: int | None = None
    chosen_by: str = ""
    timings: dict[str, float] = {}
    skipped: tuple[str, ...] = ()
    usage: Usage = Usage()


class Journal:
    """Open by one process at a time. Thread-safe: a record that is being written when a run is
    stopped is written before the file is closed."""

    def __init__(self, folder: Path, identity: Identity, *, fresh: bool = False) -> None:
        """Raises `Busy` if another process runs in this folder, `BadRequest` if its journal is of
        another suite, configuration or state of the collection; `fresh` begins anew."""
        self.path = folder / FILE
        self._stack = contextlib.ExitStack()
        self._lock = Lock()
        try:
            self._stack.enter_context(alone(folder))
            with _readable(self.path):
                if fresh:
                    for suffix in ("", "-wal", "-shm"):
                        Path(f"{self.path}{suffix}").unlink(missing_ok=True)
                self._db = sqlite3.connect(self.path, isolation_level=None, check_same_thread=False)
                self._stack.callback(self._db.close)
                self._db.execute("PRAGMA journal_mode=WAL")
                # A killed process loses nothing that is committed; a power failure may lose the
                # last records, which are then asked again.
                self._db.execute("PRAGMA synchronous=NORMAL")
                self._db.execute("CREATE TABLE IF NOT EXISTS run (identity BLOB NOT NULL)")
                self._db.execute(
                    "CREATE TABLE IF NOT EXISTS records (id TEXT PRIMARY KEY, record BLOB NOT NULL)"
                )
            self._check(identity)
        except BaseException:
            self._stack.close()
            raise

    def __enter__(self) -> Journal:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        at: TracebackType | None,
    ) -> None:
        with self._lock:
            self._stack.close()

    def done(self) -> set[str]:
        """Ids of the questions that are answered."""
        with _readable(self.path):
            return {name for (name,) in self._db.execute("SELECT id FROM records")}

    def add(self, record: Record) -> None:
        """Committed on return. Raises `StorageError`, also for a second record of one id."""
        with self._lock, _readable(self.path):
            self._db.execute(
                "INSERT INTO records VALUES (?, ?)", (record.id, msgspec.json.encode(record))
            )

    def records(self) -> Iterator[Record]:
        with _readable(self.path):
            rows = self._db.execute("SELECT record FROM records ORDER BY id").fetchall()
            for (raw,) in rows:
                yield msgspec.json.decode(raw, type=Record)

    def _check(self, identity: Identity) -> None:
        with _readable(self.path):
            found = self._db.execute("SELECT identity FROM run").fetchone()
            if found is None:
                self._db.execute("INSERT INTO run VALUES (?)", (msgspec.json.encode(identity),))
                return
            before = msgspec.json.decode(found[0], type=Identity)
        changed = before.changes(identity)
        if changed:
            raise BadRequest(
                f"{self.path} holds {len(self.done())} answers from before {changed} changed, and "
                "results of two states must not be mixed: --fresh begins anew, another --out keeps "
                "both"
            )


@contextlib.contextmanager
def _readable(path: Path) -> Iterator[None]:
    with translated(path, OTHER_FOLDER):
        try:
            yield
        except msgspec.DecodeError as error:
            raise StorageError(
                f"{path} is damaged, or of another version of headrace ({error}); --fresh begins "
                "the evaluation anew"
            ) from error
        except sqlite3.DatabaseError as error:
            if error.sqlite_errorname.startswith(("SQLITE_NOTADB", "SQLITE_CORRUPT")):
                raise StorageError(
                    f"{path} is damaged ({error}); --fresh begins the evaluation anew"
                ) from error
            raise


@contextlib.contextmanager
def alone(folder: Path) -> Iterator[None]:
    """The folder of a run, made if it is not there, for this process alone. Raises `Busy`, and
    `StorageError` where it cannot be written."""
    with contextlib.ExitStack() as stack:
        with translated(folder, OTHER_FOLDER):
            folder.mkdir(parents=True, exist_ok=True)
            (folder / LOCK).touch()
        try:
            stack.enter_context(exclusive(folder / LOCK))
        except Busy as error:
            raise Busy(
                f"an evaluation (process {error.pid or '?'}) is running in {folder}; wait for its "
                "end, stop it, or give another --out",
                pid=error.pid,
            ) from error
        yield
