"""The journal of jobs: `jobs.sqlite` in the data folder, shared by all processes that use it.

It says what ran and what became of it. It is not needed for going on after a crash: what a job
has still to do follows from the collection itself (see `headrace.ingest.flow`).
"""

from __future__ import annotations

import contextlib
import os
import sqlite3
import threading
from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import msgspec
import psutil

from headrace.errors import StorageError, UnknownItem
from headrace.ingest.outcomes import FileOutcome, Job, JobState, Report

KEPT_JOBS = 500
_SCHEMA = """
CREATE TABLE IF NOT EXISTS jobs (
    number INTEGER PRIMARY KEY,
    id TEXT NOT NULL UNIQUE,
    collection TEXT NOT NULL,
    state TEXT NOT NULL,
    job BLOB NOT NULL,
    pid INTEGER NOT NULL,
    born REAL NOT NULL
) STRICT;
CREATE TABLE IF NOT EXISTS files (
    job TEXT NOT NULL REFERENCES jobs (id) ON DELETE CASCADE,
    outcome BLOB NOT NULL
) STRICT;
CREATE INDEX IF NOT EXISTS files_by_job ON files (job);
CREATE TABLE IF NOT EXISTS cancellations (
    job TEXT PRIMARY KEY REFERENCES jobs (id) ON DELETE CASCADE
) STRICT;
"""


def now() -> str:
    """ISO 8601 in UTC, to the millisecond."""
    return datetime.now(UTC).isoformat(timespec="milliseconds")


class Journal:
    """Jobs by id. All methods block, shortly, and may be called from any thread. They raise
    `StorageError` if the file cannot be used."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._lock = threading.Lock()
        self._connection: sqlite3.Connection | None = None
        self._me = (os.getpid(), psutil.Process().create_time())

    def add(self, job: Job) -> None:
        """Enter a job that this process is going to run; the oldest ended ones are forgotten."""
        with self._writing() as db:
            db.execute(
                "INSERT INTO jobs (id, collection, state, job, pid, born) VALUES (?,?,?,?,?,?)",
                (job.id, job.collection, job.state, msgspec.json.encode(job), *self._me),
            )
            db.execute(
                "DELETE FROM jobs WHERE state NOT IN ('queued', 'running')"
                " AND number <= (SELECT max(number) FROM jobs) - ?",
                (KEPT_JOBS,),
            )

    def update(self, job: Job, outcomes: list[FileOutcome] | None = None) -> None:
        """Store the job as it is now, with what became of more of its files. `job.report.files`
        is not stored twice."""
        report = job.report and msgspec.structs.replace(job.report, files=())
        kept = msgspec.structs.replace(job, report=report)
        with self._writing() as db:
            db.execute(
                "UPDATE jobs SET state = ?, job = ?, pid = ?, born = ? WHERE id = ?",
                (job.state, msgspec.json.encode(kept), *self._me, job.id),
            )
            if job.state.ended:
                db.execute("DELETE FROM cancellations WHERE job = ?", (job.id,))
            rows = [(job.id, msgspec.json.encode(outcome)) for outcome in outcomes or ()]
            db.executemany("INSERT INTO files (job, outcome) VALUES (?, ?)", rows)

    def ask_to_cancel(self, job_id: str) -> None:
        """Leave word for the process that runs the job."""
        with self._writing() as db:
            db.execute("INSERT OR IGNORE INTO cancellations (job) VALUES (?)", (job_id,))

    def withdraw(self, job_id: str) -> None:
        """Undo `ask_to_cancel`."""
        with self._writing() as db:
            db.execute("DELETE FROM cancellations WHERE job = ?", (job_id,))

    def cancellations(self) -> set[str]:
        """Jobs of this process that another one asks to cancel."""
        with self._writing() as db:
            rows = db.execute(
                "SELECT id FROM jobs JOIN cancellations ON id = cancellations.job"
                " WHERE pid = ? AND born = ?",
                self._me,
            ).fetchall()
        return {job for (job,) in rows}

    def forget_files(self, job_id: str) -> None:
        """Drop what is known of a job's files, because the job starts again."""
        with self._writing() as db:
            db.execute("DELETE FROM files WHERE job = ?", (job_id,))

    def get(self, job_id: str) -> Job:
        """With the outcomes of its files in the report. Raises `UnknownItem`."""
        self.mark_interrupted()
        with self._writing() as db:
            row = db.execute("SELECT job FROM jobs WHERE id = ?", (job_id,)).fetchone()
            if row is None:
                raise UnknownItem(f"there is no ingestion job {job_id!r}", field="job")
            found = db.execute("SELECT outcome FROM files WHERE job = ? ORDER BY rowid", (job_id,))
            files = tuple(msgspec.json.decode(raw, type=FileOutcome) for (raw,) in found)
        job = msgspec.json.decode(row[0], type=Job)
        report = msgspec.structs.replace(job.report or Report(), files=files)
        return msgspec.structs.replace(job, report=report if files or job.report else None)

    def list(self, collection: str | None = None) -> list[Job]:
        """Newest first, without the outcomes of files."""
        self.mark_interrupted()
        where, values = ("WHERE collection = ?", (collection,)) if collection else ("", ())
        with self._writing() as db:
            rows = db.execute(
                f"SELECT job FROM jobs {where} ORDER BY number DESC", values
            ).fetchall()
        return [msgspec.json.decode(raw, type=Job) for (raw,) in rows]

    def mark_interrupted(self) -> None:
        """Jobs that a process left behind when it died get the state `interrupted`."""
        with self._writing() as db:
            rows = db.execute(
                "SELECT job, pid, born FROM jobs WHERE state IN ('queued', 'running')"
            ).fetchall()
            for raw, pid, born in rows:
                if (pid, born) == self._me or _alive(pid, born):
                    continue
                job = msgspec.structs.replace(
                    msgspec.json.decode(raw, type=Job),
                    state=JobState.INTERRUPTED,
                    error="the process that ran it ended before it did; resume it or run it again",
                )
                db.execute(
                    "UPDATE jobs SET state = ?, job = ? WHERE id = ?",
                    (job.state, msgspec.json.encode(job), job.id),
                )
                db.execute("DELETE FROM cancellations WHERE job = ?", (job.id,))

    def close(self) -> None:
        with self._lock:
            if self._connection is not None:
                self._connection.close()
                self._connection = None

    @contextlib.contextmanager
    def _writing(self) -> Iterator[sqlite3.Connection]:
        with self._lock:
            try:
                db = self._connection or self._open()
                db.execute("BEGIN IMMEDIATE")
                try:
                    yield db
                    db.execute("COMMIT")
                finally:
                    if db.in_transaction:
                        db.execute("ROLLBACK")
            except (sqlite3.Error, OSError) as error:
                raise StorageError(
                    f"the journal of jobs {self._path} cannot be used: {error}; check that its "
                    "folder is writable and the disk has room"
                ) from error

    def _open(self) -> sqlite3.Connection:
        self._path.parent.mkdir(parents=True, exist_ok=True)
        db = sqlite3.connect(self._path, timeout=30, isolation_level=None, check_same_thread=False)
        try:
            db.execute("PRAGMA journal_mode = WAL")
            db.execute("PRAGMA synchronous = NORMAL")
            db.execute("PRAGMA foreign_keys = ON")
            db.executescript(_SCHEMA)
        except sqlite3.Error:
            db.close()
            raise
        self._connection = db
        return db


def _alive(pid: int, born: float) -> bool:
    """Is the process that was born then (seconds since 1970) still there?"""
    try:
        process: Any = psutil.Process(pid)
        same = abs(process.create_time() - born) < 1
        return bool(same and process.status() != psutil.STATUS_ZOMBIE)
    except psutil.NoSuchProcess:
        return False
    except psutil.AccessDenied:
        return True
