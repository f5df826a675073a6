"""What ingestion tells its callers: jobs, their progress, and what became of each file."""

from __future__ import annotations

import hashlib
from enum import StrEnum
from pathlib import Path
from typing import Literal, NamedTuple, TypeAlias

import msgspec

Outcome: TypeAlias = Literal["added", "replaced", "unchanged", "removed", "skipped"]


class JobState(StrEnum):
    """`interrupted`: the process that ran the job ended before the job did."""

    QUEUED = "queued"
    RUNNING = "running"
    DONE = "done"
    FAILED = "failed"
    CANCELLED = "cancelled"
    INTERRUPTED = "interrupted"

    @property
    def ended(self) -> bool:
        return self not in (JobState.QUEUED, JobState.RUNNING)


class FileOutcome(msgspec.Struct, frozen=True):
    """What became of one file. `reason` says why it was skipped; `notes` are the reader's: parts
    of the file that it could not use."""

    source: str
    outcome: Outcome
    reason: str = ""
    document_id: str = ""
    chunks: int = 0
    characters: int = 0
    notes: tuple[str, ...] = ()


class Progress(msgspec.Struct, frozen=True):
    """How far a job is. `chunks_total` grows while files are read; `current` is the source that
    was last begun or finished."""

    files_done: int = 0
    files_total: int = 0
    chunks_done: int = 0
    chunks_total: int = 0
    current: str = ""


class Report(msgspec.Struct, frozen=True):
    """The result of a job. `characters` were read; `unaccounted` of them are in no chunk and in
    no exclusion. `chunks` were stored, and `embedded` texts were new to the embedder;
    `passages_per_second` is of the latter. `files` leaves out the unchanged ones."""

    added: int = 0
    replaced: int = 0
    unchanged: int = 0
    removed: int = 0
    skipped: int = 0
    characters: int = 0
    unaccounted: int = 0
    chunks: int = 0
    embedded: int = 0
    seconds: float = 0.0
    passages_per_second: float = 0.0
    files: tuple[FileOutcome, ...] = ()


class Job(msgspec.Struct, frozen=True):
    """One run of ingestion. `paths` are files and folders, or the names of uploads. Times are
    ISO 8601 in UTC. `error` says why a job failed."""

    id: str
    collection: str
    state: JobState
    paths: tuple[str, ...]
    prune: bool = False
    labels: tuple[str, ...] | None = None
    metadata: dict[str, str] = {}
    created: str = ""
    started: str = ""
    finished: str = ""
    progress: Progress = Progress()
    report: Report | None = None
    error: str = ""

    @property
    def uploaded(self) -> bool:
        return any(path.startswith(UPLOAD) for path in self.paths)


UPLOAD = "upload:"


class Upload(NamedTuple):
    """A file that came over the network: its name at the sender, and where its bytes are now."""

    name: str
    path: Path


def document_id(source: str) -> str:
    """16 hexadecimal digits that stay the same while the source's content changes."""
    data = source.encode("utf-8", "surrogateescape")
    return hashlib.blake2b(data).hexdigest()[:16]
