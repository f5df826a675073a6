"""Errors as HTTP responses: the one place that maps the error tree to OpenAI-shaped bodies."""

from __future__ import annotations

import logging
import math
from collections.abc import Mapping, Sequence

import msgspec
from fastapi import FastAPI, Request
from fastapi.exceptions import RequestValidationError
from starlette.exceptions import HTTPException
from starlette.responses import Response

from headrace.errors import BadRequest, HeadraceError, InvalidField, Overloaded, ShuttingDown

log = logging.getLogger("headrace.http")


class ErrorDetail(msgspec.Struct, frozen=True):
    """`type` is OpenAI's class of error, `code` the stable name to match on, `param` the field of
    the request that is wrong, with dots (`messages.0.content`)."""

    message: str
    type: str
    param: str | None
    code: str


class ErrorBody(msgspec.Struct, frozen=True):
    """The body of every response with status 400 or above."""

    error: ErrorDetail


RETRY_SECONDS = 2
"""When a client that a process turned away at its end should try again: another one may be there
by then."""

_TYPES = {401: "authentication_error", 403: "permission_error", 429: "rate_limit_error"}


def error_body(status: int, code: str, message: str, param: str | None = None) -> bytes:
    """An OpenAI-shaped error, encoded."""
    kind = "server_error" if status >= 500 else _TYPES.get(status, "invalid_request_error")
    readable = message.encode("utf-8", "replace").decode()  # lone surrogates have no UTF-8
    return msgspec.json.encode(ErrorBody(ErrorDetail(readable, kind, param, code)))


def body_of(error: HeadraceError) -> bytes:
    return error_body(error.status, error.code, error.message, error.field)


def error_response(error: HeadraceError) -> Response:
    """The response for an error of the tree."""
    headers: dict[str, str] = {}
    if isinstance(error, Overloaded):
        headers["Retry-After"] = str(max(1, math.ceil(error.retry_after)))
    if isinstance(error, ShuttingDown):
        headers |= {"Retry-After": str(RETRY_SECONDS), "Connection": "close"}
    if error.status == 401:
        headers["WWW-Authenticate"] = "Bearer"
    return _json(error.status, body_of(error), headers)


def _json(status: int, body: bytes, headers: Mapping[str, str] | None = None) -> Response:
    return Response(body, status, headers, media_type="application/json")


def from_validation(errors: Sequence[Mapping[str, object]]) -> BadRequest:
    """The first finding about a request's fields, with how many more there are."""
    first = errors[0]
    place = first["loc"]
    path = [str(part) for part in place] if isinstance(place, tuple) else []
    if first["type"] == "json_invalid":
        where = f" at character {path[-1]}" if path else ""
        context = first.get("ctx")
        reason = context.get("error", "") if isinstance(context, dict) else ""
        return BadRequest(f"the body is not valid JSON{where}: {reason}")
    field = ".".join(path[1:]) or path[0]
    text = str(first["msg"]).removeprefix("Value error, ")
    if path == ["body"] and first["type"] in ("model_attributes_type", "missing"):
        text = "a JSON object is needed, with `Content-Type: application/json`"
    if first["type"] == "extra_forbidden":
        text = "this field is not known here"
    text = text.replace(" after validation", "").replace("Tuple should", "List should")
    more = f" ({len(errors) - 1} more)" if len(errors) > 1 else ""
    return InvalidField(f"{field}: {text}{more}", field=field)


def install(app: FastAPI) -> None:
    """Give `app` the handlers that turn every failure into an `ErrorBody`."""
    app.add_exception_handler(HeadraceError, _headrace_error)
    app.add_exception_handler(RequestValidationError, _validation_error)
    app.add_exception_handler(HTTPException, _http_exception)
    app.add_exception_handler(Exception, _unexpected)


async def _headrace_error(request: Request, error: Exception) -> Response:
    assert isinstance(error, HeadraceError)
    if error.status >= 500:
        log.error("%s %s: %s", request.method, request.url.path, error.message, exc_info=error)
    return error_response(error)


async def _validation_error(request: Request, error: Exception) -> Response:
    assert isinstance(error, RequestValidationError)
    return error_response(from_validation(error.errors()))


async def _http_exception(request: Request, error: Exception) -> Response:
    assert isinstance(error, HTTPException)
    status, message, code = error.status_code, str(error.detail), "bad_request"
    if status == 404:
        code = "route_not_found"
        message = f"there is no route {request.url.path!r}; /openapi.json describes all routes"
    elif status == 405:
        code = "method_not_allowed"
        message = f"{request.url.path!r} does not take {request.method}"
    elif isinstance(error.__cause__, ValueError | RecursionError):
        message = "the body is not valid JSON in UTF-8, nested too deeply, or has a huge number"
    return _json(status, error_body(status, code, message), error.headers)


async def _unexpected(request: Request, error: Exception) -> Response:
    """An error that is a defect: the server logs it in full, the caller learns its number."""
    number = request.scope.get("headrace.request_id", "unknown")
    message = f"internal error; the server's log has it under request {number}"
    return _json(500, error_body(500, HeadraceError.code, message))
