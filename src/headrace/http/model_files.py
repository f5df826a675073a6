"""Models that arrive over HTTP: streamed to the disk, looked at, never run."""

from __future__ import annotations

import asyncio
import hashlib
import os
import re
import shutil
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

from fastapi import APIRouter, Request
from starlette.responses import Response

from headrace.config.fields import NAME_PATTERN
from headrace.config.origin import sync_folder
from headrace.engines import intake
from headrace.errors import InvalidField, StorageError
from headrace.http.context import caller_of, context_of, json_response
from headrace.http.describe import described
from headrace.http.responses import ModelFiles
from headrace.http.uploads import incoming, receive
from headrace.ingest.outcomes import Upload
from headrace.sources.cache import sha256_of
from headrace.sources.unpack import MAX_FILES, SUFFIXES, checked_name, unpack

router = APIRouter(tags=["Administration"])

FOLDER = "models"
"""Below the data folder."""
_DIGITS = 16
_NAME = re.compile(NAME_PATTERN)
_PATH = re.compile(r"/admin/models/[^/]+/files/?")
_FORM: dict[str, Any] = {
    "requestBody": {
        "required": True,
        "content": {
            "multipart/form-data": {
                "schema": {
                    "type": "object",
                    "required": ["files"],
                    "properties": {
                        "files": {
                            "type": "array",
                            "minItems": 1,
                            "items": {"type": "string", "format": "binary"},
                            "description": "One .gguf file; or the files of a model's folder, with "
                            "their paths in it as their names; or one .tar or .zip of it.",
                        }
                    },
                }
            }
        },
    }
}


def is_upload(path: str) -> bool:
    """Is a request for this path one that may be as large as `server.max_model_mib`?"""
    return _PATH.fullmatch(path) is not None


@router.post(
    "/admin/models/{name}/files",
    summary="Upload a model's files",
    status_code=201,
    responses=described(ModelFiles, 507, status=201),
    openapi_extra=_FORM,
)
async def upload_files(request: Request, name: str) -> Response:
    """Takes files as multipart/form-data, checks that they are whole and of kinds that hold numbers
    or text (no pickles, no code), and keeps them under their checksum. The answer's `source` is
    what a model's entry names to use them; until one does, nothing uses them."""
    caller_of(request).require_admin()
    if not _NAME.fullmatch(name):
        raise InvalidField(f"name: letters, digits, `_`, `.`, `-`, not {name!r}", field="name")
    config = context_of(request).services.config
    limit = config.server.max_model_mib << 20
    async with incoming(config.data_dir) as folder:
        content_type = request.headers.get("content-type", "")
        received = await receive(content_type, request.stream(), folder)
        kept = await asyncio.to_thread(keep, received.files, folder, config.data_dir, name, limit)
    return json_response(kept, 201)


def keep(
    files: Sequence[Upload], folder: Path, data_dir: Path, name: str, limit: int
) -> ModelFiles:
    """Moves the files of a model, which lie in `folder`, to their place below `data_dir`, if all
    are as they should be; unpacked, they may have `limit` bytes. Blocks. Raises `InvalidField`,
    `StorageError`."""
    try:
        staged = folder / "model"
        staged.mkdir()
        _lay_out(files, staged, limit)
        root = _root(staged)
        checks = intake.check(root)
        digests = {path: sha256_of(root / path) for path in checks}
        listed = "".join(f"{digest}  {path}\n" for path, digest in sorted(digests.items()))
        digest = hashlib.sha256(listed.encode()).hexdigest()
        place = data_dir / FOLDER / f"{name}-{digest[:_DIGITS]}"
        weights = _weights(root, checks)
        _move(root, place)
    except OSError as error:
        raise StorageError(f"an upload could not be kept: {error.strerror}") from error
    source = f"file:{place / weights if weights else place}"
    sha256 = digests[weights] if weights else None
    return ModelFiles(source, sha256, str(place), digests, checks)


def _lay_out(files: Sequence[Upload], folder: Path, limit: int) -> None:
    """The sent files by their names, or what a single archive holds."""
    if not files:
        raise InvalidField("the upload holds no file; send fields named `files`", field="files")
    if len(files) > MAX_FILES:
        raise InvalidField(f"more than {MAX_FILES} files", field="files")
    if len(files) == 1 and files[0].name.lower().endswith(SUFFIXES):
        unpack(files[0].path, files[0].name, folder, limit)
        return
    seen = set()
    for file in files:
        path = folder.joinpath(*checked_name(file.name).parts)
        if str(path).casefold() in seen:
            raise InvalidField(f"{file.name}: it is there twice", field="files")
        seen.add(str(path).casefold())
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            file.path.rename(path)
        except (FileExistsError, NotADirectoryError, IsADirectoryError) as error:
            raise InvalidField(
                f"{file.name}: it is a file and a folder at once", field="files"
            ) from error


def _root(folder: Path) -> Path:
    """Without the one folder that everything lies in, as in most archives."""
    inner = list(folder.iterdir())
    return inner[0] if len(inner) == 1 and inner[0].is_dir() else folder


def _weights(root: Path, names: Iterable[str]) -> str | None:
    """The one file that a model's entry names, or None for a folder."""
    if (root / "model.onnx").is_file() or (root / "onnx" / "model.onnx").is_file():
        return None
    for suffix in (".gguf", ".onnx"):
        found = [name for name in names if name.endswith(suffix)]
        if len(found) == 1:
            return found[0]
    return None


def _move(root: Path, place: Path) -> None:
    """To its place, in one step and complete, also after a power cut. What is there already has the
    same content, by its name."""
    for path in root.rglob("*"):
        number = os.open(path, os.O_RDONLY)
        try:
            os.fsync(number)
        finally:
            os.close(number)
    place.parent.mkdir(parents=True, exist_ok=True)
    if not place.is_dir():
        root.rename(place)
        sync_folder(place.parent)


def remove_files(data_dir: Path, name: str, used: Sequence[str]) -> tuple[str, ...]:
    """Delete what was uploaded for a model, but nothing that one of the sources `used` names; what
    was deleted. Blocks. Raises `StorageError`."""
    mine = re.compile(re.escape(name) + rf"-[0-9a-f]{{{_DIGITS}}}")
    folder = data_dir / FOLDER
    removed = []
    try:
        for place in sorted(folder.iterdir()) if folder.is_dir() else ():
            taken = any(f"{source}/".startswith(f"file:{place}/") for source in used)
            if mine.fullmatch(place.name) and not taken:
                shutil.rmtree(place)
                removed.append(str(place))
    except OSError as error:
        raise StorageError(f"uploaded files could not be deleted: {error.strerror}") from error
    return tuple(removed)
