"""Documents that arrive over HTTP, and the ingestion jobs that they become."""

from __future__ import annotations

from typing import Annotated, Any

import msgspec
from fastapi import APIRouter, Query, Request
from pydantic import TypeAdapter, ValidationError
from starlette.responses import Response

from headrace.config.fields import Label
from headrace.errors import BadRequest
from headrace.http.context import caller_of, context_of, json_response
from headrace.http.describe import described
from headrace.http.responses import JobList
from headrace.http.uploads import Received, incoming, receive
from headrace.ingest.outcomes import Job
from headrace.retrieval.collections import checked_name

router = APIRouter(tags=["Ingestion"])

_LABELS: TypeAdapter[tuple[str, ...]] = TypeAdapter(tuple[Label, ...])
_FORM: dict[str, Any] = {
    "requestBody": {
        "required": True,
        "content": {
            "multipart/form-data": {
                "schema": {
                    "type": "object",
                    "required": ["files"],
                    "properties": {
                        "files": {
                            "type": "array",
                            "minItems": 1,
                            "items": {"type": "string", "format": "binary"},
                            "description": "The documents. A file's name is its source: sending "
                            "it again replaces the document.",
                        },
                        "labels": {
                            "type": "array",
                            "items": {"type": "string"},
                            "description": "Who may read them; empty takes the collection's.",
                        },
                        "metadata": {
                            "type": "string",
                            "description": "A JSON object of strings, to filter searches by.",
                        },
                    },
                }
            }
        },
    }
}


@router.post(
    "/api/collections/{name}/documents",
    summary="Add documents",
    status_code=202,
    responses=described(Job, 409, 507, status=202),
    openapi_extra=_FORM,
)
async def add_documents(request: Request, name: str) -> Response:
    """Takes files as multipart/form-data and answers with the ingestion job, whose progress
    `GET /api/jobs/{id}` shows. A collection that does not exist is made. Needs an admin key."""
    caller_of(request).require_admin()
    context = context_of(request)
    name = checked_name(name)
    context.services.jobs.check_room()  # before all of it has been received
    async with incoming(context.services.config.data_dir) as folder:
        content_type = request.headers.get("content-type", "")
        received = await receive(content_type, request.stream(), folder)
        labels, metadata = _settings(received)
        jobs = context.services.jobs
        job = await jobs.submit(name, received.files, labels=labels, metadata=metadata)
    return json_response(job, 202)


def _settings(received: Received) -> tuple[tuple[str, ...] | None, dict[str, str]]:
    """Labels and metadata out of the form's fields. Raises `BadRequest`."""
    if not received.files:
        raise BadRequest("the upload holds no file; send fields named `files`", field="files")
    unknown = set(received.fields) - {"labels", "metadata"}
    if unknown:
        name = min(unknown)
        raise BadRequest(f"{name}: this field is not known here", field=name)
    names = [part.strip() for text in received.fields.get("labels", []) for part in text.split(",")]
    try:
        labels = _LABELS.validate_python(tuple(name for name in names if name))
    except ValidationError as error:
        raise BadRequest(
            "labels: letters, digits, `_`, `.`, `:` and `-`, at most 64", field="labels"
        ) from error
    metadata: dict[str, str] = {}
    for text in received.fields.get("metadata", []):
        try:
            metadata.update(msgspec.json.decode(text, type=dict[str, str]))
        except msgspec.DecodeError as error:
            raise BadRequest(
                f"metadata: a JSON object of strings is needed: {error}", field="metadata"
            ) from error
    return labels or None, metadata


@router.get("/api/jobs", summary="Ingestion jobs", responses=described(JobList))
async def list_jobs(
    request: Request, collection: Annotated[str | None, Query(max_length=64)] = None
) -> Response:
    """The newest first. Needs an admin key: jobs name the files of all callers."""
    caller_of(request).require_admin()
    jobs = await context_of(request).services.jobs.list(collection)
    return json_response(JobList(tuple(jobs)))


@router.get("/api/jobs/{job_id}", summary="One job", responses=described(Job))
async def show_job(request: Request, job_id: str) -> Response:
    """Its progress, and in the end what became of each file. Needs an admin key."""
    caller_of(request).require_admin()
    return json_response(await context_of(request).services.jobs.get(job_id))


@router.delete("/api/jobs/{job_id}", summary="Cancel a job", responses=described(Job))
async def cancel_job(request: Request, job_id: str) -> Response:
    """Stops it between two steps; what is stored stays. Needs an admin key."""
    caller_of(request).require_admin()
    return json_response(await context_of(request).services.jobs.cancel(job_id))
