"""Folders of files made from fetched weights: made once, whole or not at all."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from pathlib import Path

from filelock import FileLock

from headrace.errors import StorageError


def make_once(folder: Path, make: Callable[[Path], None]) -> Path:
    """`folder`, filled by `make(empty_folder)` unless it is there already.

    The files are written beside it and moved into place, so that a crash leaves no half folder,
    and under a lock, so that two processes do the work once. Raises `StorageError` where the
    cache cannot be written to; errors of `make` pass through.
    """
    if folder.is_dir():
        return folder
    try:
        folder.parent.mkdir(parents=True, exist_ok=True)
        with FileLock(folder.with_name(f"{folder.name}.lock")):
            if folder.is_dir():
                return folder
            partial = folder.with_name(f"{folder.name}.partial")
            shutil.rmtree(partial, ignore_errors=True)
            partial.mkdir()
            make(partial)
            partial.replace(folder)
    except OSError as error:
        raise StorageError(
            f"cannot write {folder}: {error.strerror or error}; free some space or set another"
            " `cache_dir`"
        ) from error
    return folder
