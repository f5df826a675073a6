"""Files out of a `multipart/form-data` body, written to disk as they arrive.

Not with FastAPI's `UploadFile`: that spools to the system's temporary folder, which often is
memory, and copies once more.
"""

from __future__ import annotations

import asyncio
import shutil
import tempfile
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from io import BufferedWriter
from pathlib import Path

from python_multipart.exceptions import FormParserError
from python_multipart.multipart import MultipartParser, parse_options_header

from headrace.errors import BadRequest, StorageError
from headrace.ingest.outcomes import Upload

MAX_PARTS = 2000
MAX_FIELD_BYTES = 64 * 1024
_STEP = 1024 * 1024

ABANDONED_SECONDS = 24 * 3600
"""No upload takes this long; a folder this old has lost its process."""


@asynccontextmanager
async def incoming(data_dir: Path) -> AsyncIterator[Path]:
    """A folder for one upload, below the data folder so that files can be moved and not copied;
    what nobody has moved away is removed in the end."""
    try:
        folder = await asyncio.to_thread(_make_folder, data_dir / "incoming")
    except OSError as error:
        raise StorageError(
            f"the data folder {data_dir} cannot be written: {error.strerror}"
        ) from error
    try:
        yield folder
    finally:
        shutil.rmtree(folder, ignore_errors=True)


def _make_folder(home: Path) -> Path:
    """A new folder in `home`, from which the rests of uploads that a killed process left go."""
    home.mkdir(parents=True, exist_ok=True)
    for old in home.iterdir():
        if time.time() - old.stat().st_mtime > ABANDONED_SECONDS:
            shutil.rmtree(old, ignore_errors=True)
    return Path(tempfile.mkdtemp(dir=home))


class Received:
    """What a body held: `files` with the names that the sender gave them (on disk they are
    numbered), and the other `fields`, each with its values."""

    def __init__(self) -> None:
        self.files: list[Upload] = []
        self.fields: dict[str, list[str]] = {}


async def receive(content_type: str, body: AsyncIterator[bytes], folder: Path) -> Received:
    """Read a multipart body into `folder`, which must exist. Raises `BadRequest` for a body that
    is not well-formed, `StorageError` if a file cannot be written."""
    kind, options = parse_options_header(content_type)
    boundary = options.get(b"boundary")
    if kind != b"multipart/form-data" or not boundary:
        raise BadRequest("send the files as multipart/form-data, in fields named `files`")
    parts = _Parts(folder)
    try:
        parser = MultipartParser(boundary, parts.callbacks())  # type: ignore[arg-type]
        waiting = bytearray()
        async for piece in body:
            waiting += piece
            if len(waiting) >= _STEP:
                await asyncio.to_thread(parser.write, bytes(waiting))
                waiting.clear()
        await asyncio.to_thread(parser.write, bytes(waiting))
    except FormParserError as error:
        raise BadRequest(f"the multipart body is malformed: {error}") from error
    except OSError as error:
        raise StorageError(f"an upload could not be written: {error.strerror}") from error
    finally:
        parts.close()
    if not parts.ended:
        raise BadRequest("the multipart body ends before its last boundary")
    return parts.received


class _Parts:
    """The parser's callbacks: one part at a time, either a file or a field."""

    def __init__(self, folder: Path) -> None:
        self.received = Received()
        self.ended = False
        self._folder = folder
        self._count = 0
        self._header = b""
        self._value = b""
        self._disposition = b""
        self._file: BufferedWriter | None = None
        self._field: bytearray | None = None
        self._name = ""

    def callbacks(self) -> dict[str, object]:
        return {
            "on_part_begin": self._begin,
            "on_header_field": self._on_header_field,
            "on_header_value": self._on_header_value,
            "on_header_end": self._on_header_end,
            "on_headers_finished": self._open,
            "on_part_data": self._data,
            "on_part_end": self.close,
            "on_end": self._on_end,
        }

    def _begin(self) -> None:
        self._count += 1
        if self._count > MAX_PARTS:
            raise BadRequest(f"more than {MAX_PARTS} parts in one upload", field="files")
        self._disposition = b""

    def _on_header_field(self, data: bytes, start: int, end: int) -> None:
        self._header += data[start:end]

    def _on_header_value(self, data: bytes, start: int, end: int) -> None:
        self._value += data[start:end]

    def _on_header_end(self) -> None:
        if self._header.lower() == b"content-disposition":
            self._disposition = self._value
        self._header = self._value = b""

    def _open(self) -> None:
        _, options = parse_options_header(self._disposition)
        self._name = options.get(b"name", b"").decode("utf-8", "replace")
        if not self._name:
            raise BadRequest("a part of the multipart body has no name")
        if b"filename" not in options:
            self._field = bytearray()
            return
        path = self._folder / f"{len(self.received.files):04d}"
        self._file = path.open("xb")
        name = options[b"filename"].decode("utf-8", "replace")
        self.received.files.append(Upload(name, path))

    def _data(self, data: bytes, start: int, end: int) -> None:
        if self._file is not None:
            self._file.write(data[start:end])
        elif self._field is not None:
            self._field += data[start:end]
            if len(self._field) > MAX_FIELD_BYTES:
                raise BadRequest(
                    f"{self._name}: longer than {MAX_FIELD_BYTES} bytes", field=self._name
                )

    def _on_end(self) -> None:
        self.ended = True

    def close(self) -> None:
        """End the part that is open, if one is."""
        if self._file is not None:
            self._file.close()
            self._file = None
        elif self._field is not None:
            text = self._field.decode("utf-8", "replace")
            self.received.fields.setdefault(self._name, []).append(text)
            self._field = None
