"""OpenAI's chat format: from its requests to ours, and from our events to its answers."""

from __future__ import annotations

import asyncio
import time
import uuid
from collections.abc import AsyncGenerator
from contextlib import aclosing
from dataclasses import dataclass, field
from typing import Literal

import msgspec

from headrace.errors import BadRequest, HeadraceError, Overloaded, by_code
from headrace.http.auth import Caller
from headrace.http.calls import Bound
from headrace.http.context import Context, encode
from headrace.http.requests import (
    UNSUPPORTED,
    AnswerSettings,
    ChatMessage,
    ChatRequest,
    Narrowing,
)
from headrace.http.responses import (
    ChatAnswer,
    ChatChoice,
    ChatChunk,
    ChatCompletion,
    ChatUsage,
    ChunkChoice,
    ChunkDelta,
    Extension,
    UnsupportedSentence,
)
from headrace.http.sse import event
from headrace.pipeline.cache import cached
from headrace.pipeline.plan import AnswerRequest
from headrace.types import (
    Call,
    Conflict,
    ConflictEvent,
    DeltaEvent,
    DoneEvent,
    ErrorEvent,
    Event,
    Filter,
    FinishReason,
    GenerateParams,
    Hit,
    HitsEvent,
    HopEvent,
    Message,
    Quote,
    QuoteEvent,
    Refused,
    RefusedEvent,
    UnsupportedEvent,
    Usage,
)

COLLECTION_PREFIX = "headrace/"
DONE = event(b"[DONE]")


def refuse_unsupported(body: ChatRequest) -> None:
    """Raises `BadRequest` with the name of a field that would change the answer."""
    for name, neutral in UNSUPPORTED.items():
        value = getattr(body, name)
        if value is not None and value not in neutral:
            raise BadRequest(f"{name}: not supported; leave it out", field=name)


def where(narrowing: Narrowing, caller: Caller) -> Filter:
    """What a request may look at: never more than its caller."""
    return Filter(
        access=caller.narrow(narrowing.access),
        metadata=dict(narrowing.metadata),
        documents=narrowing.documents,
    )


def messages_of(turns: tuple[ChatMessage, ...]) -> tuple[Message, ...]:
    return tuple(
        Message("system" if turn.role == "developer" else turn.role, turn.content) for turn in turns
    )


def answer_request(body: ChatRequest, bound: Bound) -> AnswerRequest:
    """A conversation as a question with its history. Raises `BadRequest`."""
    if body.response_format not in (None, {"type": "text"}):
        raise BadRequest(
            "response_format: answers from a collection are text; use a generator's own name",
            field="response_format",
        )
    *history, last = messages_of(body.messages)
    if last.role != "user":
        raise BadRequest("the last message must be the user's question", field="messages")
    settings = body.headrace or AnswerSettings()
    return AnswerRequest(
        collection=body.model.removeprefix(COLLECTION_PREFIX),
        question=last.content,
        where=where(settings, bound.caller),
        history=tuple(history),
        generate=settings.generate,
        generator=settings.generator,
        effort=settings.effort,
        verification=settings.verification,
        hits=settings.hits,
        max_tokens=body.cap,
        max_quotes=settings.max_quotes,
        cache=settings.cache,
        temperature=body.temperature or 0.0,
        top_p=body.top_p,
        seed=body.seed,
        stop=body.stop or (),
        call=bound.call,
    )


def generate_params(body: ChatRequest) -> GenerateParams:
    """Raises `BadRequest` for settings of cited answers, and for an unknown response format."""
    if body.headrace is not None:
        raise BadRequest(
            f"headrace: only for models named {COLLECTION_PREFIX}COLLECTION", field="headrace"
        )
    default = GenerateParams()
    return GenerateParams(
        max_tokens=body.cap or default.max_tokens,
        temperature=1.0 if body.temperature is None else body.temperature,
        top_p=body.top_p,
        seed=body.seed,
        stop=body.stop or (),
        json_schema=_json_schema(body),
    )


def _json_schema(body: ChatRequest) -> str | None:
    form = body.response_format or {"type": "text"}
    if form.get("type") == "text":
        return None
    if form.get("type") == "json_object":
        return '{"type":"object"}'
    wrapper = form.get("json_schema")
    schema = wrapper.get("schema") if isinstance(wrapper, dict) else None
    if form.get("type") != "json_schema" or not isinstance(schema, dict):
        raise BadRequest(
            'response_format: give {"type": "json_schema", "json_schema": {"name": ..., '
            '"schema": {...}}}, "json_object" or "text"',
            field="response_format",
        )
    try:
        return msgspec.json.encode(schema).decode()
    except UnicodeEncodeError as error:
        raise BadRequest(
            "response_format: the schema holds half a surrogate pair", field="response_format"
        ) from error


async def cited(context: Context, request: AnswerRequest) -> AsyncGenerator[Event, None]:
    """The pipeline's events, counted in the metrics as they pass."""
    outcome = "failed"
    try:
        async with aclosing(cached(context.services, request)) as events:
            async for item in events:
                if isinstance(item, UnsupportedEvent):
                    context.metrics.sentences_unsupported.inc()
                elif isinstance(item, DoneEvent):
                    outcome = "refused" if item.refusal else "answered"
                    for stage, ms in item.timings.items():
                        context.metrics.stage_seconds.labels(stage).observe(ms / 1000)
                yield item
    except (asyncio.CancelledError, GeneratorExit):
        outcome = "cancelled"
        raise
    finally:
        context.metrics.answers.labels(outcome).inc()


def error_of(item: ErrorEvent) -> HeadraceError:
    error = by_code(item.code, item.message)
    if isinstance(error, Overloaded) and item.retry_after is not None:
        error.retry_after = item.retry_after
    return error


@dataclass
class Collected:
    """An answer so far, from its events."""

    text: list[str] = field(default_factory=list)
    quotes: list[Quote] = field(default_factory=list)
    unsupported: list[UnsupportedSentence] = field(default_factory=list)
    hits: tuple[Hit, ...] = ()
    hops: list[HopEvent] = field(default_factory=list)
    refused: Refused | None = None
    conflicts: list[Conflict] = field(default_factory=list)
    done: DoneEvent | None = None

    def add(self, item: Event) -> None:
        """Raises the error that an `ErrorEvent` carries."""
        match item:
            case DeltaEvent():
                self.text.append(item.text)
            case QuoteEvent():
                self.quotes.append(item.quote)
            case UnsupportedEvent():
                self.unsupported.append(UnsupportedSentence(item.text, item.reason, item.span))
            case HitsEvent():
                self.hits = item.hits
            case HopEvent():
                self.hops.append(item)
            case RefusedEvent():
                self.refused = item.refused
            case ConflictEvent():
                self.conflicts.append(item.conflict)
            case DoneEvent():
                self.done = item
            case ErrorEvent():
                raise error_of(item)

    def extension(self) -> Extension:
        assert self.done is not None, "the pipeline ends with a DoneEvent or an ErrorEvent"
        return Extension(
            quotes=tuple(self.quotes),
            unsupported=tuple(self.unsupported),
            refusal=self.done.refusal,
            hits=self.hits,
            hops=tuple(self.hops),
            timings=self.done.timings,
            skipped=self.done.skipped,
            config_version=self.done.config_version,
            generation=self.done.generation,
            refused=self.refused,
            conflicts=tuple(self.conflicts),
            cached=self.done.cached,
        )


def _usage(usage: Usage) -> ChatUsage:
    return ChatUsage(usage.prompt_tokens, usage.completion_tokens, usage.total_tokens)


class Completion:
    """The identity that all chunks of one completion share, and how it is written."""

    def __init__(self, context: Context, body: ChatRequest) -> None:
        self._context = context
        self._body = body
        self._id = f"chatcmpl-{uuid.uuid4().hex}"
        self._created = int(time.time())
        self._version = context.services.config_version
        options = body.stream_options
        self._with_usage = options is not None and options.include_usage

    def _whole(
        self, text: str, reason: FinishReason, usage: Usage, extension: Extension | None
    ) -> ChatCompletion:
        choice = ChatChoice(0, ChatAnswer("assistant", text, extension), _reason(reason))
        return ChatCompletion(
            id=self._id,
            object="chat.completion",
            created=self._created,
            model=self._body.model,
            choices=(choice,),
            usage=_usage(usage),
            system_fingerprint=self._version,
        )

    def _chunk(
        self,
        *choices: ChunkChoice,
        usage: Usage | None = None,
        extension: Extension | None = None,
    ) -> bytes:
        chunk = ChatChunk(
            id=self._id,
            object="chat.completion.chunk",
            created=self._created,
            model=self._body.model,
            choices=choices,
            system_fingerprint=self._version,
            usage=None if usage is None else _usage(usage),
            headrace=extension,
        )
        return event(encode(chunk))

    def _role(self) -> bytes:
        return self._chunk(ChunkChoice(0, ChunkDelta(role="assistant", content="")))

    def _text(self, text: str) -> bytes:
        return self._chunk(ChunkChoice(0, ChunkDelta(content=text)))

    def _end(self, reason: FinishReason, usage: Usage, extension: Extension | None = None) -> bytes:
        last = self._chunk(ChunkChoice(0, ChunkDelta(), _reason(reason)), extension=extension)
        return last + (self._chunk(usage=usage) if self._with_usage else b"") + DONE

    async def cited(self, request: AnswerRequest) -> ChatCompletion:
        """A whole answer from a collection."""
        collected = Collected()
        async with aclosing(cited(self._context, request)) as events:
            async for item in events:
                collected.add(item)
        extension = collected.extension()
        assert collected.done is not None
        text, done = "".join(collected.text), collected.done
        return self._whole(text, done.finish_reason, done.usage, extension)

    async def cited_chunks(self, request: AnswerRequest) -> AsyncGenerator[bytes, None]:
        """The same as a stream. Nothing is sent before the hits are known, so that an error until
        then has its own status."""
        collected = Collected()
        async with aclosing(cited(self._context, request)) as events:
            async for item in events:
                collected.add(item)
                if isinstance(item, HitsEvent):
                    yield self._role()
                elif isinstance(item, DeltaEvent):
                    yield self._text(item.text)
        extension = collected.extension()
        assert collected.done is not None
        yield self._end(collected.done.finish_reason, collected.done.usage, extension)

    async def plain(self, params: GenerateParams, call: Call) -> ChatCompletion:
        """A whole answer of a generator."""
        texts: list[str] = []
        reason, usage = _UNFINISHED
        generated = self._context.services.models.generate(
            self._body.model, messages_of(self._body.messages), params, call=call
        )
        async with aclosing(generated) as deltas:
            async for delta in deltas:
                texts.append(delta.text)
                if delta.finish_reason is not None:
                    reason, usage = delta.finish_reason, delta.usage or Usage()
        return self._whole("".join(texts), reason, usage, None)

    async def plain_chunks(self, params: GenerateParams, call: Call) -> AsyncGenerator[bytes, None]:
        """The same as a stream."""
        reason, usage = _UNFINISHED
        begun = False
        generated = self._context.services.models.generate(
            self._body.model, messages_of(self._body.messages), params, call=call
        )
        async with aclosing(generated) as deltas:
            async for delta in deltas:
                if not begun:
                    begun = True
                    yield self._role()
                if delta.text:
                    yield self._text(delta.text)
                if delta.finish_reason is not None:
                    reason, usage = delta.finish_reason, delta.usage or Usage()
        yield self._end(reason, usage)


_UNFINISHED: tuple[FinishReason, Usage] = ("cancelled", Usage())


def _reason(reason: FinishReason) -> Literal["stop", "length"]:
    """OpenAI has no word for an answer that was cut off from outside; `length` says "cut off"."""
    return "length" if reason == "cancelled" else reason
