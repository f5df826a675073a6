"""`headrace ingest`: files and folders into a collection."""

from __future__ import annotations

import contextlib
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from headrace.cli import terminal
from headrace.cli.common import (
    DEFAULT_COLLECTION,
    CollectionOption,
    ConfigOption,
    JsonOption,
    load_config,
    pairs,
    run,
)

if TYPE_CHECKING:
    from rich.console import Console

    from headrace.config.options import Config
    from headrace.ingest.outcomes import Progress, Report
    from headrace.pipeline.services import Services

EPILOG = """\b
Examples:
  headrace ingest handbook/ laws.pdf
  headrace ingest laws/ --collection laws --prune
  headrace ingest salaries.xlsx --label hr --meta year=2026

\b
A run that was stopped, by Ctrl-C or worse, goes on where it was when the same command is given
again: files that did not change are not read twice. Files that cannot be read are skipped and
named; the exit status is 1 if no file could be read.
"""
SHOWN = 20
LINE_SECONDS = 10.0


def ingest(
    paths: Annotated[list[Path], typer.Argument(metavar="PATH...", help="Files and folders.")],
    collection: CollectionOption = DEFAULT_COLLECTION,
    prune: Annotated[
        bool, typer.Option("--prune", help="Remove documents whose files are gone from PATH.")
    ] = False,
    label: Annotated[
        list[str] | None,
        typer.Option(
            "--label",
            metavar="LABEL",
            help="Who may read them; repeatable. Without it, a document keeps the labels that it "
            "was given before, and a new one gets those of its collection.",
        ),
    ] = None,
    meta: Annotated[
        list[str] | None,
        typer.Option("--meta", metavar="KEY=VALUE", help="Metadata to filter by; repeatable."),
    ] = None,
    json: JsonOption = False,
    config: ConfigOption = None,
) -> None:
    """Read files and folders into a collection."""
    from headrace.cli.fetch import fetch_missing
    from headrace.errors import BadRequest

    metadata = pairs(meta, "--meta")
    for key, values in metadata.items():
        if len(values) > 1:
            raise BadRequest(f"--meta {key} is given twice", field="--meta")
    loaded = load_config(config)
    fetch_missing(loaded, [loaded.collection(collection).embedder])
    single = {key: values[0] for key, values in metadata.items()}
    report = run(_ingest(loaded, collection, paths, prune, label, single))
    if json:
        terminal.emit_json({"collection": collection, "report": report})
    else:
        print_report(collection, report)
    if report.skipped and not (report.added or report.replaced or report.unchanged):
        raise typer.Exit(1)


async def _ingest(
    config: Config,
    collection: str,
    paths: list[Path],
    prune: bool,
    labels: list[str] | None,
    metadata: dict[str, str],
) -> Report:
    from headrace.app import application

    async with application(config) as services:
        return await ingest_to_terminal(
            services, collection, paths, prune=prune, labels=labels, metadata=metadata
        )


async def ingest_to_terminal(
    services: Services,
    collection: str,
    paths: list[Path],
    *,
    prune: bool = False,
    labels: list[str] | None = None,
    metadata: dict[str, str] | None = None,
) -> Report:
    """Run ingestion with progress on standard error."""
    with progress_to_terminal("files") as show:
        return await services.jobs.run(
            collection, paths, prune=prune, labels=labels, metadata=metadata, progress=show
        )


@contextlib.contextmanager
def progress_to_terminal(what: str) -> Iterator[Callable[[Progress], None]]:
    """Shows progress through `what` (files, documents) and their passages on standard error: bars
    on a terminal, else a line every 10 s."""
    from rich.progress import BarColumn, MofNCompleteColumn, TextColumn, TimeRemainingColumn
    from rich.progress import Progress as Bars

    console = terminal.err()
    lines = Lines(console, what)
    with Bars(
        TextColumn("{task.description:9}", markup=False),
        BarColumn(),
        MofNCompleteColumn(),
        TimeRemainingColumn(),
        TextColumn("{task.fields[current]}", markup=False),
        console=console,
        disable=not console.is_terminal,
        transient=True,
    ) as bars:
        files = bars.add_task(what, total=None, current="")
        chunks = bars.add_task("passages", total=None, current="")

        def show(now: Progress) -> None:
            if not console.is_terminal:
                lines.show(now)
                return
            name = terminal.shorten(terminal.safe(Path(now.current).name), 40)
            bars.update(files, completed=now.files_done, total=now.files_total, current=name)
            bars.update(chunks, completed=now.chunks_done, total=now.chunks_total)

        yield show


class Lines:
    """Progress for logs and pipes: a plain line, when the last one is long enough ago."""

    def __init__(
        self,
        console: Console,
        what: str = "files",
        every: float = LINE_SECONDS,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._console = console
        self._what = what
        self._every = every
        self._clock = clock
        self._next = clock() + every

    def due(self) -> bool:
        """Whether the last line is long enough ago; then the next one is counted from now."""
        if self._clock() < self._next:
            return False
        self._next = self._clock() + self._every
        return True

    def show(self, now: Progress) -> None:
        if not self.due():
            return
        self._console.print(
            f"{now.files_done} of {now.files_total} {self._what}, "
            f"{now.chunks_done} of {now.chunks_total} passages so far: "
            f"{terminal.shorten(terminal.safe(Path(now.current).name), 60)}"
        )


def print_report(collection: str, report: Report) -> None:
    """What became of the files, the skipped ones with their reasons."""
    console = terminal.out()
    counts = [
        f"{getattr(report, name)} {name}"
        for name in ("added", "replaced", "unchanged", "removed", "skipped")
    ]
    console.print(f"{collection}: {', '.join(counts)}")
    if report.chunks:
        console.print(
            f"{report.characters} characters in {report.chunks} passages, "
            f"{report.embedded} embedded, {report.seconds:.1f} s"
        )
    if report.unaccounted:
        console.print(f"{report.unaccounted} characters are in no passage; please report this")
    skipped = [file for file in report.files if file.outcome == "skipped"]
    for file in skipped[:SHOWN]:
        console.print(terminal.styled(("skipped: ", "yellow"), f"{file.source}: {file.reason}"))
    if len(skipped) > SHOWN:
        console.print(f"... and {len(skipped) - SHOWN} more (--json lists all)")
    for file in report.files:
        for note in file.notes:
            console.print(terminal.styled(("note: ", "bold"), f"{file.source}: {note}"))
