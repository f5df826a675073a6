"""Headrace's own question route: the pipeline's events as they are."""

from __future__ import annotations

from collections.abc import AsyncGenerator
from contextlib import aclosing

from fastapi import APIRouter, Request
from starlette.responses import Response

from headrace.errors import HeadraceError
from headrace.http.calls import bind
from headrace.http.chat import cited, messages_of, where
from headrace.http.context import Context, context_of, encode, json_response
from headrace.http.describe import described
from headrace.http.requests import RagChatRequest, SearchRequest
from headrace.http.responses import SearchResponse
from headrace.http.sse import EventStream, event
from headrace.pipeline.answer import AnswerRequest, error_event
from headrace.pipeline.plan import cycle_call
from headrace.retrieval.search import search
from headrace.types import Event

router = APIRouter(tags=["Headrace"])


@router.post(
    "/api/rag/chat",
    summary="A cited answer as typed events",
    responses=described(Event, stream=True),
)
async def rag_chat(request: Request, body: RagChatRequest) -> Response:
    """Server-sent events named `stage`, `hop`, `hits`, `delta`, `quote`, `unsupported`,
    `refused`, `conflict`, `done` and `error`; each one's data is a JSON object whose `type` is that
    name. A sentence's `unsupported` comes before its `delta`. `refused` tells why there is no
    answer, and the nearest passages. The last event is `done` or `error`."""
    context = context_of(request)
    await context.check_name(body.collection)
    bound = await bind(request, body, collection=body.collection)
    question = AnswerRequest(
        collection=body.collection,
        question=body.question,
        where=where(body, bound.caller),
        history=messages_of(body.history),
        generate=body.generate,
        generator=body.generator,
        effort=body.effort,
        verification=body.verification,
        hits=body.hits,
        max_tokens=body.max_tokens,
        max_quotes=body.max_quotes,
        cache=body.cache,
        temperature=body.temperature,
        call=bound.call,
    )
    heartbeat = context.services.config.server.heartbeat_seconds
    return EventStream(_events(context, question), heartbeat=heartbeat, on_error=_error)


async def _events(context: Context, question: AnswerRequest) -> AsyncGenerator[bytes, None]:
    async with aclosing(cited(context, question)) as items:
        async for item in items:
            yield event(encode(item), str(type(item).__struct_config__.tag))


def _error(error: HeadraceError) -> bytes:
    return event(encode(error_event(error)), "error")


@router.post(
    "/api/collections/{name}/search",
    summary="Find passages",
    responses=described(SearchResponse),
)
async def search_collection(request: Request, name: str, body: SearchRequest) -> Response:
    """Hits, best first, each with its score per stage (`dense`, `lexical`, `fused`, `rerank`)."""
    context = context_of(request)
    bound = await bind(request, body, collection=name)
    index = await context.index(name)
    services = context.services
    options = services.config.collection(name)
    found = await search(
        index,
        services.models,
        options.embedder or services.config.defaults.embedder,
        body.query,
        options=options.retrieval or services.config.retrieval,
        where=where(body, bound.caller),
        k=body.k,
        reranker=options.reranker if body.rerank else None,
        call=cycle_call(bound.call),
        paces=services.paces,
    )
    return json_response(
        SearchResponse(name, found.hits, found.generation, found.timings, found.skipped)
    )
