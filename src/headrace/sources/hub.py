"""What model hubs have in common: which of a repository's files are needed, and fetching them."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path, PurePosixPath
from typing import NamedTuple

import httpx

from headrace.errors import SourceError
from headrace.sources.cache import Entry, Progress, check, sha256_of
from headrace.sources.download import download
from headrace.sources.spec import Source

_COMPANIONS = ("tokenizer.json", "tokenizer_config.json", "config.json")
_GRAPHS = ("onnx/model.onnx", "model.onnx")
_TIMEOUT = httpx.Timeout(60.0, connect=15.0)


class Listed(NamedTuple):
    """A file in a repository: bytes, and its SHA-256 where the hub knows it."""

    size: int
    sha256: str | None


class Choice(NamedTuple):
    """The files to fetch, and which one the source resolves to (empty: their folder)."""

    files: tuple[str, ...]
    result: str


def choose(source: Source, listed: Mapping[str, Listed]) -> Choice:
    """Exactly what `source` needs of a repository.

    A named file comes alone, except an `.onnx` file, which brings its data, tokenizer and
    configuration. Without a name it is the only GGUF file, or an encoder's `model.onnx` with the
    same companions. Pickles are never taken. Raises `SourceError` naming what there is.
    """
    if source.file:
        if source.file not in listed:
            raise SourceError(f"{source}: there is no such file; {_offer(listed)}")
        if not source.file.endswith(".onnx"):
            return Choice((source.file,), source.file)
        return Choice(_encoder(source.file, listed), source.file)
    ggufs = [name for name in listed if name.endswith(".gguf")]
    if len(ggufs) == 1:
        return Choice((ggufs[0],), ggufs[0])
    graph = next((name for name in _GRAPHS if name in listed), None)
    if ggufs or graph is None or "tokenizer.json" not in listed:
        problem = f"it holds {len(ggufs)} GGUF files" if ggufs else "it is no ONNX encoder"
        raise SourceError(f"{source}: {problem}; name the file to use; {_offer(listed)}")
    return Choice(_encoder(graph, listed), "")


def _encoder(graph: str, listed: Mapping[str, Listed]) -> tuple[str, ...]:
    """The graph, its data files beside it, tokenizer and configuration at the top or beside it."""
    folder = PurePosixPath(graph).parent
    wanted = {graph, f"{graph}_data", f"{graph}.data"}
    wanted |= {str(folder / name) for name in _COMPANIONS} | set(_COMPANIONS)
    return tuple(sorted(wanted & listed.keys()))


def _stays_inside(name: str) -> bool:
    """Hubs are not trusted with the names of files on this machine."""
    path = PurePosixPath(name)
    return not path.is_absolute() and ".." not in path.parts and "\\" not in name


def _offer(listed: Mapping[str, Listed]) -> str:
    usable = sorted(name for name in listed if name.endswith((".gguf", ".onnx")))
    return f"usable files: {', '.join(usable[:20]) or 'none'}"


def fetch_files(
    source: Source,
    entry: Entry,
    listed: Mapping[str, Listed],
    url_of: Callable[[str], str],
    client: httpx.Client,
    sha256: str | None,
    progress: Progress,
    origin: str,
) -> Path:
    """Fetch what `source` needs into its entry, checked; returns what it resolves to."""
    listed = {name: file for name, file in listed.items() if _stays_inside(name)}
    choice = choose(source, listed)
    if sha256 and not choice.result:
        raise SourceError(f"{source} is several files, for which one `sha256` means nothing")
    paths: list[Path] = []
    for name in choice.files:
        target = entry.folder / name
        target.parent.mkdir(parents=True, exist_ok=True)
        if not _is_whole(target, listed[name]):
            _fetch_one(target, name, listed[name], url_of(name), client, progress)
        paths.append(target)
    result = entry.folder / choice.result
    found = sha256_of(result) if choice.result else ""
    check(result, found, sha256, str(source))
    return entry.commit(result, paths, sha256=found, origin=origin)


def _fetch_one(
    target: Path,
    name: str,
    listed: Listed,
    url: str,
    client: httpx.Client,
    progress: Progress,
) -> None:
    download(
        lambda headers: client.stream("GET", url, headers=headers),
        target,
        what=name,
        sha256=listed.sha256,
        network_errors=(httpx.HTTPError, httpx.StreamError),
        progress=progress,
    )
    size = target.stat().st_size
    if size != listed.size:
        target.unlink()
        raise SourceError(f"{name} has {size} bytes, its hub says {listed.size}; try again")


def _is_whole(target: Path, listed: Listed) -> bool:
    """Is it here from an earlier try that did not get to the last file?"""
    if not target.is_file() or target.stat().st_size != listed.size:
        return False
    return listed.sha256 is None or sha256_of(target) == listed.sha256


def client(headers: Mapping[str, str]) -> httpx.Client:
    """A client that follows redirects; credentials stay with the host they are meant for."""
    return httpx.Client(headers=headers, follow_redirects=True, timeout=_TIMEOUT)
