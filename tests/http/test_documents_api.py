"""Documents over HTTP: upload, jobs, list, text, delete; and who may do it."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from typing import Any

import httpx
import pytest
from http_app import connect

from headrace.pipeline.services import Services

OWNER = {"authorization": "Bearer owner-secret"}
READER = {"authorization": "Bearer reader-secret"}
DOCUMENTS = "/api/collections/town/documents"
PARKING = b"# Parking\n\nParking at the harbour costs two francs an hour.\n"


async def finished(client: httpx.AsyncClient, job: Any) -> Any:
    while job["state"] in ("queued", "running"):
        await asyncio.sleep(0.02)
        job = (await client.get(f"/api/jobs/{job['id']}")).json()
    return job


async def upload(
    client: httpx.AsyncClient, *files: tuple[str, bytes], to: str = "town", **fields: object
) -> httpx.Response:
    return await client.post(
        f"/api/collections/{to}/documents",
        files=[("files", file) for file in files],
        data=fields,  # type: ignore[arg-type]
    )


async def test_upload_becomes_a_job_and_then_is_found(client: httpx.AsyncClient) -> None:
    response = await upload(
        client, ("停车 parking.md", PARKING), ("empty.txt", b""), metadata='{"year": "2026"}'
    )
    assert response.status_code == 202, response.text
    job = await finished(client, response.json())
    assert job["state"] == "done"
    outcomes = {file["source"]: file["outcome"] for file in job["report"]["files"]}
    assert outcomes == {"upload:停车 parking.md": "added", "upload:empty.txt": "skipped"}
    assert job["id"] in {one["id"] for one in (await client.get("/api/jobs")).json()["jobs"]}
    found = await client.post(
        "/api/collections/town/search",
        json={"query": "harbour parking", "metadata": {"year": "2026"}},
    )
    assert [hit["source"] for hit in found.json()["hits"]] == ["upload:停车 parking.md"]


async def test_beyond_the_queue_an_upload_is_refused_before_it_is_received(
    client: httpx.AsyncClient, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("headrace.ingest.jobs.MAX_QUEUED", 0)

    async def body() -> AsyncIterator[bytes]:
        raise AssertionError("nobody reads it")
        yield b""

    response = await client.post(
        DOCUMENTS, content=body(), headers={"content-type": "multipart/form-data; boundary=x"}
    )
    assert response.status_code == 429
    assert response.headers["retry-after"] == "10"


async def test_a_damaged_collection_is_listed_with_its_problem_and_can_be_deleted(
    client: httpx.AsyncClient, services: Services
) -> None:
    broken = services.collections.folder / "broken"
    await asyncio.to_thread(broken.mkdir)
    await asyncio.to_thread((broken / "collection.sqlite").write_bytes, b"no database" * 1000)
    listed = (await client.get("/api/collections")).json()["collections"]
    assert [(one["name"], bool(one["problem"])) for one in listed] == [
        ("broken", True),
        ("town", False),
    ]
    assert (await client.get("/api/collections/broken")).status_code == 507
    assert (await client.delete("/api/collections/broken")).status_code == 200
    assert len((await client.get("/api/collections")).json()["collections"]) == 1


async def test_upload_makes_the_collection_and_again_replaces(client: httpx.AsyncClient) -> None:
    for text in (PARKING, PARKING.replace(b"two", b"three")):
        job = await finished(client, (await upload(client, ("p.md", text), to="new")).json())
        assert job["state"] == "done", job
    listed = (await client.get("/api/collections/new/documents")).json()
    assert listed["total"] == 1
    text = await client.get(f"/api/collections/new/documents/{listed['documents'][0]['id']}")
    assert "three francs" in text.json()["text"]


@pytest.mark.parametrize(
    ("fields", "param"),
    [
        ({"labels": "not a label!"}, "labels"),
        ({"metadata": "{"}, "metadata"),
        ({"metadata": '{"a": 5}'}, "metadata"),
        ({"colour": "red"}, "colour"),
    ],
)
async def test_wrong_upload_fields(
    client: httpx.AsyncClient, fields: dict[str, object], param: str
) -> None:
    response = await upload(client, ("p.md", PARKING), **fields)
    assert (response.status_code, response.json()["error"]["param"]) == (400, param)


async def test_wrong_uploads_leave_nothing_behind(
    client: httpx.AsyncClient, services: Services
) -> None:
    assert (await upload(client, ("..", PARKING))).status_code == 400
    assert (await upload(client, ("p.md", PARKING), to=".hidden")).status_code == 400
    nothing = await client.post(DOCUMENTS, data={"labels": "hr"})
    assert nothing.status_code == 400
    incoming = services.config.data_dir / "incoming"
    assert not incoming.exists() or not list(incoming.iterdir())


async def test_documents_are_listed_in_pages(client: httpx.AsyncClient) -> None:
    await finished(client, (await upload(client, ("a.md", PARKING), ("b.md", PARKING))).json())
    whole = (await client.get(DOCUMENTS)).json()
    assert whole["total"] == 3  # the one for hr alone is not there
    sources = [document["source"] for document in whole["documents"]]
    assert sources == sorted(sources)
    page = (await client.get(DOCUMENTS, params={"limit": 1, "offset": 1})).json()
    assert page == {"total": 3, "documents": whole["documents"][1:2]}


@pytest.mark.parametrize("query", ["limit=0", "limit=x", "offset=-1", "limit=99999"])
async def test_wrong_pages_name_the_field(client: httpx.AsyncClient, query: str) -> None:
    response = await client.get(f"{DOCUMENTS}?{query}")
    assert response.status_code == 422
    assert response.json()["error"]["param"] == query.partition("=")[0]


async def test_text_is_sliced_by_span(client: httpx.AsyncClient) -> None:
    entry = (await client.get(DOCUMENTS)).json()["documents"][0]
    url = f"{DOCUMENTS}/{entry['id']}"
    whole = (await client.get(url)).json()
    assert whole["span"] == {"start": 0, "end": entry["characters"]}
    part = (await client.get(url, params={"start": 2, "end": 8})).json()
    assert part["text"] == whole["text"][2:8]
    beyond = (await client.get(url, params={"start": 10**6, "end": 2 * 10**6})).json()
    assert beyond["text"] == ""
    for wrong in ({"start": -1}, {"end": "x"}):
        assert (await client.get(url, params=wrong)).status_code == 422
    assert (await client.get(url, params={"start": 5, "end": 2})).status_code == 400


async def test_deleted_documents_are_gone_at_once(client: httpx.AsyncClient) -> None:
    entry = (await client.get(DOCUMENTS)).json()["documents"][0]
    missing = await client.delete(DOCUMENTS, params={"id": [entry["id"], "0" * 16]})
    assert missing.status_code == 404
    malformed = await client.delete(DOCUMENTS, params={"id": [entry["id"], "nobody"]})
    assert malformed.status_code == 422
    assert (await client.get(f"{DOCUMENTS}/{entry['id']}")).status_code == 200
    response = await client.delete(f"{DOCUMENTS}/{entry['id']}")
    receipt = response.json()
    assert receipt["deleted"] == [entry["id"]]
    (document,) = receipt["documents"]
    assert (document["source"], document["chunks"]) == (entry["source"], entry["chunks"])
    assert receipt["vectors"] == entry["chunks"]
    assert receipt["generation"] == receipt["generation_before"] + 1
    found = await client.post("/api/collections/town/search", json={"query": "weekly market"})
    assert found.json()["hits"] == []
    assert (await client.get(f"{DOCUMENTS}/{entry['id']}")).status_code == 404


async def test_collections_are_shown_and_deleted(client: httpx.AsyncClient) -> None:
    listed = (await client.get("/api/collections")).json()["collections"]
    assert [entry["name"] for entry in listed] == ["town"]
    assert listed[0] == (await client.get("/api/collections/town")).json()
    assert (await client.delete("/api/collections/town")).json() == {"deleted": ["town"]}
    assert (await client.get("/api/collections/town")).status_code == 404
    assert (await client.get("/api/collections")).json() == {"collections": []}


async def test_unknown_jobs_are_not_found(client: httpx.AsyncClient) -> None:
    for method in ("GET", "DELETE"):
        assert (await client.request(method, "/api/jobs/nobody")).status_code == 404


async def test_readers_may_not_write_and_do_not_see_what_is_not_theirs(keyed: Services) -> None:
    async with connect(keyed, **READER) as reader, connect(keyed, **OWNER) as owner:
        mine = (await reader.get(DOCUMENTS)).json()["documents"]
        everything = (await owner.get(DOCUMENTS)).json()["documents"]
        assert len(mine) == 1
        hidden = {entry["id"] for entry in everything} - {entry["id"] for entry in mine}
        for document in hidden:
            assert (await reader.get(f"{DOCUMENTS}/{document}")).status_code == 404
            assert (await owner.get(f"{DOCUMENTS}/{document}")).status_code == 200
        refused = [
            await upload(reader, ("p.md", PARKING)),
            await reader.delete(f"{DOCUMENTS}/{mine[0]['id']}"),
            await reader.delete(DOCUMENTS, params={"id": mine[0]["id"]}),
            await reader.delete("/api/collections/town"),
            await reader.get("/api/jobs"),
            await reader.get("/api/jobs/x"),
            await reader.delete("/api/jobs/x"),
        ]
        assert [response.status_code for response in refused] == [403] * 7
        labelled = await upload(owner, ("p.md", PARKING), labels=["hr", "board"])
        await finished(owner, labelled.json())
        assert (await reader.get(DOCUMENTS)).json()["total"] == 1
        labels = {tuple(d["labels"]) for d in (await owner.get(DOCUMENTS)).json()["documents"]}
        assert ("hr", "board") in labels or ("board", "hr") in labels
