"""What a route handler needs of the application and of the request's caller."""

from __future__ import annotations

import asyncio
import re
from collections.abc import Mapping
from dataclasses import dataclass, replace

import msgspec
from fastapi import Request
from starlette.responses import Response
from starlette.types import Scope

from headrace.config.fields import NAME_PATTERN
from headrace.config.options import Config, ServerOptions
from headrace.errors import BadRequest, UnknownCollection, UnknownModel
from headrace.http.auth import Caller, Keyring, OriginGuard
from headrace.pipeline.services import Services
from headrace.retrieval.embedded import EmbeddedIndex
from headrace.telemetry import Metrics
from headrace.types import Role

_encoder = msgspec.json.Encoder()
_NAME = re.compile(NAME_PATTERN)


@dataclass(frozen=True)
class Context:
    """The application under one configuration. A request takes the one of its start and keeps it
    to its end, so it never sees two configurations."""

    services: Services
    keyring: Keyring
    origins: OriginGuard

    @property
    def metrics(self) -> Metrics:
        return self.services.metrics

    def models(self, role: Role) -> list[str]:
        """Names of the configured models of a role, the default first."""
        first = getattr(self.services.config.defaults, role)
        named = self.services.config.models.items()
        found = sorted(name for name, model in named if model.role is role)
        return sorted(found, key=lambda name: name != first)

    def model(self, name: str, role: Role) -> str:
        """`name`, if it is a model of that role. Raises `UnknownModel` or `BadRequest`."""
        model = self.services.config.models.get(name)
        if model is None:
            raise UnknownModel(name, self.models(role))
        if model.role is not role:
            known = ", ".join(self.models(role)) or "none"
            raise BadRequest(
                f"model {name!r} has the role {model.role}; this needs a {role}: {known}",
                field="model",
            )
        return name

    async def collections(self) -> list[str]:
        return await asyncio.to_thread(self.services.collections.names)

    async def index(self, name: str) -> EmbeddedIndex:
        """The index of a collection. Raises `UnknownCollection`."""
        await self.check_name(name)
        collections = self.services.collections
        index = collections.at_hand(name)  # a change of threads costs as much as a small search
        return index if index is not None else await asyncio.to_thread(collections.open, name)

    async def check_name(self, name: str) -> None:
        """Names come from outside and become folders: one that no collection can have is unknown
        before anything looks at the disk."""
        if not _NAME.fullmatch(name):
            raise UnknownCollection(name, await self.collections())


class Live:
    """The context of requests that begin now. `environment` holds the texts of the API keys.
    Raises `ConfigError` if one is missing."""

    def __init__(self, services: Services, environment: Mapping[str, str]) -> None:
        self._environment = environment
        self.context = self._context(services)

    def _context(self, services: Services) -> Context:
        server = services.config.server
        return Context(services, Keyring(server, self._environment), OriginGuard(server))

    @property
    def server(self) -> ServerOptions:
        return self.context.services.config.server

    def configure(self, config: Config, version: str) -> None:
        """From now on requests begin under `config`; those in progress end as they began. Raises
        `ConfigError`, and then nothing has changed."""
        services = replace(self.context.services, config=config, config_version=version)
        self.context = self._context(services)
        services.jobs.configure(config)
        services.vectors.configure(config.cache)


def begin(scope: Scope, live: Live) -> Context:
    """Fixes the context of the request in `scope`."""
    scope["headrace.context"] = live.context
    return live.context


def context_in(scope: Scope) -> Context:
    context: Context = scope["headrace.context"]
    return context


def context_of(request: Request) -> Context:
    return context_in(request.scope)


def caller_of(request: Request) -> Caller:
    caller: Caller = request.scope["headrace.caller"]
    return caller


def json_response(value: object, status: int = 200) -> Response:
    """Any vocabulary type or struct, encoded."""
    return Response(_encoder.encode(value), status, media_type="application/json")


def encode(value: object) -> bytes:
    return _encoder.encode(value)
