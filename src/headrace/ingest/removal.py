"""Deleting documents: out of the index, out of what stands beside it, with a receipt."""

from __future__ import annotations

from collections.abc import Sequence

from headrace.errors import UnknownItem
from headrace.ingest.stamps import drop_stamps
from headrace.retrieval.base import DocumentInfo, Removal
from headrace.retrieval.collections import Collections


def remove(collections: Collections, name: str, document_ids: Sequence[str]) -> Removal:
    """From the return on, no process finds, quotes or gives again anything of the documents. Raises
    `UnknownCollection`, `Busy`, `StorageError`. Blocks."""
    with collections.writer(name) as index:
        removal = index.remove(document_ids)
        drop_stamps(index, document_ids)
    return removal


def named(held: Sequence[DocumentInfo], name: str) -> DocumentInfo:
    """The document that `name` means: an id, a source, or the last parts of one if only one ends
    so. Raises `UnknownItem`."""
    exact = [info for info in held if name in (info.id, info.source)]
    found = exact or [info for info in held if f"/{info.source}".endswith(f"/{name}")]
    if len(found) == 1:
        return found[0]
    if found:
        several = ", ".join(info.source for info in found[:5])
        raise UnknownItem(
            f"{len(found)} documents are called {name!r}: {several}; say which", field="document"
        )
    raise UnknownItem(
        f"there is no document {name!r}; `headrace collections show` lists them", field="document"
    )
