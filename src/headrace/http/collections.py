"""Collections and their documents: list, look up, add, remove."""

from __future__ import annotations

import asyncio
from typing import Annotated

from fastapi import APIRouter, Query, Request
from pydantic import StringConstraints
from starlette.responses import Response

from headrace.errors import BadRequest, UnknownItem
from headrace.http.auth import Caller
from headrace.http.context import Context, caller_of, context_of, json_response
from headrace.http.describe import described
from headrace.http.responses import (
    CollectionList,
    Deleted,
    DocumentEntry,
    DocumentList,
    DocumentText,
    Receipt,
)
from headrace.ingest.removal import remove
from headrace.retrieval.base import DocumentInfo, Index
from headrace.retrieval.collections import CollectionInfo
from headrace.types import Span

router = APIRouter(tags=["Collections"])

SLICE = 65_536
"""Characters of a document that are sent where the request names no end."""
DocumentId = Annotated[str, StringConstraints(pattern=r"^[0-9a-f]{16}$")]
"""As `document_id` makes it. With its form known, 200 of them fit into one request line."""


@router.get("/api/collections", summary="All collections", responses=described(CollectionList))
async def list_collections(request: Request) -> Response:
    """One that is damaged has a `problem`, which says what to do, and no numbers."""
    collections = context_of(request).services.collections
    return json_response(CollectionList(await asyncio.to_thread(collections.overview)))


@router.get(
    "/api/collections/{name}", summary="One collection", responses=described(CollectionInfo)
)
async def show_collection(request: Request, name: str) -> Response:
    context = context_of(request)
    await context.check_name(name)
    return json_response(await _info(context, name))


@router.delete(
    "/api/collections/{name}",
    summary="Delete a collection",
    responses=described(Deleted, 409),
)
async def delete_collection(request: Request, name: str) -> Response:
    """Removes its documents and its index for good. Needs an admin key."""
    caller_of(request).require_admin()
    context = context_of(request)
    await context.check_name(name)
    await asyncio.to_thread(context.services.collections.delete, name)
    context.services.kept.drop_collection(name)
    return json_response(Deleted((name,)))


async def _info(context: Context, name: str) -> CollectionInfo:
    return await asyncio.to_thread(context.services.collections.info, name)


@router.get(
    "/api/collections/{name}/documents",
    summary="Documents of a collection",
    responses=described(DocumentList),
)
async def list_documents(
    request: Request,
    name: str,
    limit: Annotated[int, Query(ge=1, le=1000)] = 100,
    offset: Annotated[int, Query(ge=0, le=2**31)] = 0,
) -> Response:
    """In the order of their sources. Documents that the caller may not read are not there."""
    index = await context_of(request).index(name)
    readable = await _readable(index, caller_of(request))
    page = [DocumentEntry(*info) for info in readable[offset : offset + limit]]
    return json_response(DocumentList(len(readable), page))


@router.get(
    "/api/collections/{name}/documents/{document_id}",
    summary="A document's text",
    responses=described(DocumentText),
)
async def show_document(
    request: Request,
    name: str,
    document_id: str,
    start: Annotated[int, Query(ge=0, le=2**31)] = 0,
    end: Annotated[int | None, Query(ge=0, le=2**31)] = None,
) -> Response:
    """The parsed text over `[start, end)`, in characters: with a quote's span, exactly the quote.
    Without an end, 65,536 characters; beyond the document's end, what there is."""
    index = await context_of(request).index(name)
    document = await asyncio.to_thread(index.document, document_id)
    if document is None or not caller_of(request).may_read(document.labels):
        raise _no_document(name, document_id)
    text = document.parsed.text
    stop = min(start + SLICE if end is None else end, len(text))
    if end is not None and end < start:
        raise BadRequest(f"end: {end} lies before start {start}", field="end")
    span = Span(min(start, stop), stop)
    return json_response(
        DocumentText(
            id=document.id,
            source=document.source,
            title=document.parsed.title,
            media_type=document.parsed.media_type,
            characters=len(text),
            span=span,
            text=span.of(text),
            labels=document.labels,
            metadata=document.metadata,
        )
    )


@router.delete(
    "/api/collections/{name}/documents/{document_id}",
    summary="Delete a document",
    responses=described(Receipt, 409),
)
async def delete_document(request: Request, name: str, document_id: str) -> Response:
    """From the answer on, no search finds it, nothing quotes it and no cache gives it. The answer
    is a receipt of what was removed. Needs an admin key."""
    return await _delete(request, name, [document_id])


@router.delete(
    "/api/collections/{name}/documents",
    summary="Delete documents",
    responses=described(Receipt, 409),
)
async def delete_documents(
    request: Request,
    name: str,
    id: Annotated[list[DocumentId], Query(min_length=1, max_length=200)],
) -> Response:
    """`?id=A&id=B`: all of them, or none if one is not there. Needs an admin key."""
    return await _delete(request, name, id)


async def _delete(request: Request, name: str, document_ids: list[str]) -> Response:
    caller = caller_of(request)
    caller.require_admin()
    context = context_of(request)
    index = await context.index(name)
    known = {info.id for info in await _readable(index, caller)}
    for document_id in document_ids:
        if document_id not in known:
            raise _no_document(name, document_id)

    services = context.services
    removal = await asyncio.to_thread(remove, services.collections, name, document_ids)
    cleared = services.kept.drop_collection(name)
    services.kept.tell(services.metrics)
    return json_response(
        Receipt(
            deleted=tuple(document_ids),
            documents=removal.documents,
            vectors=removal.vectors,
            generation_before=removal.generation_before,
            generation=removal.generation,
            answers_cleared=cleared,
        )
    )


async def _readable(index: Index, caller: Caller) -> list[DocumentInfo]:
    found = [
        info for info in await asyncio.to_thread(index.documents) if caller.may_read(info.labels)
    ]
    return sorted(found, key=lambda info: info.source)


def _no_document(collection: str, document_id: str) -> UnknownItem:
    return UnknownItem(
        f"there is no document {document_id!r} in collection {collection!r}", field="document_id"
    )
