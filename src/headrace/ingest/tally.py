"""Counts what a run does and passes it on."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable

from headrace.ingest.outcomes import FileOutcome, Progress, Report


class Tally:
    """Fed by one run. `on_change` is called after every event, and must be quick."""

    def __init__(self, on_change: Callable[[], None]) -> None:
        self._on_change = on_change
        self._counts: Counter[str] = Counter()
        self._files: list[FileOutcome] = []
        self._taken = 0
        self._files_done = self._files_total = 0
        self._chunks_done = self._chunks_total = 0
        self._characters = self._unaccounted = self._embedded = 0
        self._seconds = 0.0
        self._current = ""

    def begin(self, files: int) -> None:
        self._files_total = files
        self._on_change()

    def working_on(self, source: str) -> None:
        self._current = source
        self._on_change()

    def chunks_found(self, chunks: int) -> None:
        self._chunks_total += chunks
        self._on_change()

    def embedded(self, texts: int) -> None:
        self._embedded += texts
        self._on_change()

    def add(self, outcome: FileOutcome, *, unaccounted: int = 0) -> None:
        self._counts[outcome.outcome] += 1
        self._characters += outcome.characters
        self._unaccounted += unaccounted
        self._chunks_done += outcome.chunks
        if outcome.outcome != "removed":
            self._files_done += 1
        if outcome.outcome != "unchanged":
            self._files.append(outcome)
        self._current = outcome.source
        self._on_change()

    def ended(self, seconds: float) -> None:
        self._seconds = seconds
        self._on_change()

    def new_files(self) -> list[FileOutcome]:
        """The outcomes since the last call, unchanged files left out."""
        new = self._files[self._taken :]
        self._taken = len(self._files)
        return new

    @property
    def progress(self) -> Progress:
        return Progress(
            files_done=self._files_done,
            files_total=self._files_total,
            # While a long document is embedded, its chunks count as they come.
            chunks_done=min(self._chunks_total, max(self._chunks_done, self._embedded)),
            chunks_total=self._chunks_total,
            current=self._current,
        )

    @property
    def report(self) -> Report:
        return Report(
            added=self._counts["added"],
            replaced=self._counts["replaced"],
            unchanged=self._counts["unchanged"],
            removed=self._counts["removed"],
            skipped=self._counts["skipped"],
            characters=self._characters,
            unaccounted=self._unaccounted,
            chunks=self._chunks_done,
            embedded=self._embedded,
            seconds=round(self._seconds, 3),
            passages_per_second=round(self._embedded / self._seconds, 1) if self._seconds else 0.0,
            files=tuple(self._files),
        )
