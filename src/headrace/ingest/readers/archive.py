"""Office files are zip archives of XML: looked into, with care, before any parser sees them."""

from __future__ import annotations

import zipfile
import zlib
from io import BytesIO

from headrace.errors import ReadError
from headrace.ingest.readers.source import Source

_OVERHEAD = 8  # bytes of XML and pictures allowed per byte of text allowed
_RATIO = 250  # XML of tables shrinks by 10 to 100; zeros by 1000
_SMALL = 1 << 20  # members below this are no bombs, however well they shrink
_MOST_MEMBERS = 20_000
_STEP = 1 << 20
_DECLARATIONS = tuple(
    word.encode(encoding)
    for word in ("<!DOCTYPE", "<!ENTITY")
    for encoding in ("ascii", "utf-16-le", "utf-16-be")
)


def office_kind(data: bytes) -> str:
    """`docx`, `xlsx`, another main folder's name, or an empty string for no office file."""
    try:
        with zipfile.ZipFile(BytesIO(data)) as archive:
            names = archive.namelist()
    except (zipfile.BadZipFile, OSError, ValueError, NotImplementedError, RuntimeError):
        return ""
    for folder, kind in (("word/", "docx"), ("xl/", "xlsx"), ("ppt/", "pptx")):
        if any(name.startswith(folder) for name in names):
            return kind
    return ""


def check_archive(source: Source) -> None:
    """Refuse an archive that would unpack to more than allowed, is encrypted, or declares XML
    entities. Sizes are checked as the directory states them and again while unpacking."""
    name = source.path.name
    try:
        with zipfile.ZipFile(BytesIO(source.data)) as archive:
            members = archive.infolist()
            _check_directory(members, source)
            left = _allowed(source)
            for member in members:
                left -= _check_member(archive, member, left, name)
    except (zipfile.BadZipFile, zlib.error, EOFError, NotImplementedError, OSError) as error:
        raise ReadError(
            f"{name} is a damaged archive ({error}); open it in its own program and save it again"
        ) from error


def _allowed(source: Source) -> int:
    return _OVERHEAD * source.limits.text_bytes


def _check_directory(members: list[zipfile.ZipInfo], source: Source) -> None:
    name = source.path.name
    if len(members) > _MOST_MEMBERS:
        raise _bomb(name, f"has {len(members)} members")
    if any(member.flag_bits & 1 for member in members):
        raise ReadError(f"{name} is protected by a password; save a copy without one")
    if sum(member.file_size for member in members) > _allowed(source):
        raise _bomb(name, f"unpacks to more than {_allowed(source) >> 20} MiB")
    for member in members:
        if member.file_size > max(_SMALL, _RATIO * member.compress_size):
            raise _bomb(name, f"packs {member.filename[:80]!r} more than {_RATIO} times")


def _check_member(archive: zipfile.ZipFile, member: zipfile.ZipInfo, left: int, name: str) -> int:
    size = 0
    tail = b""
    xml = member.filename.lower().endswith((".xml", ".rels", ".vml"))
    with archive.open(member) as file:
        while block := file.read(_STEP):
            size += len(block)
            if size > left:
                raise _bomb(name, "unpacks to more than its directory says")
            window = tail + block
            if xml and any(word in window for word in _DECLARATIONS):
                raise ReadError(
                    f"{name} declares XML entities, which no office program writes; "
                    "save it again in its own program"
                )
            tail = window[-32:]
    return size


def _bomb(name: str, why: str) -> ReadError:
    return ReadError(f"{name} {why} and looks like a zip bomb; it is not opened")
