"""Is it alive, is it ready, how is it doing."""

from __future__ import annotations

import asyncio
import tempfile
from pathlib import Path

from fastapi import APIRouter, Request
from starlette.responses import Response

from headrace import __version__
from headrace.errors import HeadraceError
from headrace.http.context import context_of, json_response
from headrace.http.describe import described
from headrace.http.responses import Health, Readiness
from headrace.pipeline.services import Services
from headrace.serving.survey import METRICS, MODELS, Nothing
from headrace.telemetry import Metrics, render

HOST_SECONDS = 5.0

router = APIRouter(tags=["Operation"])


@router.get("/healthz", summary="Is the process alive?", responses=described(Health))
async def healthz() -> Response:
    """Answers as long as the event loop turns; no model is asked."""
    return json_response(Health("ok", __version__))


@router.get("/readyz", summary="Can it answer?", responses=described(Readiness, 503))
async def readyz(request: Request) -> Response:
    """503 with the `problems` where the data folder cannot be written, a default model is not
    known, or a model cannot serve: it could not be loaded, or failed too often; and at once when
    the server is told to end. A model that is still being loaded is no problem: questions wait."""
    if request.app.state.drain.begun:
        return json_response(Readiness(False, ("the server is shutting down",)), 503)
    services = context_of(request).services
    problems = [*await asyncio.to_thread(_of_folder, services), *await _of_models(services)]
    return json_response(Readiness(not problems, tuple(problems)), 503 if problems else 200)


def _of_folder(services: Services) -> list[str]:
    unwritable = _unwritable(services.config.data_dir)
    return [f"data folder: {unwritable}"] if unwritable else []


async def _of_models(services: Services) -> list[str]:
    known, defaults = set(services.models.names()), services.config.defaults
    found = [
        f"default {role}: model {name!r} is not served"
        for role in ("generator", "embedder", "reranker")
        if (name := getattr(defaults, role)) is not None and name not in known
    ]
    try:
        async with asyncio.timeout(HOST_SECONDS):
            survey = await services.control.ask(MODELS, Nothing())
    except TimeoutError:
        return [*found, f"the host of the models said nothing for {HOST_SECONDS:.0f} s"]
    except HeadraceError as error:
        return [*found, error.message]
    problems = sorted(survey.problems().items())
    return [*found, *(f"model {name!r} cannot serve: {why}" for name, why in problems)]


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
    """Requests, stages, tokens, calls per model, what is in progress, where the models are: the
    sum over all processes of this server."""
    scraped = await context_of(request).services.control.ask(METRICS, Nothing())
    return Response(render(scraped.families), media_type=Metrics.content_type)
