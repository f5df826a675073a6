"""The configuration and the models over HTTP, on an application that follows its configuration."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator
from dataclasses import replace
from pathlib import Path

import httpx
import pytest
from http_app import KEYS, connect

from headrace.config.load import read_text
from headrace.config.options import Config
from headrace.http.app import create_app
from headrace.pipeline.services import Services
from headrace.serving.settings import following

# ruff: noqa: ASYNC240  (a few lines are read at once)

OWNER = {"authorization": "Bearer owner-secret"}
READER = {"authorization": "Bearer reader-secret"}
ECHO = {"role": "reranker", "engine": "echo"}


@contextlib.asynccontextmanager
async def followed(services: Services) -> AsyncIterator[httpx.AsyncClient]:
    """A client of an application under whatever configuration is in force."""
    app = create_app(services, KEYS)
    transport = httpx.ASGITransport(app, raise_app_exceptions=False)
    async with (
        following(services.control, services.config_version, app.state.live.configure),
        httpx.AsyncClient(transport=transport, base_url="http://localhost") as client,
    ):
        yield client


@pytest.fixture
async def admin(services: Services) -> AsyncIterator[httpx.AsyncClient]:
    async with followed(services) as client:
        yield client


@pytest.fixture
def file(town: Config) -> Path:
    return town.data_dir.parent / "headrace.yaml"


async def put(client: httpx.AsyncClient, text: str, version: str = "*") -> httpx.Response:
    return await client.put("/admin/config", content=text, headers={"If-Match": version})


async def test_the_configuration_is_shown_and_replaced(
    admin: httpx.AsyncClient, file: Path
) -> None:
    shown = await admin.get("/admin/config")
    body = shown.json()
    assert body["values"]["models"]["echo-generator"]["engine"] == "echo"
    assert (body["file"], body["problem"], body["restart_needed"]) == (str(file), "", [])
    text = (await admin.get("/admin/config", headers={"Accept": "application/yaml"})).text
    assert text == file.read_text()
    tag = shown.headers["etag"]
    changed = text.replace('"max_quotes": 3', '"max_quotes": 2').replace("8017", "9000")
    done = await put(admin, changed, tag)
    assert done.status_code == 200, done.text
    assert done.json()["changed"] == ["answer.max_quotes"]
    assert done.json()["restart_needed"] == ["server.port"]
    assert done.headers["x-headrace-config"] != done.json()["version"]  # it began before
    after = await admin.get("/admin/config")
    assert after.headers["x-headrace-config"] == done.json()["version"] == after.json()["version"]
    assert after.json()["values"]["answer"]["max_quotes"] == 2
    assert file.read_text() == changed
    stale = await put(admin, text, tag)
    assert (stale.status_code, stale.json()["error"]["code"]) == (412, "stale_version")
    assert done.json()["file_version"] in stale.json()["error"]["message"]
    assert file.read_text() == changed


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("server: {prot: 1}", "the body:1: server.prot: there is no such option"),
        ("server: [", "the body:1: "),
        ("a: &b 1\nc: *b", "aliases"),
        ("server: {keys: [{env: NOT_SET_HERE}]}", "NOT_SET_HERE is not set"),
        ("x" * 300_000, "larger than 256 KiB"),
        ("models: {big: {role: reranker, engine: echo, size_hint: 9GiB}}", "0 bytes are free"),
    ],
)
async def test_a_wrong_configuration_is_refused_and_nothing_changes(
    admin: httpx.AsyncClient, file: Path, text: str, message: str
) -> None:
    before = file.read_text()
    refused = await put(admin, text)
    assert refused.status_code == 422
    assert message in refused.json()["error"]["message"]
    assert file.read_text() == before
    assert (await admin.get("/admin/config")).json()["problem"] == ""


async def test_a_replacement_must_say_what_it_replaces(admin: httpx.AsyncClient) -> None:
    refused = await admin.put("/admin/config", content="{}")
    assert refused.status_code == 422
    assert "if-match" in refused.json()["error"]["message"].lower()


async def test_every_request_ends_under_the_configuration_of_its_start(
    admin: httpx.AsyncClient, file: Path
) -> None:
    """The prompt is changed over and over while questions are asked: each answer names the
    configuration that its own header names, and none fails."""
    text = file.read_text()
    versions: set[str] = set()
    done = asyncio.Event()

    async def ask() -> None:
        body = {"model": "headrace/town", "messages": [{"role": "user", "content": "Dogs?"}]}
        while not done.is_set():
            answer = await admin.post("/v1/chat/completions", json=body)
            assert answer.status_code == 200, answer.text
            version = answer.json()["choices"][0]["message"]["headrace"]["config_version"]
            assert version == answer.headers["x-headrace-config"]
            versions.add(version)

    async def change() -> None:
        for number in range(6):
            at = len(versions)
            prompt = f'"system_prompt": "Number {number}. '
            assert (await put(admin, text.replace('"system_prompt": "', prompt))).is_success
            while len(versions) == at:  # noqa: ASYNC110
                await asyncio.sleep(0.005)
        done.set()

    async with asyncio.timeout(60), asyncio.TaskGroup() as group:
        for _ in range(4):
            group.create_task(ask())
        group.create_task(change())
    assert len(versions) >= 6


async def test_limits_and_keys_change_while_running(admin: httpx.AsyncClient, file: Path) -> None:
    text = file.read_text()
    limited = text.replace('"max_body_mib": 64', '"max_body_mib": 1')
    assert (await put(admin, limited)).is_success
    big = {"model": "echo-embedder", "input": "x" * (1 << 20)}
    assert (await admin.post("/v1/embeddings", json=big)).status_code == 413
    assert (await put(admin, text)).is_success
    assert (await admin.post("/v1/embeddings", json=big)).status_code == 200
    keyed = text.replace('"keys": []', '"keys": [{"env": "OWNER_KEY", "admin": true}]')
    assert (await put(admin, keyed)).is_success
    assert (await admin.get("/v1/models")).status_code == 401
    assert (await admin.get("/v1/models", headers=OWNER)).status_code == 200


async def test_models_are_added_replaced_and_removed(admin: httpx.AsyncClient, file: Path) -> None:
    added = await admin.put("/admin/models/second", json=ECHO)
    assert added.json()["changed"] == ["models.second"]
    assert "second" in (await admin.get("/v1/models")).text
    replaced = await admin.put("/admin/models/second", json=ECHO | {"slots": 9})
    assert replaced.json()["changed"] == ["models.second.slots"]
    wrong = await admin.put("/admin/models/second", json=ECHO | {"engine": "ecko"})
    assert wrong.status_code == 422
    assert "models.second.engine" in wrong.json()["error"]["message"]
    assert (await admin.put("/admin/models/second", content="[1]")).status_code == 422
    assert (await admin.put("/admin/models/a b", json=ECHO)).status_code == 422
    removed = await admin.delete("/admin/models/second")
    assert removed.json()["configuration"]["changed"] == ["models.second"]
    assert "second" not in read_text(file.read_text(), "f", file.parent).models
    assert (await admin.delete("/admin/models/second")).status_code == 404
    used = await admin.delete("/admin/models/echo-embedder")
    assert (used.status_code, used.json()["error"]["code"]) == (409, "in_use")
    assert "defaults.embedder" in used.json()["error"]["message"]
    await admin.delete("/admin/models/smollm2")  # the file of this test names the built-in ones
    assert (await admin.delete("/admin/models/smollm2")).status_code == 400


async def test_models_are_moved_and_reset_and_decisions_explained(
    admin: httpx.AsyncClient,
) -> None:
    for move, place in (("load", "serving"), ("park", "parked"), ("exit", "gone")):
        moved = await admin.post(f"/admin/models/echo-reranker/{move}")
        assert (moved.status_code, moved.json()["place"]) == (200, place)
    reset = await admin.post("/admin/reset", json={"model": "echo-reranker"})
    assert reset.json()["restarts"] == 1
    found = (await admin.get("/admin/decisions", params={"limit": 2})).json()["decisions"]
    assert [decision["what"] for decision in found] == ["gone", "parked"]
    assert (await admin.get("/admin/devices")).json()["devices"][0]["name"] == "host"
    for path, body in (
        ("/admin/models/none/load", None),
        ("/admin/models/none/pull", None),
        ("/admin/reset", {"model": "none"}),
    ):
        unknown = await admin.post(path, json=body)
        assert unknown.json()["error"]["code"] == "model_not_found"


async def test_weights_are_pulled_by_a_process_of_their_own(
    admin: httpx.AsyncClient, tmp_path: Path
) -> None:
    weights = tmp_path / "tiny.gguf"
    weights.write_bytes(b"GGUF")
    entry = {"role": "generator", "engine": "llamacpp", "source": f"file:{weights}"}
    assert (await admin.put("/admin/models/tiny", json=entry)).is_success
    pulled = await admin.post("/admin/models/tiny/pull")
    assert pulled.json()["path"] == str(weights)
    assert (await admin.put("/admin/models/tiny", json=entry | {"sha256": "0" * 64})).is_success
    wrong = await admin.post("/admin/models/tiny/pull")
    assert (wrong.status_code, wrong.json()["error"]["code"]) == (502, "source_error")
    assert (await admin.post("/admin/models/echo-reranker/pull")).status_code == 400


async def test_administration_needs_an_admin_key(keyed: Services) -> None:
    calls = [
        ("GET", "/admin/config"),
        ("PUT", "/admin/config"),
        ("GET", "/admin/models"),
        ("GET", "/admin/devices"),
        ("GET", "/admin/decisions"),
        ("PUT", "/admin/models/a"),
        ("DELETE", "/admin/models/a"),
        ("POST", "/admin/models/a/load"),
        ("POST", "/admin/models/a/pull"),
        ("POST", "/admin/models/a/files"),
        ("POST", "/admin/reset"),
    ]
    async with connect(keyed, **READER) as reader, connect(keyed) as nobody:
        for method, path in calls:
            headers = {"If-Match": "*"}
            body = b'{"model": "a"}'
            kind = {"content-type": "application/json"}
            sent = await reader.request(method, path, content=body, headers=headers | kind)
            assert sent.status_code == 403, (method, path, sent.text)
            assert (await nobody.request(method, path)).status_code == 401


async def test_a_full_server_can_be_helped(services: Services) -> None:
    """Its one place is taken by a request whose body does not come."""
    server = services.config.server.model_copy(update={"max_pending": 1})
    full = replace(services, config=services.config.model_copy(update={"server": server}))
    begun = asyncio.Event()

    async def body() -> AsyncIterator[bytes]:
        begun.set()
        await asyncio.Event().wait()
        yield b""

    async with connect(full) as client:
        stuck = asyncio.create_task(client.post("/v1/embeddings", content=body()))
        await begun.wait()
        try:
            assert (await client.get("/v1/models")).status_code == 429
            reset = await client.post("/admin/reset", json={"model": "echo-reranker"})
            assert reset.status_code == 200
        finally:
            stuck.cancel()
            await asyncio.wait([stuck])


async def test_every_answer_names_its_configuration(services: Services) -> None:
    async with connect(replace(services, config_version="seven")) as client:
        for path in ("/healthz", "/v1/models", "/none", "/metrics"):
            assert (await client.get(path)).headers["x-headrace-config"] == "seven"
