"""Output: for people on a terminal, JSON for programs, progress and errors on standard error."""

from __future__ import annotations

import re
import sys
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import msgspec
from rich.cells import cell_len
from rich.console import Console
from rich.text import Text

_CONTROLS = re.compile(r"[\x00-\x08\x0b-\x1f\x7f-\x9f]")


def out() -> Console:
    """Standard output. Lines are never cut or wrapped, so that pipes get whole lines."""
    return Console(highlight=False, markup=False, soft_wrap=True)


def err() -> Console:
    """Standard error: progress, notes and errors."""
    return Console(stderr=True, highlight=False, markup=False, soft_wrap=True)


def prepare_streams() -> None:
    """Characters that the terminal's encoding lacks are replaced instead of ending the program."""
    for stream in (sys.stdout, sys.stderr):
        if hasattr(stream, "reconfigure"):
            stream.reconfigure(errors="replace")


def safe(text: str) -> str:
    """Text of documents without characters that command a terminal (tab and newline stay)."""
    return _CONTROLS.sub("\ufffd", text)


def given(text: str) -> str:
    """An argument as text: bytes that are not in the terminal's encoding are replaced."""
    return text.encode("utf-8", "surrogateescape").decode("utf-8", "replace")


def emit_json(value: Any) -> None:
    """One JSON value on standard output, always UTF-8, whatever the terminal's encoding."""
    data = msgspec.json.format(msgspec.json.encode(value), indent=2) + b"\n"
    sys.stdout.flush()
    buffer = getattr(sys.stdout, "buffer", None)
    if buffer is None:
        sys.stdout.write(data.decode())
    else:
        buffer.write(data)
    sys.stdout.flush()


@contextmanager
def counting(what: str) -> Iterator[Callable[[int, int | None], None]]:
    """A bar on standard error, if that is a terminal; told how many are done, and of how many."""
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn
    from rich.progress import TimeRemainingColumn as Remaining

    console = err()
    columns = (TextColumn(what), BarColumn(), MofNCompleteColumn(), Remaining())
    hidden = not console.is_terminal
    with Progress(*columns, console=console, disable=hidden, transient=True) as bars:
        bar = bars.add_task("", total=None)
        yield lambda done, total: bars.update(bar, completed=done, total=total)


def styled(*parts: str | tuple[str, str]) -> Text:
    """Text from plain parts and (text, style) pairs, safe to print."""
    return Text.assemble(*((safe(p) if isinstance(p, str) else (safe(p[0]), p[1])) for p in parts))


def columns(head: Sequence[str], rows: Sequence[Sequence[object]]) -> Text:
    """Aligned columns, whole whatever the terminal's width; wide characters count as two."""
    cells = [[shorten(safe(str(cell)), 200) for cell in row] for row in (head, *rows)]
    widths = [max(map(cell_len, column)) for column in zip(*cells, strict=True)]
    text = Text()
    for number, row in enumerate(cells):
        padded = (
            cell + " " * (width - cell_len(cell)) for cell, width in zip(row, widths, strict=True)
        )
        text.append("\n" if number else "")
        text.append("  ".join(padded).rstrip(), style="" if number else "bold")
    return text


def shorten(text: str, characters: int) -> str:
    """One line of at most that many characters."""
    line = " ".join(text.split())
    return line if len(line) <= characters else line[: characters - 1].rstrip() + "…"


def size(count: float) -> str:
    """Bytes for people: `93.1 MB`."""
    for unit in ("B", "kB", "MB"):
        if count < 1000:
            return f"{count:.0f} {unit}" if unit == "B" else f"{count:.1f} {unit}"
        count /= 1000
    return f"{count:.1f} GB"
