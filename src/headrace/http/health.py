"""Is it alive, is it ready, how is it doing."""

from __future__ import annotations

import asyncio
import tempfile
from pathlib import Path

from fastapi import APIRouter, Request
from starlette.responses import Response

from headrace import __version__
from headrace.http.context import Context, context_of, json_response
from headrace.http.describe import described
from headrace.http.responses import Health, Readiness

router = APIRouter(tags=["Operation"])


@router.get("/healthz", summary="Is the process alive?", responses=described(Health))
async def healthz() -> Response:
    """Answers as long as the event loop turns; no model is asked."""
    return json_response(Health("ok", __version__))


@router.get("/readyz", summary="Can it answer?", responses=described(Readiness, 503))
async def readyz(request: Request) -> Response:
    """503 with the `problems` where the data folder cannot be written, or a default model is not
    known or could not be loaded. One that is still being loaded is no problem: questions wait."""
    problems = await asyncio.to_thread(_problems, context_of(request))
    return json_response(Readiness(not problems, problems), 503 if problems else 200)


def _problems(context: Context) -> tuple[str, ...]:
    services = context.services
    found = []
    unwritable = _unwritable(services.config.data_dir)
    if unwritable:
        found.append(f"data folder: {unwritable}")
    known = set(services.models.names())
    defaults = services.config.defaults
    for role in ("generator", "embedder", "reranker"):
        name = getattr(defaults, role)
        if name is not None and name not in known:
            found.append(f"default {role}: model {name!r} is not served")
    failures = {} if context.warmup is None else context.warmup.failures
    found += [f"model {name!r} could not be loaded: {why}" for name, why in failures.items()]
    return tuple(found)


def _unwritable(folder: Path) -> str:
    """Why nothing can be written there; empty if it can."""
    try:
        with tempfile.TemporaryFile(dir=folder) as file:
            file.write(b"ready?")
    except OSError as error:
        return error.strerror or type(error).__name__
    return ""


@router.get(
    "/metrics",
    summary="Prometheus metrics",
    responses={200: {"description": "Success", "content": {"text/plain": {}}}},
)
async def metrics(request: Request) -> Response:
    """Requests, stages, tokens, calls per model, what is in progress."""
    found = context_of(request).metrics
    return Response(found.render(), media_type=found.content_type)
