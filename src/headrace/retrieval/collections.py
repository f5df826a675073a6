"""The collections of one data folder: each a folder of its own with everything that is its."""

from __future__ import annotations

import re
import shutil
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from datetime import UTC, datetime
from pathlib import Path
from threading import Lock
from unicodedata import normalize
from uuid import uuid4

from headrace.config.fields import NAME_PATTERN
from headrace.engines.base import ModelInfo
from headrace.errors import BadRequest, ConfigError, StorageError, UnknownCollection
from headrace.retrieval.database import translated
from headrace.retrieval.embedded import LOCK_FILE, STORE_FILE, CollectionInfo, EmbeddedIndex
from headrace.retrieval.files import exclusive
from headrace.retrieval.rows import Embedder
from headrace.retrieval.store import Store
from headrace.retrieval.verify import VerifyReport
from headrace.serving.models import Models
from headrace.types import USER, Call

_NAME = re.compile(NAME_PATTERN)
_MAX_NAME_BYTES = 200

__all__ = ["CollectionInfo", "Collections", "EmbeddedIndex", "VerifyReport"]


class Collections:
    """Thread-safe. An index stays open until `close`, and is shared by all callers."""

    def __init__(self, folder: Path) -> None:
        """`folder` is made when the first collection is."""
        self.folder = folder
        self._open: dict[str, EmbeddedIndex] = {}
        self._lock = Lock()

    def names(self) -> list[str]:
        with translated(self.folder):
            if not self.folder.exists():
                return []
            return sorted(
                path.name
                for path in self.folder.iterdir()
                if (path / STORE_FILE).exists() and not path.name.startswith(".")
            )

    def create(self, name: str, embedder: str, info: ModelInfo) -> EmbeddedIndex:
        """The collection, made if it is not there. Raises `ConfigError` if it is, with vectors
        of another embedder."""
        name = checked_name(name)
        with translated(self.folder):
            target = self.folder / name
            if not (target / STORE_FILE).exists():
                self._make(target, embedder, info)
        index = self.open(name)
        check_embedder(name, index.embedder(), embedder, info)
        return index

    def open(self, name: str) -> EmbeddedIndex:
        """Raises `UnknownCollection`."""
        name = checked_name(name)
        with self._lock, translated(self.folder):
            index = self._open.get(name)
            if index is not None and not index.exists():
                index.close()
                del self._open[name]
                index = None
            if index is None:
                if not (self.folder / name / STORE_FILE).exists():
                    raise UnknownCollection(name, self.names())
                index = self._open[name] = EmbeddedIndex(self.folder / name)
            return index

    def at_hand(self, name: str) -> EmbeddedIndex | None:
        """The index, if it is open and its file still the same. For an event loop: it takes a
        `stat` and waits for nothing. Raises `BadRequest`."""
        index = self._open.get(checked_name(name))
        return index if index is not None and index.exists() else None

    def opened(self, name: str) -> tuple[EmbeddedIndex, Embedder]:
        """With the embedder that it has at this moment. Raises `UnknownCollection`."""
        index = self.open(name)
        return index, index.embedder()

    def info(self, name: str) -> CollectionInfo:
        return self.open(name).info()

    def overview(self) -> list[CollectionInfo]:
        """All collections. One that is damaged hides none of the others: it has a `problem`."""
        found = []
        for name in self.names():
            try:
                found.append(self.info(name))
            except UnknownCollection:  # deleted a moment ago
                continue
            except StorageError as error:
                found.append(CollectionInfo(name, problem=error.message))
        return found

    @contextmanager
    def writer(self, name: str) -> Iterator[EmbeddedIndex]:
        """Be the only writer of a collection. Raises `Busy` with the PID of another one."""
        with self.open(name).writer() as index:
            yield index

    def verify(self, name: str) -> VerifyReport:
        return self.open(name).verify()

    def rebuild(self, name: str) -> None:
        self.open(name).rebuild()

    def delete(self, name: str) -> None:
        """Remove a collection for ever. Raises `Busy` while somebody writes to it; from the
        return on, no process finds it, and indexes that are open answer `UnknownCollection`. A
        damaged collection can be deleted, and so can any on a full disk, which makes room."""
        name = checked_name(name)
        index = None
        with suppress(StorageError):  # damaged: then there is nothing to mark
            index = self.open(name)
        folder = self.folder / name
        trash = self.folder / f".deleted-{name}-{uuid4().hex[:8]}"
        with exclusive(folder / LOCK_FILE), translated(folder):
            if index is not None:
                with suppress(StorageError):  # full; the folder's new name says it as well
                    index.mark_deleted()
            folder.rename(trash)
        with self._lock:
            self._open.pop(name, None)
        if index is not None:
            index.close()
        shutil.rmtree(trash, ignore_errors=True)

    def close(self) -> None:
        with self._lock:
            for index in self._open.values():
                index.close()
            self._open.clear()

    def _make(self, target: Path, embedder: str, info: ModelInfo) -> None:
        """Made beside and renamed, so that nobody sees half a collection."""
        temporary = self.folder / f".new-{target.name}-{uuid4().hex[:8]}"
        temporary.mkdir(parents=True)
        try:
            store = Store(
                temporary / STORE_FILE,
                create={
                    "name": target.name,
                    "embedder": embedder,
                    "fingerprint": info.fingerprint,
                    "dimensions": str(info.dimensions),
                    "created": datetime.now(UTC).isoformat(timespec="seconds"),
                },
            )
            store.db.close()
            try:
                temporary.rename(target)
            except OSError:
                if not (target / STORE_FILE).exists():  # else another process was first
                    raise
        finally:
            shutil.rmtree(temporary, ignore_errors=True)


def checked_name(name: str) -> str:
    """The name in Unicode's composed form, safe as a folder's name. Raises `BadRequest`."""
    name = normalize("NFC", name)
    if not _NAME.fullmatch(name) or len(name.encode("utf-8", "replace")) > _MAX_NAME_BYTES:
        raise BadRequest(
            f"{name!r} cannot name a collection: letters, digits, `_`, `-` and `.`, at most 64, "
            "and the first one no `-` or `.`",
            field="collection",
        )
    return name


def check_embedder(collection: str, held: Embedder, embedder: str, info: ModelInfo) -> None:
    """Raises `ConfigError` if the vectors that a collection holds come from another embedder than
    the configured one, whose name and `info` these are."""
    if held.fingerprint != info.fingerprint:
        raise ConfigError(
            f"collection {collection!r} holds vectors of embedder {held.name!r} "
            f"({held.fingerprint}), but the configured one is {embedder!r} ({info.fingerprint}): "
            f"configure {held.name!r} as it was, or give the collection other vectors with "
            f"`headrace collections reindex {collection}`"
        )


async def held_embedder(
    models: Models, held: Embedder | None, embedder: str, call: Call = USER
) -> str:
    """The model whose vectors a collection holds, if it is there as it was then, else `embedder`.
    The configuration says which model a collection shall have; until it is reindexed, it is
    searched and added to with the one that it has."""
    if held is None or held.name == embedder or held.name not in models.names():
        return embedder
    same = (await models.info(held.name, call=call)).fingerprint == held.fingerprint
    return held.name if same else embedder
