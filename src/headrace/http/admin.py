"""The configuration over HTTP: shown, and replaced as a whole. Needs an admin key."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from typing import Annotated, Any

import msgspec
from fastapi import APIRouter, Header, Request
from starlette.responses import Response

from headrace.errors import ConfigError, InvalidField
from headrace.http.context import caller_of, context_of, json_response
from headrace.http.describe import described
from headrace.http.responses import ShownConfig
from headrace.serving.settings import REPLACE, SHOW, Changed, Replace
from headrace.serving.survey import Nothing

router = APIRouter(tags=["Administration"])

YAML = "application/yaml"
_FILE: dict[str, Any] = {
    "requestBody": {
        "required": True,
        "content": {YAML: {"schema": {"type": "string"}}},
    }
}


@contextlib.contextmanager
def refusals(field: str) -> Iterator[None]:
    """A configuration that somebody sent and that is wrong is no failure of the server. Raises
    `InvalidField` for `ConfigError`."""
    try:
        yield
    except ConfigError as error:
        raise InvalidField(error.message, field=field) from error


@router.get("/admin/config", summary="The configuration in force", responses=described(ShownConfig))
async def show_config(
    request: Request, accept: Annotated[str, Header(max_length=1000)] = ""
) -> Response:
    """Its values, what waits for the next start, and why the file is not in force if it is wrong.
    With `Accept: application/yaml`, the text of the file as it was last accepted. The header `ETag`
    has the version for `If-Match`. API keys are never in it, only the variables that hold them."""
    caller_of(request).require_admin()
    shown = await context_of(request).services.control.ask(SHOW, Nothing())
    tag = {"ETag": f'"{shown.file_version}"'}
    if "yaml" in accept:
        return Response(shown.text, 200, tag, media_type=YAML)
    body = ShownConfig(
        version=shown.version,
        file_version=shown.file_version,
        file=shown.file,
        restart_needed=shown.restart_needed,
        problem=shown.problem,
        values=msgspec.json.decode(shown.config),
    )
    response = json_response(body)
    response.headers.update(tag)
    return response


@router.put(
    "/admin/config",
    summary="Replace the configuration",
    responses=described(Changed, 412, 507),
    openapi_extra=_FILE,
)
async def replace_config(
    request: Request, if_match: Annotated[str, Header(min_length=1, max_length=100)]
) -> Response:
    """Takes a whole configuration file. It is checked, models are loaded where they are replaced,
    and only then is it written to the file and in force, in all processes; otherwise nothing has
    changed. `If-Match` names the version that was read (or `*`): 412 if somebody changed it since.
    A server that was started without a file writes one where its next start finds it."""
    caller_of(request).require_admin()
    expected = if_match.strip().removeprefix("W/").strip('"')
    asked = Replace(await request.body(), expected)
    with refusals("body"):
        return json_response(await context_of(request).services.control.ask(REPLACE, asked))
