"""Tells one set of weights from another without reading gigabytes."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable
from pathlib import Path

from headrace.errors import SourceError

_SAMPLE = 1 << 20


def of_files(paths: Iterable[Path], *settings: object) -> str:
    """16 hexadecimal digits from the settings and, per file in the given order, its size and its
    first, middle and last MiB. A fetched file has been checked as a whole when it was fetched."""
    digest = hashlib.sha256(repr(settings).encode())
    for path in paths:
        try:
            size = path.stat().st_size
            digest.update(f"{size}\n".encode())
            with path.open("rb") as file:
                for start in sorted({0, max(0, size // 2), max(0, size - _SAMPLE)}):
                    file.seek(start)
                    digest.update(file.read(_SAMPLE))
        except OSError as error:
            raise SourceError(f"cannot read {path}: {error.strerror}") from error
    return digest.hexdigest()[:16]
