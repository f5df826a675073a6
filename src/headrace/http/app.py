"""The HTTP application: routes, the way in, and errors."""

from __future__ import annotations

import os
from collections.abc import Mapping
from typing import Any

import msgspec
from fastapi import FastAPI
from starlette.middleware import Middleware
from starlette.types import Scope

from headrace import __version__
from headrace.http import (
    admin,
    admin_caches,
    admin_models,
    collections,
    describe,
    failures,
    health,
    jobs,
    model_files,
    openai,
    rag,
    rerank,
    sessions,
)
from headrace.http import responses as bodies
from headrace.http.context import Live, context_in
from headrace.http.drain import Drain
from headrace.http.gate import Gate
from headrace.http.lifetime import Bounds, Lifetime
from headrace.http.observe import Observe
from headrace.pipeline.services import Services
from headrace.serving.operate import Decisions
from headrace.serving.sessions import Sessions
from headrace.types import Event

PARTS = (
    *(openai, rerank, rag, sessions, collections, jobs, health),
    *(admin, admin_caches, admin_models, model_files),
)
MIB = 1024 * 1024

DESCRIPTION = """Answers from private documents, with quotations that are exactly in the sources.

Any OpenAI client works: its base URL is this server's address with `/v1`, and the model
`headrace/COLLECTION` answers from that collection. Errors have OpenAI's shape everywhere."""


def create_app(services: Services, environment: Mapping[str, str] | None = None) -> FastAPI:
    """The ASGI application over running services; whoever made the services ends them.

    `environment` holds the API keys named in the configuration (by default the process's own).
    `app.state.drain` ends it gracefully, `app.state.live.configure` puts another configuration in
    force.
    Raises `ConfigError` if one of them is missing.
    """
    metrics = services.metrics
    live = Live(services, os.environ if environment is None else environment)
    drain = Drain()

    app = FastAPI(
        title="Headrace",
        version=__version__,
        docs_url=None,  # these pages load their scripts from other machines
        redoc_url=None,
        redirect_slashes=False,
        middleware=[
            Middleware(Observe, live=live, metrics=metrics),
            Middleware(Gate, drain=drain, metrics=metrics),
            Middleware(Lifetime, bounds=_bounds, drain=drain),
        ],
    )
    app.state.live = live
    app.state.drain = drain
    for part in PARTS:
        app.include_router(part.router)
    failures.install(app)
    describe.install(app, DESCRIPTION, _bodies())
    return app


def _bounds(scope: Scope) -> Bounds:
    server = context_in(scope).services.config.server
    if model_files.is_upload(scope["path"]):
        size, option = server.max_model_mib, "server.max_model_mib"
    else:
        size, option = server.max_body_mib, "server.max_body_mib"
    return Bounds(size * MIB, server.stall_seconds, option=option)


def _bodies() -> list[Any]:
    """Every struct that a route answers with."""
    found = [item for item in vars(bodies).values() if isinstance(item, type)]
    return [item for item in found if issubclass(item, msgspec.Struct)] + [
        Event,
        Sessions,
        Decisions,
    ]
