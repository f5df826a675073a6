"""What a route handler needs of the application and of the request's caller."""

from __future__ import annotations

import asyncio
import re
from dataclasses import dataclass

import msgspec
from fastapi import Request
from starlette.responses import Response

from headrace.config.options import NAME_PATTERN
from headrace.errors import BadRequest, UnknownCollection, UnknownModel
from headrace.http.auth import Caller
from headrace.pipeline.services import Services
from headrace.retrieval.embedded import EmbeddedIndex
from headrace.telemetry import Metrics
from headrace.types import Role

_encoder = msgspec.json.Encoder()
_NAME = re.compile(NAME_PATTERN)


@dataclass(frozen=True)
class Context:
    """Made once per application, reached as `request.app.state.context`."""

    services: Services

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
        return await asyncio.to_thread(self.services.collections.open, name)

    async def check_name(self, name: str) -> None:
        """Names come from outside and become folders: one that no collection can have is unknown
        before anything looks at the disk."""
        if not _NAME.fullmatch(name):
            raise UnknownCollection(name, await self.collections())


def context_of(request: Request) -> Context:
    context: Context = request.app.state.context
    return context


def caller_of(request: Request) -> Caller:
    caller: Caller = request.scope["headrace.caller"]
    return caller


def json_response(value: object, status: int = 200) -> Response:
    """Any vocabulary type or struct, encoded."""
    return Response(_encoder.encode(value), status, media_type="application/json")


def encode(value: object) -> bytes:
    return _encoder.encode(value)
