"""Cited answers and search, in all the forms they are sent in."""

from __future__ import annotations

import json
from typing import Any

import httpx
import pytest
from http_app import connect

from headrace.pipeline.services import Services

QUESTION = "When does the weekly market open?"
OWNER = {"authorization": "Bearer owner-secret"}
READER = {"authorization": "Bearer reader-secret"}


def rag(**more: object) -> dict[str, Any]:
    return {"collection": "town", "question": QUESTION, **more}


def chat(question: str = QUESTION, **more: object) -> dict[str, Any]:
    return {
        "model": "headrace/town",
        "messages": [{"role": "user", "content": question}],
        **more,
    }


def events(response: httpx.Response) -> list[tuple[str, Any]]:
    assert response.status_code == 200, response.text
    found = []
    for block in response.text.split("\n\n"):
        if block and not block.startswith(":"):
            name, data = block.split("\n")
            found.append((name.removeprefix("event: "), json.loads(data.removeprefix("data: "))))
    return found


async def check_quote(client: httpx.AsyncClient, quote: Any) -> None:
    """The quote's text is the document's text over its span."""
    span = quote["span"]
    response = await client.get(
        f"/api/collections/town/documents/{quote['document_id']}", params=span
    )
    assert response.json()["text"] == quote["text"]


async def test_events_in_order_with_quotes_that_hold(client: httpx.AsyncClient) -> None:
    found = events(await client.post("/api/rag/chat", json=rag()))
    names = [name for name, _ in found]
    assert all(data["type"] == name for name, data in found)
    assert names[0] == "stage"
    assert names[-1] == "done"
    assert names.index("hits") < names.index("quote") < names.index("delta")
    for name, data in found:
        if name == "quote":
            await check_quote(client, data["quote"])
    text = "".join(data["text"] for name, data in found if name == "delta")
    assert "six in the morning" in text
    assert "[1]" in text
    done = found[-1][1]
    assert done["refusal"] is False
    assert done["config_version"] == "test-1"
    assert done["timings"]["total"] > 0


async def test_refusal_is_recognisable(client: httpx.AsyncClient) -> None:
    question = "Welche Farbe hat Quantenchromodynamik?"
    found = events(await client.post("/api/rag/chat", json=rag(question=question)))
    assert found[-1][1]["refusal"] is True
    (refused,) = (data["refused"] for name, data in found if name == "refused")
    assert refused["support"] < refused["threshold"]
    assert {hit["title"] for hit in refused["nearest"]} == {"Market rules"}
    body = (await client.post("/v1/chat/completions", json=chat(question))).json()
    extension = body["choices"][0]["message"]["headrace"]
    assert extension["refusal"] is True
    assert extension["refused"] == refused
    assert extension["quotes"] == []


async def test_an_answer_has_no_refusal_and_no_conflict(client: httpx.AsyncClient) -> None:
    found = events(await client.post("/api/rag/chat", json=rag()))
    assert not {"refused", "conflict"} & {name for name, _ in found}
    body = (await client.post("/v1/chat/completions", json=chat())).json()
    extension = body["choices"][0]["message"]["headrace"]
    assert extension["refused"] is None
    assert extension["conflicts"] == []


@pytest.mark.parametrize(
    ("body", "status", "param"),
    [
        ({"collection": "nowhere"}, 404, "collection"),
        ({"collection": "a/b"}, 404, "collection"),
        ({"question": ""}, 422, "question"),
        ({"question": "  "}, 400, "messages"),
        ({"question": "x" * 30_000}, 400, "messages"),
        ({"question": "狗" * 100_000}, 400, "messages"),
        ({"question": "？？！"}, 400, "messages"),
        ({"hits": 0}, 422, "hits"),
        ({"generator": "nobody"}, 404, "model"),
        ({"generate": "maybe"}, 422, "generate"),
        ({"access": "public", "metadata": {"a": 5}}, 422, "metadata.a"),
        ({"metadata": {str(n): "x" for n in range(3_000)}}, 422, "metadata"),
        ({"metadata": {"a": ["x"] * 101}}, 422, "metadata.a"),
        ({"documents": ["x"] * 10_001}, 422, "documents"),
        ({"access": ["x"] * 101}, 422, "access"),
    ],
)
async def test_wrong_questions_are_not_streams(
    client: httpx.AsyncClient, body: dict[str, object], status: int, param: str
) -> None:
    response = await client.post("/api/rag/chat", json=rag(**body))
    assert (response.status_code, response.json()["error"]["param"]) == (status, param)


async def test_a_filter_as_large_as_may_be_is_searched_with(client: httpx.AsyncClient) -> None:
    metadata = {str(n): [str(value) for value in range(100)] for n in range(100)}
    documents = [str(n) for n in range(10_000)]
    access = documents[:100]
    for settings in ({"metadata": metadata}, {"documents": documents}, {"access": access}):
        response = await client.post("/v1/chat/completions", json=chat(headrace=settings))
        assert response.json()["choices"][0]["message"]["headrace"]["hits"] == []


async def test_cited_completion_carries_the_extension(client: httpx.AsyncClient) -> None:
    body = (await client.post("/v1/chat/completions", json=chat())).json()
    choice = body["choices"][0]
    assert choice["finish_reason"] == "stop"
    assert "[1]" in choice["message"]["content"]
    assert body["usage"]["completion_tokens"] > 0
    extension = choice["message"]["headrace"]
    assert extension["quotes"][0]["number"] == 1
    for quote in extension["quotes"]:
        await check_quote(client, quote)
    assert {hit["source"].split("/")[-1] for hit in extension["hits"]} == {"markets.md"}
    assert extension["config_version"] == body["system_fingerprint"] == "test-1"
    assert any(entry.startswith("rerank") for entry in extension["skipped"])


async def test_cited_stream_says_the_same(client: httpx.AsyncClient) -> None:
    whole = (await client.post("/v1/chat/completions", json=chat())).json()["choices"][0]
    response = await client.post("/v1/chat/completions", json=chat(stream=True))
    lines = [line.removeprefix("data: ") for line in response.text.split("\n\n") if line]
    assert lines[-1] == "[DONE]"
    found = [json.loads(line) for line in lines[:-1]]
    text = "".join(chunk["choices"][0]["delta"].get("content", "") for chunk in found)
    assert text == whole["message"]["content"]
    assert found[-1]["choices"][0]["finish_reason"] == "stop"
    assert found[-1]["headrace"]["quotes"] == whole["message"]["headrace"]["quotes"]
    assert all("headrace" not in chunk for chunk in found[:-1])


async def test_quotations_alone_need_no_generator(client: httpx.AsyncClient) -> None:
    body = chat(headrace={"generate": "none", "max_quotes": 1})
    message = (await client.post("/v1/chat/completions", json=body)).json()["choices"][0]["message"]
    assert len(message["headrace"]["quotes"]) == 1
    assert message["headrace"]["quotes"][0]["text"] in message["content"]
    assert any("quotations alone" in entry for entry in message["headrace"]["skipped"])


@pytest.mark.parametrize(
    ("more", "param"),
    [
        ({"response_format": {"type": "json_object"}}, "response_format"),
        ({"messages": [{"role": "assistant", "content": "hello"}]}, "messages"),
        ({"messages": [{"role": "user", "content": "x" * 100_000}]}, "messages"),
        ({"messages": [{"role": "user", "content": " \n"}]}, "messages"),
        ({"messages": [{"role": "user", "content": "!?"}]}, "messages"),
    ],
)
async def test_wrong_cited_requests(
    client: httpx.AsyncClient, more: dict[str, object], param: str
) -> None:
    response = await client.post("/v1/chat/completions", json={**chat(), **more})
    assert (response.status_code, response.json()["error"]["param"]) == (400, param)


async def test_failing_model_has_its_status_before_and_an_event_after(
    services: Services,
) -> None:
    from dataclasses import replace

    class Broken:
        def __getattr__(self, name: str) -> object:
            return getattr(services.models, name)

        async def embed(self, *arguments: object, **options: object) -> object:
            from headrace.errors import ModelFailed

            raise ModelFailed("the worker died")

    async with connect(replace(services, models=Broken())) as client:  # type: ignore[arg-type]
        for stream in (False, True):
            response = await client.post("/v1/chat/completions", json=chat(stream=stream))
            assert response.status_code == 503
            assert response.json()["error"]["code"] == "model_failed"
        response = await client.post("/api/rag/chat", json=rag())
        assert response.status_code == 503
        assert response.json()["error"]["code"] == "model_failed"

    class Mute(Broken):
        embed = services.models.embed

        async def generate(self, *arguments: object, **options: object) -> object:
            from headrace.errors import ModelFailed

            raise ModelFailed("the worker died")
            yield

    async with connect(replace(services, models=Mute())) as client:  # type: ignore[arg-type]
        name, last = events(await client.post("/api/rag/chat", json=rag()))[-1]
    assert name == "error"
    assert (last["code"], last["message"]) == ("model_failed", "the worker died")


# Search ------------------------------------------------------------------------------------------


async def search(client: httpx.AsyncClient, **body: object) -> httpx.Response:
    return await client.post("/api/collections/town/search", json={"query": "market", **body})


async def test_search_gives_scores_per_stage_and_timings(client: httpx.AsyncClient) -> None:
    found = (await search(client, k=3)).json()
    assert found["collection"] == "town"
    assert found["hits"]
    for hit in found["hits"]:
        assert {"dense", "lexical", "fused"} & set(hit["scores"])
        await check_quote(client, hit)
    assert found["timings"]
    assert found["generation"] > 0


@pytest.mark.parametrize(
    ("body", "param"),
    [
        ({"k": -1}, "k"),
        ({"k": 0}, "k"),
        ({"k": "5"}, "k"),
        ({"k": 10**9}, "k"),
        ({"query": ""}, "query"),
        ({"query": ["a"]}, "query"),
        ({"query": "x" * 20_001}, "query"),
        ({"filter": {}}, "filter"),
    ],
)
async def test_wrong_searches_name_the_field(
    client: httpx.AsyncClient, body: dict[str, object], param: str
) -> None:
    response = await search(client, **body)
    assert (response.status_code, response.json()["error"]["param"]) == (422, param)


async def test_search_in_an_unknown_collection(client: httpx.AsyncClient) -> None:
    response = await client.post("/api/collections/nowhere/search", json={"query": "x"})
    assert response.status_code == 404
    assert "known: town" in response.json()["error"]["message"]


# Access ------------------------------------------------------------------------------------------


async def sources(client: httpx.AsyncClient, **body: object) -> set[str]:
    found = (await search(client, query="director salary francs", **body)).json()["hits"]
    return {hit["source"].split("/")[-1] for hit in found}


async def test_searches_find_what_the_key_may_read(keyed: Services) -> None:
    async with connect(keyed, **READER) as reader, connect(keyed, **OWNER) as owner:
        assert await sources(reader) == {"markets.md"}
        assert await sources(reader, access=["hr", "*"]) == {"markets.md"}
        assert await sources(reader, access=["hr"]) == set()
        assert await sources(reader, access=[]) == set()
        assert await sources(owner) == {"markets.md", "salaries.md"}
        assert await sources(owner, access=["hr"]) == {"salaries.md"}


async def test_answers_are_written_from_what_the_key_may_read(keyed: Services) -> None:
    body = chat("What does the director of the market earn?")
    async with connect(keyed, **READER) as reader, connect(keyed, **OWNER) as owner:
        for client, allowed in ((reader, False), (owner, True)):
            message = (await client.post("/v1/chat/completions", json=body)).json()["choices"][0]
            assert ("9,000" in json.dumps(message)) is allowed
        widened = {**body, "headrace": {"access": ["hr", "public"]}}
        response = await reader.post("/v1/chat/completions", json=widened)
        assert "9,000" not in response.text


async def test_the_trace_of_a_deep_answer_passes_through(client: httpx.AsyncClient) -> None:
    found = events(await client.post("/api/rag/chat", json=rag(effort="deep", generate="none")))
    names = [name for name, _ in found]
    assert names.index("hop") < names.index("hits")
    first = next(data for name, data in found if name == "hop")
    assert first["number"] == 1
    assert first["decision"]
    assert first["sought"][0]["text"] == QUESTION
    assert first["sought"][0]["found"]

    settings = {"effort": "deep", "generate": "none"}
    body = (await client.post("/v1/chat/completions", json=chat(headrace=settings))).json()
    hops = body["choices"][0]["message"]["headrace"]["hops"]
    assert [hop["number"] for hop in hops] == [data["number"] for n, data in found if n == "hop"]


async def test_an_unknown_effort_is_refused_by_name(client: httpx.AsyncClient) -> None:
    response = await client.post("/api/rag/chat", json=rag(effort="heroic"))
    assert (response.status_code, response.json()["error"]["param"]) == (422, "effort")


async def test_a_greeting_is_answered_in_every_form(client: httpx.AsyncClient) -> None:
    for stream in (False, True):
        response = await client.post("/v1/chat/completions", json=chat("Hello!", stream=stream))
        assert response.status_code == 200
        assert "Ask me about the documents" in response.text
        assert '"refusal":false' in response.text
