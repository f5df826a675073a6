from __future__ import annotations

import json
from typing import Any

import httpx
import pytest

CHAT = "/v1/chat/completions"
Body = dict[str, Any]


def ask(content: object, **more: object) -> Body:
    return {
        "model": "echo-generator",
        "messages": [{"role": "user", "content": content}],
        "temperature": 0,
        **more,
    }


def chunks(response: httpx.Response) -> list[Any]:
    assert response.headers["content-type"].startswith("text/event-stream")
    lines = [line for line in response.text.split("\n\n") if line]
    assert lines[-1] == "data: [DONE]"
    return [json.loads(line.removeprefix("data: ")) for line in lines[:-1]]


async def test_plain_chat_has_real_usage_and_reason(client: httpx.AsyncClient) -> None:
    response = await client.post(CHAT, json=ask("say three words"))
    body = response.json()
    assert response.status_code == 200, body
    assert body["object"] == "chat.completion"
    assert body["choices"] == [
        {
            "index": 0,
            "message": {"role": "assistant", "content": "say three words"},
            "finish_reason": "stop",
            "logprobs": None,
        }
    ]
    assert body["usage"] == {"prompt_tokens": 3, "completion_tokens": 3, "total_tokens": 6}


@pytest.mark.parametrize("field", ["max_tokens", "max_completion_tokens"])
async def test_token_cap_ends_with_length(client: httpx.AsyncClient, field: str) -> None:
    body = (await client.post(CHAT, json=ask("one two three", **{field: 2}))).json()
    assert body["choices"][0]["message"]["content"] == "one two"
    assert body["choices"][0]["finish_reason"] == "length"
    assert body["usage"]["completion_tokens"] == 2


async def test_stop_sequences_are_passed_on(client: httpx.AsyncClient) -> None:
    for stop in ("three", ["three", "nine"]):
        body = (await client.post(CHAT, json=ask("one two three", stop=stop))).json()
        assert body["choices"][0]["message"]["content"].strip() == "one two"


async def test_text_parts_are_joined(client: httpx.AsyncClient) -> None:
    parts = [{"type": "text", "text": "first"}, {"type": "text", "text": "second"}]
    body = (await client.post(CHAT, json=ask(parts))).json()
    assert body["choices"][0]["message"]["content"].split() == ["first", "second"]


async def test_stream_of_plain_chat(client: httpx.AsyncClient) -> None:
    response = await client.post(
        CHAT, json=ask("one two", stream=True, stream_options={"include_usage": True})
    )
    found = chunks(response)
    assert {chunk["object"] for chunk in found} == {"chat.completion.chunk"}
    assert len({chunk["id"] for chunk in found}) == 1
    deltas = [chunk["choices"][0]["delta"] for chunk in found[:-1]]
    assert deltas[0] == {"role": "assistant", "content": ""}
    assert "".join(delta.get("content", "") for delta in deltas) == "one two"
    reasons = [chunk["choices"][0]["finish_reason"] for chunk in found[:-1]]
    assert reasons == [None] * (len(reasons) - 1) + ["stop"]
    assert found[-1]["choices"] == []
    assert found[-1]["usage"] == {"prompt_tokens": 2, "completion_tokens": 2, "total_tokens": 4}


async def test_usage_chunk_only_when_asked(client: httpx.AsyncClient) -> None:
    found = chunks(await client.post(CHAT, json=ask("one", stream=True)))
    assert all(chunk["choices"] and "usage" not in chunk for chunk in found)


@pytest.mark.parametrize(
    ("more", "status", "param"),
    [
        ({"model": "nobody"}, 404, "model"),
        ({"model": "echo-embedder"}, 400, "model"),
        ({"model": "headrace/nowhere"}, 404, "collection"),
        ({"model": "headrace/../../etc"}, 404, "collection"),
        ({"model": "headrace/"}, 404, "collection"),
        ({"model": 7}, 422, "model"),
        ({"messages": []}, 422, "messages"),
        ({"messages": "hello"}, 422, "messages.0"),
        ({"messages": [{"role": "tool", "content": "x"}]}, 422, "messages.0.role"),
        ({"messages": [{"role": "user"}]}, 422, "messages.0.content"),
        ({"messages": [{"role": "user", "content": None}]}, 422, "messages.0.content"),
        ({"max_tokens": -1}, 422, "max_tokens"),
        ({"max_tokens": 0}, 422, "max_tokens"),
        ({"max_tokens": 10**30}, 422, "max_tokens"),
        ({"max_completion_tokens": 2**31}, 422, "max_completion_tokens"),
        ({"max_tokens": "5"}, 422, "max_tokens"),
        ({"temperature": 3}, 422, "temperature"),
        ({"top_p": 0}, 422, "top_p"),
        ({"stop": 5}, 422, "stop"),
        ({"temprature": 0.5}, 422, "temprature"),
        ({"n": 2}, 400, "n"),
        ({"tools": [{"type": "function"}]}, 400, "tools"),
        ({"logprobs": True}, 400, "logprobs"),
        ({"presence_penalty": 0.5}, 400, "presence_penalty"),
        ({"logit_bias": {"1": 2}}, 400, "logit_bias"),
        ({"response_format": {"type": "xml"}}, 400, "response_format"),
        ({"response_format": {"type": "json_schema"}}, 400, "response_format"),
        ({"headrace": {"verification": "strict"}}, 400, "headrace"),
        ({"headrace": {"hits": -1}}, 422, "headrace.hits"),
        ({"headrace": {"accss": ["x"]}}, 422, "headrace.accss"),
    ],
)
async def test_wrong_requests_name_the_field(
    client: httpx.AsyncClient, more: Body, status: int, param: str
) -> None:
    response = await client.post(CHAT, json={**ask("hello"), **more})
    error = response.json()["error"]
    assert (response.status_code, error["param"]) == (status, param), error
    assert error["type"] == "invalid_request_error"
    assert error["code"]


async def test_images_are_refused_clearly(client: httpx.AsyncClient) -> None:
    image = {"type": "image_url", "image_url": {"url": "data:image/png;base64,AAAA"}}
    response = await client.post(CHAT, json=ask([{"type": "text", "text": "what?"}, image]))
    assert response.status_code == 422
    error = response.json()["error"]
    assert error["param"] == "messages.0.content"
    assert "image_url" in error["message"]
    assert "only text" in error["message"]


async def test_harmless_and_neutral_fields_are_accepted(client: httpx.AsyncClient) -> None:
    more: Body = {
        "user": "u-1",
        "metadata": {"a": "b"},
        "store": False,
        "n": 1,
        "tools": [],
        "logprobs": False,
        "presence_penalty": 0,
        "response_format": {"type": "text"},
        "seed": 7,
        "top_p": 1,
        "stream": False,
    }
    response = await client.post(CHAT, json=ask("hello", **more))
    assert response.status_code == 200, response.text


async def test_unknown_model_lists_the_known_ones(client: httpx.AsyncClient) -> None:
    error = (await client.post(CHAT, json=ask("x", model="gpt-5"))).json()["error"]
    assert error["code"] == "model_not_found"
    assert "echo-generator" in error["message"]
    assert "headrace/town" in error["message"]


async def test_prompt_that_is_too_long(client: httpx.AsyncClient) -> None:
    for stream in (False, True):
        response = await client.post(CHAT, json=ask("word " * 9000, stream=stream))
        error = response.json()["error"]
        assert response.status_code == 400
        assert (error["code"], error["param"]) == ("context_length_exceeded", "messages")


@pytest.mark.parametrize(
    ("content", "kind", "status"),
    [
        (b'{"model": ', "application/json", 400),
        (b"\xff\xfe", "application/json", 400),
        (b'{"model": "\xff"}', "application/json", 400),
        (b"[" * 100_000, "application/json", 400),
        (b'{"seed": ' + b"9" * 5000 + b"}", "application/json", 400),
        (b"[1, 2]", "application/json", 422),
        (b"null", "application/json", 422),
        (b'"text"', "application/json", 422),
        (b"", "application/json", 422),
        (b'{"model": "echo-generator"}', "text/plain", 422),
        (b'{"model": "echo-generator", "messages": [], "x": NaN}', "application/json", 422),
    ],
)
async def test_bodies_that_are_not_what_they_should_be(
    client: httpx.AsyncClient, content: bytes, kind: str, status: int
) -> None:
    response = await client.post(CHAT, content=content, headers={"content-type": kind})
    assert response.status_code == status, response.text
    assert response.json()["error"]["message"]


async def test_lone_surrogates_are_refused_not_crashed_on(client: httpx.AsyncClient) -> None:
    body = json.dumps(ask("\ud800")).encode()
    response = await client.post(CHAT, content=body, headers={"content-type": "application/json"})
    assert response.status_code in (400, 422)
    model = json.dumps(ask("x", model="\ud800")).encode()
    response = await client.post(CHAT, content=model, headers={"content-type": "application/json"})
    assert response.status_code in (400, 404, 422)
