"""Health, metrics, the door, and the errors that belong to no route."""

from __future__ import annotations

import asyncio
from dataclasses import replace
from pathlib import Path

import httpx
import pytest
from http_app import connect

from headrace.config.model_options import DefaultModels
from headrace.config.options import ServerOptions
from headrace.errors import ModelFailed
from headrace.http.app import create_app
from headrace.pipeline.services import Services
from headrace.serving.arbiter_types import Place
from headrace.serving.control import LocalControl
from headrace.serving.status import ModelStatus
from headrace.serving.survey import Surveyor
from headrace.types import Role


def configured(services: Services, **server: object) -> Services:
    options = ServerOptions.model_validate(server)
    return replace(services, config=services.config.model_copy(update={"server": options}))


async def test_health_and_readiness(client: httpx.AsyncClient) -> None:
    assert (await client.get("/healthz")).json()["status"] == "ok"
    response = await client.get("/readyz")
    assert response.status_code == 200
    assert response.json() == {"ready": True, "problems": []}


async def test_not_ready_says_why(services: Services, tmp_path: Path) -> None:
    missing = tmp_path / "gone"
    update = {"data_dir": missing, "defaults": DefaultModels(generator="smollm2", embedder="no")}
    broken = replace(services, config=services.config.model_copy(update=update))
    async with connect(broken) as client:
        response = await client.get("/readyz")
        assert response.status_code == 503
        problems = response.json()["problems"]
        assert any("data folder" in problem for problem in problems)
        assert any("'no'" in problem for problem in problems)
        assert (await client.get("/healthz")).status_code == 200


async def test_models_that_cannot_serve_are_told_with_the_reason(services: Services) -> None:
    def status(name: str, problem: str) -> ModelStatus:
        place, role = Place.GONE, Role.EMBEDDER
        return ModelStatus(name, role, "echo", place, "", {}, 0, 0, 0.0, (), 0, problem)

    states = [status("fine", ""), status("tired", "failed 5 times, next try in 30 s")]
    surveyor, control = Surveyor(services.metrics, lambda: states, list), LocalControl()
    surveyor.failures = {"talk": "out of memory"}
    surveyor.register(control)
    async with connect(replace(services, control=control)) as client:
        response = await client.get("/readyz")
        assert response.status_code == 503
        assert response.json()["problems"] == [
            "model 'talk' cannot serve: out of memory",
            "model 'tired' cannot serve: failed 5 times, next try in 30 s",
        ]
        text = (await client.get("/metrics")).text
        assert 'headrace_model_unavailable{model="tired"} 1.0' in text
        assert 'headrace_model_unavailable{model="fine"} 0.0' in text
        surveyor.failures, states[1:] = {}, []
        assert (await client.get("/readyz")).status_code == 200


async def test_not_ready_when_the_host_is_gone(services: Services) -> None:
    class Gone:
        async def ask(self, *_: object) -> object:
            raise ModelFailed("the host is gone")

    async with connect(replace(services, control=Gone())) as client:  # type: ignore[arg-type]
        response = await client.get("/readyz")
        assert response.status_code == 503
        assert response.json()["problems"] == ["the host is gone"]


async def test_metrics_count_requests_tokens_and_stages(client: httpx.AsyncClient) -> None:
    ask = {"model": "headrace/town", "messages": [{"role": "user", "content": "Do dogs bark?"}]}
    await client.post("/v1/chat/completions", json=ask)
    say = {"model": "echo-generator", "messages": [{"role": "user", "content": "one two"}]}
    await client.post("/v1/chat/completions", json=say)
    await client.get("/no/such/route")
    text = (await client.get("/metrics")).text
    route = 'method="POST",route="/v1/chat/completions",status="200"'
    assert f"headrace_http_requests_total{{{route}}} 2.0" in text
    assert 'route="unmatched",status="404"} 1.0' in text
    assert 'headrace_tokens_total{direction="out",model="echo-generator"}' in text
    assert 'headrace_stage_seconds_count{stage="retrieve"} 1.0' in text
    assert "headrace_http_requests_in_progress 0.0" in text
    assert 'headrace_model_requests_pending{model="echo-generator"} 0.0' in text
    assert 'headrace_model_seconds_count{model="echo-embedder",outcome="ok",verb="embed"}' in text


async def test_collections_do_not_become_routes_in_metrics(client: httpx.AsyncClient) -> None:
    await client.post("/api/collections/town/search", json={"query": "dogs"})
    await client.post("/v1/chat/completions", json={"model": "invented", "messages": []})
    text = (await client.get("/metrics")).text
    assert 'route="/api/collections/{name}/search"' in text
    assert "invented" not in text


@pytest.mark.parametrize("path", ["/", "/v1", "/v1/chat/completions/", "/admin", "/v1/nothing"])
async def test_unknown_routes_are_json(client: httpx.AsyncClient, path: str) -> None:
    response = await client.get(path)
    assert response.status_code == 404
    assert response.json()["error"]["code"] == "route_not_found"


async def test_wrong_method_is_json(client: httpx.AsyncClient) -> None:
    response = await client.get("/v1/chat/completions")
    assert response.status_code == 405
    assert response.headers["allow"] == "POST"
    assert response.json()["error"]["code"] == "method_not_allowed"


async def test_every_response_has_its_request_number(client: httpx.AsyncClient) -> None:
    numbers = {(await client.get(path)).headers["x-request-id"] for path in ("/healthz", "/nope")}
    assert len(numbers) == 2


async def test_foreign_pages_and_hosts_are_refused(client: httpx.AsyncClient) -> None:
    for headers in ({"origin": "https://evil.example"}, {"host": "evil.example"}):
        response = await client.get("/v1/models", headers=headers)
        assert response.status_code == 403
        assert response.json()["error"]["type"] == "permission_error"
        assert "access-control-allow-origin" not in response.headers


async def test_keys_are_needed_where_configured(keyed: Services) -> None:
    async with connect(keyed) as client:
        for path in ("/v1/models", "/api/collections", "/metrics", "/no/such/route"):
            response = await client.get(path)
            assert response.status_code == 401
            assert response.headers["www-authenticate"] == "Bearer"
            assert response.json()["error"]["code"] == "unauthorized"
        for path in ("/healthz", "/readyz", "/openapi.json"):
            assert (await client.get(path)).status_code == 200


async def test_keys_and_queries_do_not_reach_the_log(
    keyed: Services, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level("DEBUG", logger="headrace")
    async with connect(keyed, authorization="Bearer owner-secret") as client:
        await client.get("/v1/models", params={"token": "query-secret"})
        await client.get("/v1/models", headers={"authorization": "Bearer wrong-secret"})
    lines = [line for line in caplog.text.splitlines() if "/v1/models" in line]
    assert len(lines) == 2
    assert "secret" not in "".join(record.getMessage() for record in caplog.records)


async def test_large_bodies_are_refused_with_and_without_a_declared_length(
    services: Services,
) -> None:
    async def pieces() -> object:
        for _ in range(20):
            yield b" " * 100_000

    async with connect(configured(services, max_body_mib=1)) as client:
        declared = await client.post("/v1/embeddings", content=b" " * 2_000_000)
        chunked = await client.post("/v1/embeddings", content=pieces())  # type: ignore[arg-type]
        for response in (declared, chunked):
            assert response.status_code == 413
            assert response.json()["error"]["code"] == "too_large"


async def test_beyond_the_limit_requests_get_429_at_once(services: Services) -> None:
    entered, release = asyncio.Event(), asyncio.Event()

    class Slow:
        def __getattr__(self, name: str) -> object:
            return getattr(services.models, name)

        async def embed(self, *arguments: object, **options: object) -> object:
            entered.set()
            await release.wait()
            return await services.models.embed(*arguments, **options)  # type: ignore[arg-type]

    slow = replace(configured(services, max_pending=1), models=Slow())  # type: ignore[arg-type]
    async with connect(slow) as client:
        body = {"model": "echo-embedder", "input": "x"}
        first = asyncio.create_task(client.post("/v1/embeddings", json=body))
        await entered.wait()
        second = await client.post("/v1/embeddings", json=body)
        assert second.status_code == 429
        assert int(second.headers["retry-after"]) >= 1
        assert second.json()["error"]["type"] == "rate_limit_error"
        for path in ("/healthz", "/readyz", "/metrics"):
            assert (await client.get(path)).status_code == 200
        release.set()
        assert (await first).status_code == 200
        assert (await client.post("/v1/embeddings", json=body)).status_code == 200


async def test_defect_is_a_500_that_tells_its_number_and_nothing_else(services: Services) -> None:
    class Defective:
        def __getattr__(self, name: str) -> object:
            raise ZeroDivisionError("a secret detail")

    async with connect(replace(services, models=Defective())) as client:  # type: ignore[arg-type]
        response = await client.post(
            "/v1/embeddings", json={"model": "echo-embedder", "input": "x"}
        )
    assert response.status_code == 500
    error = response.json()["error"]
    assert error["code"] == "internal_error"
    assert "secret" not in error["message"]


def test_openapi_resolves_all_references_and_describes_all_routes(services: Services) -> None:
    document = create_app(services).openapi()
    known = set(document["components"]["schemas"])

    def references(node: object) -> set[str]:
        if isinstance(node, dict):
            own = {str(node["$ref"]).rsplit("/", 1)[-1]} if "$ref" in node else set()
            return own.union(*map(references, node.values()))
        return set().union(*map(references, node)) if isinstance(node, list) else set()

    assert references(document) <= known
    for path, methods in document["paths"].items():
        for method, operation in methods.items():
            assert operation["summary"], (method, path)
