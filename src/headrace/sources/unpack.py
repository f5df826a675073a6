"""An archive that somebody sent -> files in a folder, and nothing else.

Only plain files come out, under names that stay inside, and never more than the limits allow, count
and bytes, whatever the archive's own lists say.
"""

from __future__ import annotations

import io
import stat
import tarfile
import unicodedata
import zipfile
from collections.abc import Iterator
from pathlib import Path, PurePosixPath
from typing import IO, NamedTuple

from headrace.errors import InvalidField, StorageError

MAX_FILES = 1000
MAX_RATIO = 200
"""Unpacked bytes for one packed byte, above which a member of a zip is a bomb; weights hardly
shrink at all, and vocabularies to a quarter."""
MAX_NAME = 200
MAX_DEPTH = 8
SUFFIXES = (".tar", ".zip")

_STEP = 1 << 20
_MAX_LIST = 64 << 20
"""Bytes of an archive that are read at once: its list of members, or a header's text."""


class _Member(NamedTuple):
    name: str
    content: IO[bytes]


def checked_name(name: str) -> PurePosixPath:
    """A file's name as a path below the folder it belongs to. Raises `InvalidField`."""
    path = PurePosixPath(name)
    if not name or any(unicodedata.category(char) in ("Cc", "Cf", "Cs") for char in name):
        raise _refused(name, "its name holds a control character, or is empty")
    if "\\" in name or ":" in name or path.is_absolute() or ".." in path.parts:
        raise _refused(name, "its name leads out of the folder")
    if len(name.encode()) > MAX_NAME or not 1 <= len(path.parts) <= MAX_DEPTH:
        raise _refused(name, f"its name is longer than {MAX_NAME} bytes or too deep")
    return path


def unpack(archive: Path, name: str, folder: Path, max_bytes: int) -> None:
    """Writes the files of `archive`, whose `name` ends with one of `SUFFIXES`, to `folder`. Blocks.
    Raises `InvalidField` if anything in it is not allowed, `StorageError` if it cannot be written;
    what was written until then stays."""
    members = _zipped if name.lower().endswith(".zip") else _tarred
    left = max_bytes
    seen: set[str] = set()
    try:
        with _Careful(archive) as file:
            for member in members(file):
                path = folder.joinpath(*checked_name(member.name).parts)
                if len(seen) >= MAX_FILES:
                    raise _refused(name, f"it holds more than {MAX_FILES} files")
                if str(path).casefold() in seen:
                    raise _refused(member.name, "it is there twice")
                seen.add(str(path).casefold())
                left = _write(member, path, left, max_bytes)
    except (tarfile.TarError, zipfile.BadZipFile, zipfile.LargeZipFile, EOFError) as error:
        raise _refused(name, f"it is not a whole archive: {error}") from error
    except (NotImplementedError, RuntimeError, ValueError) as error:  # of zipfile
        raise _refused(name, str(error)) from error


def _write(member: _Member, path: Path, left: int, max_bytes: int) -> int:
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with path.open("xb") as out:
            while piece := member.content.read(_STEP):
                left -= len(piece)
                if left < 0:
                    raise _refused(
                        member.name, f"unpacked, there are more than {max_bytes} bytes in all"
                    )
                out.write(piece)
    except (FileExistsError, NotADirectoryError) as error:
        raise _refused(member.name, "it is a file and a folder at once") from error
    except OSError as error:
        raise StorageError(f"an upload could not be written: {error.strerror}") from error
    return left


def _tarred(file: _Careful) -> Iterator[_Member]:
    with tarfile.open(fileobj=file, mode="r:") as archive:
        for member in archive:
            if member.isdir():
                continue
            if not member.isreg() or member.sparse is not None:
                raise _refused(member.name, "it is a link, a device or a file with holes")
            content = archive.extractfile(member)
            assert content is not None
            yield _Member(member.name, content)


def _zipped(file: _Careful) -> Iterator[_Member]:
    with zipfile.ZipFile(file) as archive:
        for info in archive.infolist():
            if info.is_dir():
                continue
            mode = info.external_attr >> 16
            if stat.S_IFMT(mode) not in (0, stat.S_IFREG):
                raise _refused(info.filename, "it is a link or a device")
            if info.flag_bits & 1:
                raise _refused(info.filename, "it is encrypted")
            if info.file_size > MAX_RATIO * max(info.compress_size, 1):
                raise _refused(info.filename, f"it is packed more than {MAX_RATIO} times smaller")
            with archive.open(info) as content:
                yield _Member(info.orig_filename, content)


class _Careful(io.FileIO):
    """Both modules believe the lengths that an archive states; this does not."""

    def read(self, size: int | None = -1, /) -> bytes:
        if size is None or size < 0:
            size = _MAX_LIST + 1
        if size > _MAX_LIST:
            left = Path(str(self.name)).stat().st_size - self.tell()
            if min(size, left) > _MAX_LIST:
                raise ValueError("its list of files is too long")
        return super().read(size)


def _refused(name: str, why: str) -> InvalidField:
    shown = name if name.isprintable() else ascii(name)
    return InvalidField(f"{shown[:MAX_NAME]}: {why}; nothing was kept", field="files")
