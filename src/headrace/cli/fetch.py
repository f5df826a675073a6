"""Weights that are not here yet are fetched before a command needs them, with progress."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path
from typing import TYPE_CHECKING

from rich.progress import (
    BarColumn,
    DownloadColumn,
    Progress,
    TextColumn,
    TimeRemainingColumn,
    TransferSpeedColumn,
)

from headrace import sources
from headrace.cli import terminal

if TYPE_CHECKING:
    from headrace.config.model_options import ModelOptions
    from headrace.config.options import Config


def is_remote(model: ModelOptions) -> bool:
    """True for a model without weights of its own: built in, or served elsewhere."""
    return model.engine in ("echo", "openai")


def cached(config: Config, name: str) -> Path | None:
    """Where the weights of a model are, if they are here."""
    model = config.models[name]
    return sources.is_cached(model.source, cache_dir=config.cache_dir, sha256=model.sha256)


def missing(config: Config, names: Iterable[str | None]) -> list[str]:
    """Those of the models whose weights have to be fetched, each once."""
    return [
        name
        for name in dict.fromkeys(names)
        if name is not None and not is_remote(config.models[name]) and cached(config, name) is None
    ]


def fetch_missing(config: Config, names: Iterable[str | None]) -> list[Path]:
    """Fetch what is not in the cache; returns the paths. Ctrl-C leaves a part that the next call
    goes on with. Raises `SourceError`, `StorageError`."""
    return [_fetch(config, name) for name in missing(config, names)]


def _fetch(config: Config, name: str) -> Path:
    model = config.models[name]
    console = terminal.err()
    if not console.is_terminal:
        console.print(f"fetching {name} from {model.source}")
    with Progress(
        TextColumn("{task.description}", markup=False),
        BarColumn(),
        DownloadColumn(),
        TransferSpeedColumn(),
        TimeRemainingColumn(),
        console=console,
        disable=not console.is_terminal,
    ) as bars:
        task = bars.add_task(name, total=None)

        def advance(what: str, done: int, total: int | None) -> None:
            bars.update(task, description=f"{name}: {what}", completed=done, total=total)

        path = sources.resolve(
            model.source, cache_dir=config.cache_dir, sha256=model.sha256, progress=advance
        )
    if not console.is_terminal:
        console.print(f"fetched {name}: {terminal.size(weight(path))}")
    return path


def weight(path: Path) -> int:
    """Bytes of a file or of a folder's files."""
    files = [path] if path.is_file() else [file for file in path.rglob("*") if file.is_file()]
    return sum(file.stat().st_size for file in files)
