"""One source's place in the cache: `sources/KIND/NAME-HASH/` with the files and, written last, a
manifest that says they are complete."""

from __future__ import annotations

import hashlib
import re
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TypeAlias

import msgspec
from filelock import FileLock

from headrace.errors import SourceError, StorageError
from headrace.sources.spec import Source

Progress: TypeAlias = Callable[[str, int, int | None], None]
"""`progress(name, done, total)`: bytes of the file being fetched."""

_MANIFEST = "manifest.json"


def quiet(name: str, done: int, total: int | None) -> None:
    """Progress that tells nobody."""


class Manifest(msgspec.Struct, frozen=True):
    """What an entry holds. `result` is the path that the source resolves to; `files` gives bytes
    by path; both are relative to the entry's folder. `sha256` is of the result if it is a file.
    `origin` says where it came from, without credentials."""

    source: str
    result: str
    files: dict[str, int]
    sha256: str
    origin: str


class Entry:
    """The cache's folder for one source."""

    def __init__(self, cache_dir: Path, source: Source) -> None:
        self.source = source
        slug = re.sub(r"[^\w.=-]+", "-", f"{source.name}{source.version and '=='}{source.version}")
        digest = hashlib.sha256(str(source).encode()).hexdigest()[:8]
        self.folder = cache_dir / "sources" / source.kind / f"{slug}-{digest}"

    def get(self, sha256: str | None) -> Path | None:
        """The path that the source resolves to, if it is here whole and has the checksum."""
        try:
            raw = (self.folder / _MANIFEST).read_bytes()
            manifest = msgspec.json.decode(raw, type=Manifest)
            sizes = {name: (self.folder / name).stat().st_size for name in manifest.files}
        except (OSError, msgspec.MsgspecError):
            return None
        if sizes != manifest.files or (sha256 and sha256 != manifest.sha256):
            return None
        return self.folder / manifest.result

    @contextmanager
    def locked(self) -> Iterator[None]:
        """Hold this entry against other processes; the lock goes with its holder. Failures to
        write anything in the block become `StorageError`."""
        try:
            self.folder.mkdir(parents=True, exist_ok=True)
            with FileLock(self.folder.with_name(f"{self.folder.name}.lock")):
                self.folder.mkdir(exist_ok=True)
                yield
        except OSError as error:
            raise StorageError(
                f"cannot write to {self.folder}: {error.strerror or error}; free some space or set"
                " another `cache_dir`"
            ) from error

    def commit(self, result: Path, files: list[Path], *, sha256: str, origin: str) -> Path:
        """Declare the entry complete; returns `result`."""
        sizes = {path.relative_to(self.folder).as_posix(): path.stat().st_size for path in files}
        manifest = Manifest(
            source=str(self.source),
            result=result.relative_to(self.folder).as_posix(),
            files=sizes,
            sha256=sha256,
            origin=origin,
        )
        partial = self.folder / f"{_MANIFEST}.partial"
        partial.write_bytes(msgspec.json.format(msgspec.json.encode(manifest)))
        partial.replace(self.folder / _MANIFEST)
        return result


def check(path: Path, found: str, wanted: str | None, what: str) -> None:
    """Delete `path` and raise `SourceError` unless its checksum `found` is the `wanted` one."""
    if wanted and found != wanted:
        path.unlink(missing_ok=True)
        raise SourceError(
            f"{what} has the SHA-256 {found}, not {wanted}: the file was changed or damaged on its"
            " way; fetch it again, or correct `sha256` in the configuration"
        )


def sha256_of(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
