"""The routes that OpenAI's clients know: chat completions, embeddings, models."""

from __future__ import annotations

import base64

import numpy as np
from fastapi import APIRouter, Request
from starlette.responses import Response

from headrace.errors import BadRequest, UnknownModel
from headrace.http.calls import bind
from headrace.http.chat import (
    COLLECTION_PREFIX,
    Completion,
    answer_request,
    generate_params,
    refuse_unsupported,
)
from headrace.http.context import Context, context_of, json_response
from headrace.http.describe import described
from headrace.http.failures import body_of
from headrace.http.requests import ChatRequest, EmbeddingsRequest
from headrace.http.responses import (
    ChatCompletion,
    Embedding,
    EmbeddingList,
    EmbeddingUsage,
    ModelDetails,
    ModelEntry,
    ModelList,
)
from headrace.http.sse import EventStream, event
from headrace.serving.models import both
from headrace.types import Role

router = APIRouter(tags=["OpenAI"])

BULK_TEXTS = 32
"""More texts than this in one call are bulk work, which waits for queries, unless `X-Lane` says
otherwise."""


@router.post(
    "/v1/chat/completions",
    summary="Cited answers and plain chat",
    responses=described(ChatCompletion, stream=True),
)
async def chat_completions(request: Request, body: ChatRequest) -> Response:
    """`model: headrace/COLLECTION` answers from a collection: quotes stand in the text as numbered
    markers and in full in the extension field `headrace` (of the message; in a stream, of the
    chunk with the `finish_reason`). A generator's own name chats."""
    context = context_of(request)
    refuse_unsupported(body)
    completion = Completion(context, body)
    if body.model.startswith(COLLECTION_PREFIX):
        collection = body.model.removeprefix(COLLECTION_PREFIX)
        await context.check_name(collection)
        question = answer_request(body, await bind(request, body, collection=collection))
        if not body.stream:
            return json_response(await completion.cited(question))
        chunks = completion.cited_chunks(question)
    else:
        await _generator(context, body.model)
        params = generate_params(body)
        call = (await bind(request, body)).call
        if not body.stream:
            return json_response(await completion.plain(params, call))
        chunks = completion.plain_chunks(params, call)
    heartbeat = context.services.config.server.heartbeat_seconds
    return EventStream(chunks, heartbeat=heartbeat, on_error=lambda error: event(body_of(error)))


async def _generator(context: Context, name: str) -> None:
    """Raises `UnknownModel` with everything that one can chat with."""
    if name in context.services.config.models:
        context.model(name, Role.GENERATOR)
        return
    collections = [COLLECTION_PREFIX + known for known in await context.collections()]
    raise UnknownModel(name, [*context.models(Role.GENERATOR), *collections])


@router.post("/v1/embeddings", summary="Vectors of texts", responses=described(EmbeddingList))
async def embeddings(request: Request, body: EmbeddingsRequest) -> Response:
    """L2-normalised vectors. `input_type` says whether the texts are questions or passages."""
    context = context_of(request)
    models, name = context.services.models, context.model(body.model, Role.EMBEDDER)
    call = (await bind(request, body, bulk=len(body.input) > BULK_TEXTS)).call
    if body.dimensions is not None:
        own = (await models.info(name, call=call)).dimensions
        if body.dimensions != own:
            raise BadRequest(
                f"dimensions: model {name!r} has {own}; shortening is not supported",
                field="dimensions",
            )
    vectors, counts = await both(
        models.embed(name, body.input, body.input_type, call=call),
        models.count(name, body.input, call=call),
    )
    rows = np.asarray(vectors, dtype="<f4")
    data = [
        Embedding("embedding", number, _encoded(row, body.encoding_format))
        for number, row in enumerate(rows)
    ]
    tokens = sum(counts)
    return json_response(EmbeddingList("list", data, name, EmbeddingUsage(tokens, tokens)))


def _encoded(row: np.ndarray[tuple[int], np.dtype[np.float32]], form: str) -> list[float] | str:
    if form == "base64":
        return base64.b64encode(row.tobytes()).decode()
    numbers: list[float] = row.tolist()
    return numbers


@router.get("/v1/models", summary="All models", responses=described(ModelList))
async def models(request: Request) -> Response:
    """Generators, embedders and rerankers of the configuration, and `headrace/COLLECTION` for each
    collection."""
    return json_response(ModelList("list", await _entries(context_of(request))))


@router.get("/v1/models/{model_id:path}", summary="One model", responses=described(ModelEntry, 404))
async def model(request: Request, model_id: str) -> Response:
    entries = await _entries(context_of(request))
    for entry in entries:
        if entry.id == model_id:
            return json_response(entry)
    raise UnknownModel(model_id, [entry.id for entry in entries])


async def _entries(context: Context) -> list[ModelEntry]:
    configured = [
        ModelEntry(name, "model", 0, "headrace", ModelDetails(model.role, model.engine))
        for name, model in context.services.config.models.items()
    ]
    answering = [
        ModelEntry(COLLECTION_PREFIX + name, "model", 0, "headrace", ModelDetails("collection"))
        for name in await context.collections()
    ]
    return answering + configured
