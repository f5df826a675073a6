"""Reranking in the three shapes that clients speak, told apart by their fields.

`documents` asks as Jina's and Cohere's clients do, and gets `results` with `relevance_score`;
`texts` asks as text-embeddings-inference's do, and gets a bare list with `score`.
"""

from __future__ import annotations

import uuid

import numpy as np
from fastapi import APIRouter, Request
from starlette.responses import Response

from headrace.errors import UnknownModel
from headrace.http.calls import bind
from headrace.http.context import Context, context_of, json_response
from headrace.http.describe import described
from headrace.http.requests import RerankRequest
from headrace.http.responses import (
    ApiVersion,
    BilledUnits,
    RerankDocument,
    RerankList,
    RerankMeta,
    RerankResult,
    RerankUsage,
    TeiScore,
)
from headrace.types import Role

router = APIRouter(tags=["Rerank"])

BULK_TEXTS = 100
"""More texts than this in one call are bulk work, which waits for queries, unless `X-Lane` says
otherwise."""
_BODY = RerankList | list[TeiScore]


@router.post("/v1/rerank", summary="Order texts by relevance", responses=described(_BODY))
async def rerank(request: Request, body: RerankRequest) -> Response:
    """Best first. Scores are the model's own; only their order within one call means something.
    Texts are repeated in the results where `return_documents` (or TEI's `return_text`) asks."""
    context = context_of(request)
    name = _reranker(context, body.model)
    texts = body.texts or body.documents or ()
    models = context.services.models
    call = (await bind(request, body, bulk=len(texts) > BULK_TEXTS)).call
    scores = await models.score(name, body.query, texts, call=call)
    order = np.argsort(-scores, kind="stable")
    if body.texts is not None:
        found = [
            TeiScore(int(i), float(scores[i]), texts[i] if body.return_text else None)
            for i in order
        ]
        return json_response(found)
    results = [
        RerankResult(
            int(i), float(scores[i]), RerankDocument(texts[i]) if body.return_documents else None
        )
        for i in order[: body.top_n]
    ]
    tokens = sum(await models.count(name, (body.query, *texts), call=call))
    version = "2" if request.url.path.startswith("/v2") else "1"
    return json_response(
        RerankList(
            id=uuid.uuid4().hex,
            object="list",
            model=name,
            results=results,
            usage=RerankUsage(tokens, tokens),
            meta=RerankMeta(ApiVersion(version), BilledUnits(1)),
        )
    )


@router.post("/rerank", summary="The same", responses=described(_BODY))
async def rerank_short(request: Request, body: RerankRequest) -> Response:
    """The path that Jina's relatives and text-embeddings-inference use."""
    return await rerank(request, body)


@router.post("/v2/rerank", summary="The same", responses=described(_BODY))
async def rerank_v2(request: Request, body: RerankRequest) -> Response:
    """The path of Cohere's second API version."""
    return await rerank(request, body)


def _reranker(context: Context, name: str | None) -> str:
    """Raises `UnknownModel` also where none is named and none is configured."""
    if name is not None:
        return context.model(name, Role.RERANKER)
    known = context.models(Role.RERANKER)
    if not known:
        raise UnknownModel("reranker", known)
    return known[0]
