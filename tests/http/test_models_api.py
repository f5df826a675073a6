"""Embeddings, reranking, and the list of models."""

from __future__ import annotations

import base64
from dataclasses import replace
from typing import Any

import httpx
import numpy as np
import pytest
from http_app import connect

from headrace.pipeline.services import Services
from headrace.types import Role

RERANK = ("/v1/rerank", "/rerank", "/v2/rerank")
TEXTS = ["Dogs bark.", "Market opening hours", "hours"]


async def embed(client: httpx.AsyncClient, **body: object) -> httpx.Response:
    return await client.post("/v1/embeddings", json={"model": "echo-embedder", **body})


async def test_embeddings_of_one_and_of_several_texts(
    client: httpx.AsyncClient, services: Services
) -> None:
    one = (await embed(client, input="market hours")).json()
    assert one["object"] == "list"
    assert one["model"] == "echo-embedder"
    assert one["usage"] == {"prompt_tokens": 2, "total_tokens": 2}
    several = (await embed(client, input=["market hours", "dogs"])).json()
    assert [item["index"] for item in several["data"]] == [0, 1]
    assert several["data"][0]["embedding"] == one["data"][0]["embedding"]
    expected = await services.models.embed("echo-embedder", ["market hours"], "passage")
    assert np.array_equal(np.float32(one["data"][0]["embedding"]), expected[0])


async def test_base64_is_the_same_vector(client: httpx.AsyncClient) -> None:
    plain = (await embed(client, input="dogs")).json()["data"][0]["embedding"]
    coded = (await embed(client, input="dogs", encoding_format="base64")).json()
    raw = base64.b64decode(coded["data"][0]["embedding"])
    assert np.array_equal(np.frombuffer(raw, "<f4"), np.float32(plain))


@pytest.mark.parametrize(
    ("body", "status", "param"),
    [
        ({"input": []}, 422, "input"),
        ({"input": ""}, 422, "input"),
        ({"input": ["a", " "]}, 422, "input"),
        ({"input": [1, 2, 3]}, 422, "input"),
        ({"input": [[1, 2], [3]]}, 422, "input"),
        ({"input": None}, 422, "input"),
        ({"input": ["x"] * 2049}, 422, "input"),
        ({"input": "x", "dimensions": 3}, 400, "dimensions"),
        ({"input": "x", "dimensions": 0}, 422, "dimensions"),
        ({"input": "x", "dimensions": 10**30}, 422, "dimensions"),
        ({"input": "x", "encoding_format": "hex"}, 422, "encoding_format"),
        ({"input": "x", "input_type": "title"}, 422, "input_type"),
        ({"input": "x", "model": "nobody"}, 404, "model"),
        ({"input": "x", "model": "echo-generator"}, 400, "model"),
    ],
)
async def test_wrong_embedding_requests(
    client: httpx.AsyncClient, body: dict[str, object], status: int, param: str
) -> None:
    response = await embed(client, **body)
    error = response.json()["error"]
    assert (response.status_code, error["param"]) == (status, param), error


async def test_own_dimensions_are_accepted(client: httpx.AsyncClient) -> None:
    response = await embed(client, input="x", dimensions=64, input_type="query")
    assert response.status_code == 200


@pytest.mark.parametrize("route", RERANK)
@pytest.mark.parametrize("form", [str, lambda text: {"text": text}])
async def test_documents_get_results_best_first(
    client: httpx.AsyncClient, route: str, form: Any
) -> None:
    body = {
        "model": "echo-reranker",
        "query": "market hours",
        "documents": [form(text) for text in TEXTS],
        "top_n": 2,
    }
    found = (await client.post(route, json=body)).json()
    assert [result["index"] for result in found["results"]] == [1, 2]
    scores = [result["relevance_score"] for result in found["results"]]
    assert scores == sorted(scores, reverse=True)
    assert found["meta"]["api_version"]["version"] == ("2" if route.startswith("/v2") else "1")
    assert found["usage"]["total_tokens"] > 0


async def test_documents_are_returned_when_asked(client: httpx.AsyncClient) -> None:
    body: dict[str, Any] = {"query": "market hours", "documents": TEXTS}
    silent = (await client.post("/v1/rerank", json=body)).json()
    assert all("document" not in result for result in silent["results"])
    body["return_documents"] = True
    spoken = (await client.post("/v1/rerank", json=body)).json()
    assert spoken["results"][0]["document"] == {"text": TEXTS[1]}


@pytest.mark.parametrize("route", RERANK)
async def test_texts_get_a_bare_list(client: httpx.AsyncClient, route: str) -> None:
    body = {"query": "market hours", "texts": TEXTS, "raw_scores": False, "return_text": True}
    found = (await client.post(route, json=body)).json()
    assert [entry["index"] for entry in found] == [1, 2, 0]
    assert found[0]["text"] == TEXTS[1]
    assert set(found[0]) == {"index", "score", "text"}


@pytest.mark.parametrize(
    ("body", "status", "param"),
    [
        ({"documents": ["a"], "texts": ["a"]}, 422, "body"),
        ({}, 422, "body"),
        ({"documents": []}, 422, "documents"),
        ({"documents": ["a", 5]}, 422, "documents.1"),
        ({"documents": [{"title": "a"}]}, 422, "documents.0"),
        ({"documents": ["a"], "top_n": 0}, 422, "top_n"),
        ({"documents": ["a"], "model": "nobody"}, 404, "model"),
        ({"documents": ["a"], "model": "echo-embedder"}, 400, "model"),
        ({"documents": ["a"], "query": ""}, 422, "query"),
    ],
)
async def test_wrong_rerank_requests(
    client: httpx.AsyncClient, body: dict[str, object], status: int, param: str
) -> None:
    response = await client.post("/v1/rerank", json={"query": "x", **body})
    error = response.json()["error"]
    assert (response.status_code, error["param"]) == (status, param), error


async def test_reranking_without_a_reranker_is_not_found(services: Services) -> None:
    models = {
        name: model
        for name, model in services.config.models.items()
        if model.role is not Role.RERANKER
    }
    config = services.config.model_copy(update={"models": models})
    async with connect(replace(services, config=config)) as client:
        response = await client.post("/rerank", json={"query": "x", "texts": ["a"]})
    assert response.status_code == 404
    assert "reranker" in response.json()["error"]["message"]


async def test_all_models_are_listed(client: httpx.AsyncClient) -> None:
    listed = (await client.get("/v1/models")).json()
    roles = {entry["id"]: entry["headrace"]["role"] for entry in listed["data"]}
    assert roles["headrace/town"] == "collection"
    assert roles["echo-generator"] == "generator"
    assert roles["echo-embedder"] == "embedder"
    assert roles["echo-reranker"] == "reranker"
    for name in roles:
        assert (await client.get(f"/v1/models/{name}")).json()["id"] == name


async def test_unknown_model_is_not_found(client: httpx.AsyncClient) -> None:
    response = await client.get("/v1/models/headrace/nowhere")
    assert response.status_code == 404
    assert "headrace/town" in response.json()["error"]["message"]
