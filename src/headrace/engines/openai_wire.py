"""OpenAI's chat protocol from the caller's side: request bodies, streams, errors. Used for remote
models and for llama.cpp's own server behind its Unix socket."""

from __future__ import annotations

import json
from collections.abc import AsyncGenerator, AsyncIterator, Callable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from typing import Any

import httpx
import msgspec

from headrace.errors import (
    BadRequest,
    HeadraceError,
    ModelFailed,
    Overloaded,
    PromptTooLong,
    UpstreamError,
)
from headrace.types import Delta, FinishReason, GenerateParams, Message, Usage

_EXCERPT = 300
_BODY_LIMIT = 64 << 10
_TOO_LONG = ("context_length_exceeded", "exceed_context_size", "maximum context length")


@dataclass(frozen=True)
class Peer:
    """Who answers, for messages; `local` is our own child, whose refusals are the caller's fault
    and whose failures are a failed model. `secret` is blotted out of what it says."""

    name: str
    local: bool = False
    secret: str = ""

    def failure(self, why: str) -> HeadraceError:
        message = f"{self.name}: {why}"
        if self.secret:
            message = message.replace(self.secret, "***")
        return ModelFailed(message) if self.local else UpstreamError(message)

    def refusal(self, status: int, body: str, headers: Mapping[str, str]) -> HeadraceError:
        """The error for an answer that is not a success."""
        said = " ".join(_message(body).split())[:_EXCERPT]
        error = self.failure(f"answers {status}: {said}" if said else f"answers {status}")
        if status == 429:
            return Overloaded(error.message, retry_after=_seconds(headers.get("retry-after")))
        if status in (400, 413, 422) and any(mark in body for mark in _TOO_LONG):
            message = error.message.removesuffix(", try increasing it")  # not the caller's to do
            return PromptTooLong(message, field="messages")
        if status in (400, 422) and self.local:
            return BadRequest(error.message)
        return error

    def unreachable(self, error: httpx.HTTPError | httpx.InvalidURL) -> HeadraceError:
        if isinstance(error, httpx.ReadTimeout):
            return self.failure("says nothing for longer than `timeout_seconds`")
        return self.failure(f"cannot be reached: {error or type(error).__name__}")


def chat_body(model: str, messages: Sequence[Message], params: GenerateParams) -> dict[str, Any]:
    """The body of `POST /chat/completions` for a stream. Raises `BadRequest` for a JSON schema
    that is no JSON."""
    body: dict[str, Any] = {
        "model": model,
        "messages": [{"role": m.role, "content": m.content} for m in messages],
        "max_tokens": params.max_tokens,
        "temperature": params.temperature,
        "stream": True,
        "stream_options": {"include_usage": True},
    }
    if params.top_p is not None:
        body["top_p"] = params.top_p
    if params.seed is not None:
        body["seed"] = params.seed
    if params.stop:
        body["stop"] = list(params.stop)
    if params.json_schema is not None:
        try:
            schema = json.loads(params.json_schema)
        except ValueError as error:
            raise BadRequest(
                f"the JSON schema is not JSON: {error}", field="response_format"
            ) from error
        wrapped = {"name": "answer", "schema": schema, "strict": True}
        body["response_format"] = {"type": "json_schema", "json_schema": wrapped}
    return body


async def stream_chat(
    client: httpx.AsyncClient,
    url: str,
    body: Mapping[str, Any],
    peer: Peer,
    step: Callable[[], None],
) -> AsyncGenerator[Delta]:
    """Deltas of one answer; the last has the finish reason and the usage (zeros where the peer
    reports none). Leaving the iterator closes the connection, which ends the work there. `step`
    is called with every event, also with those that bring no text."""
    reason: FinishReason | None = None
    usage = Usage()
    try:
        async with client.stream("POST", url, json=body) as response:
            if response.status_code != 200:
                text = await _limited(response)
                raise peer.refusal(response.status_code, text, response.headers)
            async for data in _events(response.aiter_lines()):
                if data == "[DONE]":
                    reason = reason or "stop"
                    break
                step()
                chunk = _decode(data, peer)
                usage = _usage(chunk) or usage
                for choice in (chunk.get("choices") or [])[:1]:
                    content = (choice.get("delta") or {}).get("content")
                    if content:
                        yield Delta(text=content)
                    reason = _reason(choice.get("finish_reason")) or reason
    except (httpx.HTTPError, httpx.InvalidURL) as error:
        raise peer.unreachable(error) from error
    except (AttributeError, TypeError) as error:
        raise peer.failure(f"sends something that is not a chat completion: {error}") from error
    if reason is None:
        raise peer.failure("broke off in the middle of the answer")
    yield Delta(finish_reason=reason, usage=usage)


async def _events(lines: AsyncIterator[str]) -> AsyncIterator[str]:
    """The data of server-sent events; comments and other fields are dropped."""
    data: list[str] = []
    async for line in lines:
        if line.startswith("data:"):
            data.append(line[5:].removeprefix(" "))
        elif not line and data:
            yield "\n".join(data)
            data = []
    if data:
        yield "\n".join(data)


def _decode(data: str, peer: Peer) -> dict[str, Any]:
    try:
        chunk: dict[str, Any] = msgspec.json.decode(data.encode(), type=dict[str, Any])
    except (msgspec.MsgspecError, UnicodeEncodeError) as error:
        raise peer.failure(f"sends an event that is not JSON: {data[:_EXCERPT]}") from error
    if "error" in chunk:
        said = chunk["error"]
        status = said.get("code") if isinstance(said, dict) else None
        raise peer.refusal(status if isinstance(status, int) else 500, data, {})
    return chunk


def _usage(chunk: Mapping[str, Any]) -> Usage | None:
    given = chunk.get("usage")
    if not given:
        return None
    return Usage(
        prompt_tokens=int(given.get("prompt_tokens") or 0),
        completion_tokens=int(given.get("completion_tokens") or 0),
    )


def _reason(given: str | None) -> FinishReason | None:
    if given is None:
        return None
    return "length" if given == "length" else "stop"


async def _limited(response: httpx.Response) -> str:
    """At most `_BODY_LIMIT` bytes of the body, as text."""
    parts: list[bytes] = []
    size = 0
    async for part in response.aiter_bytes():
        parts.append(part)
        size += len(part)
        if size >= _BODY_LIMIT:
            break
    return b"".join(parts)[:_BODY_LIMIT].decode("utf-8", "replace")


def _message(body: str) -> str:
    """The human part of an error body, in the shapes that servers use."""
    with suppress(ValueError):
        decoded = json.loads(body)
        if isinstance(decoded, dict):
            said = decoded.get("error") or decoded.get("message") or decoded.get("detail")
            if isinstance(said, dict):
                said = said.get("message")
            if isinstance(said, str):
                return said
    return body


def _seconds(retry_after: str | None) -> float:
    """Of a `Retry-After` header; one second where it is absent or a date."""
    with suppress(TypeError, ValueError):
        return min(max(float(retry_after or ""), 0.0), 3600.0)
    return 1.0
