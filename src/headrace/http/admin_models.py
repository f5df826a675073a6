"""Models over HTTP: where they are and why, moved, reset, added and removed. Needs an admin key."""

from __future__ import annotations

import asyncio
from typing import Annotated, Any

import msgspec
from fastapi import APIRouter, Query, Request
from starlette.responses import Response

from headrace.errors import BadRequest, InvalidField, UnknownModel
from headrace.http.admin import refusals
from headrace.http.context import Context, caller_of, context_of, json_response
from headrace.http.describe import described
from headrace.http.model_files import remove_files
from headrace.http.requests import ResetRequest
from headrace.http.responses import DeviceList, ModelStates, Pulled, Removed
from headrace.serving.arbiter_types import Place
from headrace.serving.operate import DECISIONS, ORDER, RESET, Decisions, Order, Reset
from headrace.serving.settings import EDIT, Changed, Edit
from headrace.serving.status import ModelStatus
from headrace.serving.survey import MODELS, Nothing
from headrace.sources.fetch_child import fetch

router = APIRouter(tags=["Administration"])

_ENTRY: dict[str, Any] = {
    "requestBody": {
        "required": True,
        "content": {"application/json": {"schema": {"type": "object"}}},
    }
}


@router.get("/admin/models", summary="Where the models are", responses=described(ModelStates))
async def list_models(request: Request) -> Response:
    caller_of(request).require_admin()
    survey = await context_of(request).services.control.ask(MODELS, Nothing())
    return json_response(ModelStates(survey.models, survey.problems()))


@router.get("/admin/devices", summary="Memory by device", responses=described(DeviceList))
async def list_devices(request: Request) -> Response:
    caller_of(request).require_admin()
    survey = await context_of(request).services.control.ask(MODELS, Nothing())
    return json_response(DeviceList(survey.devices))


@router.get("/admin/decisions", summary="Why models were moved", responses=described(Decisions))
async def list_decisions(
    request: Request, limit: Annotated[int, Query(ge=1, le=1000)] = 100
) -> Response:
    """The last decisions of the scheduler of device memory, the newest first, with the numbers
    they were made from."""
    caller_of(request).require_admin()
    found = await context_of(request).services.control.ask(DECISIONS, Nothing())
    return json_response(Decisions(found.decisions[:limit]))


@router.post(
    "/admin/models/{name}/pull", summary="Fetch a model's weights", responses=described(Pulled)
)
async def pull_model(request: Request, name: str) -> Response:
    """Into the cache; what is there already is left alone. The answer comes when they are there;
    going away interrupts it, and the next call goes on from there."""
    caller_of(request).require_admin()
    context = context_of(request)
    model = context.services.config.models[_known(context, name)]
    if model.engine in ("echo", "openai"):
        raise BadRequest(f"model {name!r} has no weights of its own", field="model")
    path = await fetch(model.source, context.services.config.cache_dir, model.sha256)
    return json_response(Pulled(name, model.source, str(path)))


@router.post("/admin/models/{name}/load", summary="Load a model", responses=described(ModelStatus))
async def load_model(request: Request, name: str) -> Response:
    """Where it can serve. Answers when it does."""
    return await _order(request, name, Place.SERVING)


@router.post("/admin/models/{name}/park", summary="Park a model", responses=described(ModelStatus))
async def park_model(request: Request, name: str) -> Response:
    """Its worker stays, its weights leave the device. A request that wants it loads it again."""
    return await _order(request, name, Place.PARKED)


@router.post(
    "/admin/models/{name}/exit", summary="End a model's worker", responses=described(ModelStatus)
)
async def exit_model(request: Request, name: str) -> Response:
    """Gives back all its memory. A request that wants it loads it again."""
    return await _order(request, name, Place.GONE)


async def _order(request: Request, name: str, place: Place) -> Response:
    caller_of(request).require_admin()
    context = context_of(request)
    order = Order(_known(context, name), place)
    with refusals("model"):
        return json_response(await context.services.control.ask(ORDER, order))


@router.post("/admin/reset", summary="Restart a stuck model", responses=described(ModelStatus))
async def reset_model(request: Request, body: ResetRequest) -> Response:
    """Kills the model's workers. Its running requests fail with `model_failed`, waiting ones wait
    for the new worker."""
    caller_of(request).require_admin()
    context = context_of(request)
    asked = Reset(_known(context, body.model))
    return json_response(await context.services.control.ask(RESET, asked))


@router.put(
    "/admin/models/{name}",
    summary="Add or replace a model",
    responses=described(Changed, 507),
    openapi_extra=_ENTRY,
)
async def put_model(request: Request, name: str) -> Response:
    """Takes the options of one entry of `models` as a JSON object, and does with the configuration
    file that has this entry what `PUT /admin/config` does. A model that is replaced serves until
    the new one is loaded, and stays if that fails."""
    caller_of(request).require_admin()
    body = await request.body()
    try:
        msgspec.json.decode(body, type=dict[str, Any])
    except (msgspec.DecodeError, UnicodeDecodeError) as error:
        raise InvalidField(f"body: a JSON object is needed: {error}", field="body") from error
    with refusals("body"):
        edit = Edit(name, body)
        return json_response(await context_of(request).services.control.ask(EDIT, edit))


@router.delete(
    "/admin/models/{name}", summary="Remove a model", responses=described(Removed, 409, 507)
)
async def delete_model(
    request: Request, name: str, files: Annotated[bool, Query()] = False
) -> Response:
    """Takes its entry out of the configuration. 409 with the options that name it, if any do. With
    `?files=true`, what was uploaded for it is deleted too, unless another model uses it."""
    caller_of(request).require_admin()
    context = context_of(request)
    with refusals("body"):
        changed = await context.services.control.ask(EDIT, Edit(name, None))
    deleted: tuple[str, ...] = ()
    if files:
        used = [m.source for key, m in context.services.config.models.items() if key != name]
        folder = context.services.config.data_dir
        deleted = await asyncio.to_thread(remove_files, folder, name, used)
    return json_response(Removed(changed, deleted))


def _known(context: Context, name: str) -> str:
    """Raises `UnknownModel`."""
    models = context.services.config.models
    if name not in models:
        raise UnknownModel(name, models)
    return name
