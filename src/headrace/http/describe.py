"""The OpenAPI document: routes by FastAPI, response schemas from the msgspec structs."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import msgspec
from fastapi import FastAPI
from fastapi.openapi.utils import get_openapi

from headrace.http.failures import ErrorBody

_REF = "#/components/schemas/{name}"


def described(
    body: Any, *statuses: int, status: int = 200, stream: bool = False
) -> dict[int | str, dict[str, Any]]:
    """The `responses` of a route whose success has `body`: a struct or a list of structs. Every
    error has an `ErrorBody`; `statuses` are kept for readers of the document."""
    content: dict[str, Any] = {"application/json": {"schema": _schema(body)}}
    if stream:
        content["text/event-stream"] = {"schema": {"type": "string"}}
    success = {"description": "Success", "content": content}
    return {status: success, **errors(*statuses)}


def errors(*statuses: int) -> dict[int | str, dict[str, Any]]:
    """The error responses of a route."""
    content = {"application/json": {"schema": _schema(ErrorBody)}}
    named = {400, 401, 403, 404, 408, 413, 422, 429, *statuses}
    found: dict[int | str, dict[str, Any]] = {
        number: {"description": _MEANINGS.get(number, "Error"), "content": content}
        for number in sorted(named)
    }
    found["5XX"] = {"description": "The server or a model failed", "content": content}
    return found


_MEANINGS = {
    400: "A value that makes no sense here, or a body that is not JSON",
    401: "No API key, or an unknown one",
    403: "A key without the right, or a foreign web page",
    404: "Unknown model, collection or item; the message lists the known names",
    408: "The body does not arrive, or too slowly",
    409: "Another process writes to this collection",
    413: "The body is larger than server.max_body_mib",
    422: "A field is missing, unknown, or has a wrong type or value; `param` names it",
    429: "Too many requests in progress; `Retry-After` says when to try again",
}


def _schema(body: Any) -> Any:
    (schema,), _ = msgspec.json.schema_components([body], ref_template=_REF)
    return schema


def install(app: FastAPI, description: str, bodies: Sequence[type]) -> None:
    """Make `app.openapi()` hold the key scheme and the schemas of `bodies`, which are all structs
    that routes name."""

    def document() -> dict[str, Any]:
        if app.openapi_schema is None:
            made = get_openapi(
                title=app.title, version=app.version, description=description, routes=app.routes
            )
            components = made.setdefault("components", {})
            _, schemas = msgspec.json.schema_components([ErrorBody, *bodies], ref_template=_REF)
            components.setdefault("schemas", {}).update(schemas)
            components["securitySchemes"] = {"key": {"type": "http", "scheme": "bearer"}}
            made["security"] = [{"key": []}, {}]
            app.openapi_schema = made
        return app.openapi_schema

    app.openapi = document  # type: ignore[method-assign]
