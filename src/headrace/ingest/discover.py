"""Which files a job is about."""

from __future__ import annotations

import os
import stat
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import NamedTuple

from headrace.errors import BadRequest


class Candidate(NamedTuple):
    """A file to read. `source` names it for good; `problem` says why it cannot be read."""

    source: str
    path: Path
    problem: str = ""


def discover(paths: Sequence[Path], *, follow_links: bool = False) -> list[Candidate]:
    """The regular files among and below `paths`, each once, sorted within a folder.

    Below a folder, hidden files and folders (and so those of version control) are left out, and
    links are followed only with `follow_links`, and then only to what lies below that folder.
    What cannot be listed comes back with a problem. Raises `BadRequest` if no path exists.
    """
    if not any(os.path.lexists(path) for path in paths):
        names = ", ".join(str(path) for path in paths) or "no path given"
        raise BadRequest(f"no such file or folder: {names}", field="paths")
    seen: set[str] = set()
    found = []
    for given in paths:
        root = Path(os.path.abspath(given))  # noqa: PTH100 - keeps links in the name
        for candidate in _below(root, follow_links):
            if candidate.source not in seen:
                seen.add(candidate.source)
                found.append(candidate)
    return found


def _below(root: Path, follow_links: bool) -> Iterator[Candidate]:
    if not root.is_dir():
        yield _candidate(root)
        return
    real_root = root.resolve()
    entered: set[Path] = set()
    pending = [root]
    while pending:
        folder = pending.pop()
        real = folder.resolve()
        if real in entered:  # a link back up, or two links to one folder
            continue
        entered.add(real)
        try:
            paths = sorted(folder.iterdir())
        except OSError as error:
            yield Candidate(source_of(folder), folder, f"cannot list it: {error.strerror}")
            continue
        folders = []
        for path in paths:
            if path.name.startswith(".") or not _wanted(path, real_root, follow_links):
                continue
            if path.is_dir():
                folders.append(path)
            else:
                yield _candidate(path)
        pending.extend(reversed(folders))


def _wanted(path: Path, real_root: Path, follow_links: bool) -> bool:
    if not path.is_symlink():
        return True
    return follow_links and path.resolve().is_relative_to(real_root)


def _candidate(path: Path) -> Candidate:
    try:
        mode = path.stat().st_mode
    except OSError as error:
        return Candidate(source_of(path), path, f"cannot read it: {error.strerror}")
    problem = "" if stat.S_ISREG(mode) else "not a regular file"
    return Candidate(source_of(path), path, problem)


def source_of(path: Path) -> str:
    """The absolute path with `/`. Always text: bytes that are not UTF-8 become `\\xNN`."""
    return os.fsencode(path.as_posix()).decode("utf-8", "backslashreplace")
