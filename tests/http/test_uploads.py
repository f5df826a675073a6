from __future__ import annotations

from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from headrace.errors import BadRequest
from headrace.http.uploads import Received, receive

BOUNDARY = "xyz"


def file_part(name: str, content: bytes, field: str = "files") -> bytes:
    head = f'--{BOUNDARY}\r\nContent-Disposition: form-data; name="{field}"; filename="{name}"\r\n'
    return head.encode() + b"Content-Type: text/plain\r\n\r\n" + content + b"\r\n"


def field_part(name: str, value: str) -> bytes:
    head = f'--{BOUNDARY}\r\nContent-Disposition: form-data; name="{name}"\r\n\r\n'
    return head.encode() + value.encode() + b"\r\n"


END = f"--{BOUNDARY}--\r\n".encode()


async def upload(folder: Path, *parts: bytes, size: int = 7) -> Received:
    async def pieces() -> AsyncIterator[bytes]:
        body = b"".join(parts)
        for start in range(0, len(body), size):
            yield body[start : start + size]

    return await receive(f"multipart/form-data; boundary={BOUNDARY}", pieces(), folder)


async def test_files_and_fields_arrive_as_sent(tmp_path: Path) -> None:
    binary = bytes(range(256)) * 3 + b"\r\n--xy"
    found = await upload(
        tmp_path,
        file_part("民法典.md", "第一条".encode()),
        field_part("labels", "hr"),
        file_part("../a/b.bin", binary),
        field_part("labels", "staff"),
        file_part("empty.txt", b""),
        END,
    )
    contents = {file.name: file.path.read_bytes() for file in found.files}
    assert contents == {"民法典.md": "第一条".encode(), "../a/b.bin": binary, "empty.txt": b""}
    assert all(file.path.parent == tmp_path for file in found.files)
    assert found.fields == {"labels": ["hr", "staff"]}


@pytest.mark.parametrize(
    ("parts", "says"),
    [
        ([file_part("a.txt", b"1")], "last boundary"),
        ([b"no boundary at all"], "malformed"),
        ([field_part("labels", "x" * 70_000), END], "longer than"),
        ([f"--{BOUNDARY}\r\n\r\nbody\r\n".encode(), END], "no name"),
        ([b""], "last boundary"),
    ],
)
async def test_malformed_bodies_are_refused(tmp_path: Path, parts: list[bytes], says: str) -> None:
    with pytest.raises(BadRequest, match=says):
        await upload(tmp_path, *parts)


@pytest.mark.parametrize("kind", ["", "application/json", "multipart/form-data", "multipart/mixed"])
async def test_other_content_types_are_refused(tmp_path: Path, kind: str) -> None:
    async def nothing() -> AsyncIterator[bytes]:
        yield b""

    with pytest.raises(BadRequest, match="multipart/form-data"):
        await receive(kind, nothing(), tmp_path)
