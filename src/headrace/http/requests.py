"""Request bodies. Unknown fields are refused by name: a misspelt option must not be ignored.

What OpenAI's own clients may send and no answer depends on is listed and accepted; what would
change the answer and is not supported is listed and refused, unless it has its neutral value
(`UNSUPPORTED`).
"""

from __future__ import annotations

from typing import Annotated, Any, Literal

from pydantic import (
    BaseModel,
    BeforeValidator,
    ConfigDict,
    Field,
    WithJsonSchema,
    model_validator,
)

from headrace.types import Verification

Text = Annotated[str, Field(max_length=2**30)]
"""Text with no limit of its own (bodies have one). Having a limit makes pydantic refuse what is
not Unicode: JSON can hold halves of surrogate pairs."""

Label = Annotated[str, Field(min_length=1, max_length=64)]
Texts = Annotated[tuple[Text, ...], Field(max_length=2048)]


MOST = 2**31 - 1
"""The largest of numbers without a limit of their own: engines count in 32 bits."""


MOST_KEYS, MOST_VALUES, MOST_DOCUMENTS = 100, 100, 10_000
"""Keys of a filter by metadata, values (or labels) for one, documents: SQLite takes conditions to a
depth of 1,000, and 32,766 values."""


class Body(BaseModel):
    """Base of all bodies. Values are not coerced: `"5"` is not a number."""

    model_config = ConfigDict(extra="forbid", frozen=True, strict=True)


def _listed(value: object) -> object:
    """JSON arrays as tuples (strict pydantic wants them exact), one string as a list of one."""
    if isinstance(value, str):
        return (value,)
    return tuple(value) if isinstance(value, list) else value


def _listed_values(value: object) -> object:
    if isinstance(value, dict):
        return {key: _listed(item) for key, item in value.items()}
    return value


Strings = Annotated[tuple[Text, ...], BeforeValidator(_listed)]
OneOrMore = WithJsonSchema(
    {"anyOf": [{"type": "string"}, {"type": "array", "items": {"type": "string"}}]}
)


class Asking(Body):
    """What every request to models may say; the headers `X-Deadline-Ms` and `X-Session` say the
    same."""

    deadline_ms: int | None = Field(
        None,
        ge=1,
        le=MOST,
        description="Milliseconds from the request's arrival to the end of its answer; of two "
        "deadlines the smaller counts.",
    )
    session: Text | None = Field(
        None, description="Id of the session that this request belongs to."
    )


class Narrowing(Body):
    """What a search may look at, within what the caller may read."""

    access: Annotated[tuple[Label, ...], BeforeValidator(_listed)] | None = Field(
        None,
        max_length=MOST_VALUES,
        description="Labels to narrow the caller's own access set to. It can never be widened.",
        examples=[["public"]],
    )
    metadata: Annotated[
        dict[Text, Annotated[Strings, Field(max_length=MOST_VALUES)]],
        BeforeValidator(_listed_values),
        WithJsonSchema(
            {
                "type": "object",
                "additionalProperties": {
                    "anyOf": [{"type": "string"}, {"type": "array", "items": {"type": "string"}}]
                },
            }
        ),
    ] = Field(
        {},
        max_length=MOST_KEYS,
        description="Only documents whose metadata have one of the values, for every key.",
        examples=[{"lang": ["en", "zh"]}],
    )
    documents: Strings = Field(
        (), max_length=MOST_DOCUMENTS, description="Only these documents (ids)."
    )


class AnswerSettings(Narrowing):
    """How to answer from a collection; what is left out comes from the configuration."""

    generate: Literal["auto", "none"] | None = Field(
        None, description="`none`: an answer made of quotations alone, without a generator."
    )
    generator: Text | None = Field(None, description="Generator model to write with.")
    effort: Literal["fast", "balanced", "deep", "auto"] | None = Field(
        None,
        description="How much is done to find passages: see `answer.effort` in the configuration.",
    )
    verification: Verification | None = Field(
        None,
        description="Sentences that the sources do not support are marked (`annotate`) or withheld "
        "(`strict`), or sentences are not checked (`off`).",
    )
    hits: int | None = Field(None, ge=1, le=100, description="Passages to write from.")
    max_quotes: int | None = Field(
        None, ge=1, le=50, description="Most quotations in an answer made of quotations alone."
    )
    cache: bool = Field(
        True,
        description="Whether an answer that was given before will do, where the configuration has "
        "a cache; with `false` this one is not kept either.",
    )


def _plain_text(content: object) -> object:
    """OpenAI's two forms of content as one: a string, or parts of type `text`, joined."""
    if not isinstance(content, list):
        return content
    texts = []
    for number, part in enumerate(content):
        kind = part.get("type") if isinstance(part, dict) else None
        text = part.get("text") if isinstance(part, dict) else None
        if kind != "text":
            raise ValueError(f"part {number} has type {kind!r}; only text parts are supported")
        if not isinstance(text, str):
            raise ValueError(f"part {number} has no text")
        texts.append(text)
    return "\n".join(texts)


_CONTENT_SCHEMA: dict[str, Any] = {
    "anyOf": [
        {"type": "string"},
        {
            "type": "array",
            "items": {
                "type": "object",
                "properties": {"type": {"const": "text"}, "text": {"type": "string"}},
                "required": ["type", "text"],
            },
        },
    ]
}
Content = Annotated[Text, BeforeValidator(_plain_text), WithJsonSchema(_CONTENT_SCHEMA)]


class ChatMessage(Body):
    """One turn. `developer` is read as `system`."""

    role: Literal["system", "developer", "user", "assistant"]
    content: Content = Field(description="Text, or a list of text parts.")
    name: Text | None = Field(None, description="Accepted, has no effect.")
    refusal: Text | None = Field(None, description="Accepted, has no effect.")
    headrace: dict[str, Any] | None = Field(
        None, description="An earlier answer's extension field, sent back; has no effect."
    )


class StreamOptions(Body):
    include_usage: bool = Field(False, description="Send a last chunk with `usage`.")
    include_obfuscation: bool = Field(False, description="Accepted, has no effect.")


_HARMLESS = Field(None, description="Accepted, has no effect.")
_REFUSED = Field(None, description="Not supported: refused unless it is null or neutral.")


class ChatRequest(Asking):
    """`POST /v1/chat/completions`."""

    model_config = ConfigDict(
        json_schema_extra={
            "examples": [
                {
                    "model": "headrace/default",
                    "messages": [{"role": "user", "content": "When may a market be held?"}],
                    "stream": False,
                }
            ]
        }
    )

    model: str = Field(
        description="`headrace/COLLECTION` for a cited answer, or a generator's name for chat.",
        min_length=1,
        max_length=256,
    )
    messages: Annotated[tuple[ChatMessage, ...], BeforeValidator(_listed)] = Field(
        min_length=1, max_length=1000, description="The conversation; the last turn is the user's."
    )
    stream: bool | None = Field(None, description="Send the answer as it is written.")
    stream_options: StreamOptions | None = None
    max_tokens: int | None = Field(None, ge=1, le=MOST, description="Longest answer, in tokens.")
    max_completion_tokens: int | None = Field(
        None, ge=1, le=MOST, description="Same as `max_tokens`."
    )
    temperature: float | None = Field(None, ge=0, le=2, allow_inf_nan=False)
    top_p: float | None = Field(None, gt=0, le=1, allow_inf_nan=False)
    seed: int | None = Field(None, ge=-(2**63), lt=2**63)
    stop: Annotated[tuple[Text, ...], BeforeValidator(_listed), OneOrMore] | None = Field(
        None, max_length=16, description="Texts at which to stop."
    )
    response_format: dict[str, Any] | None = Field(
        None,
        description="`text`, or (plain chat) `json_schema` or `json_object`, as OpenAI has it.",
    )
    headrace: AnswerSettings | None = Field(
        None, description="Settings of a cited answer (openai client: `extra_body`)."
    )
    user: Any = _HARMLESS
    metadata: Any = _HARMLESS
    store: Any = _HARMLESS
    service_tier: Any = _HARMLESS
    safety_identifier: Any = _HARMLESS
    prompt_cache_key: Any = _HARMLESS
    parallel_tool_calls: Any = _HARMLESS
    n: Any = _REFUSED
    tools: Any = _REFUSED
    tool_choice: Any = _REFUSED
    functions: Any = _REFUSED
    function_call: Any = _REFUSED
    logprobs: Any = _REFUSED
    top_logprobs: Any = _REFUSED
    logit_bias: Any = _REFUSED
    presence_penalty: Any = _REFUSED
    frequency_penalty: Any = _REFUSED
    modalities: Any = _REFUSED
    audio: Any = _REFUSED

    @property
    def cap(self) -> int | None:
        """Longest answer in tokens, by either of its two names."""
        return self.max_completion_tokens or self.max_tokens


UNSUPPORTED: dict[str, tuple[object, ...]] = {
    "n": (1,),
    "tools": ([],),
    "tool_choice": ("none", "auto"),
    "functions": ([],),
    "function_call": ("none", "auto"),
    "logprobs": (False,),
    "top_logprobs": (0,),
    "logit_bias": ({},),
    "presence_penalty": (0, 0.0),
    "frequency_penalty": (0, 0.0),
    "modalities": (["text"],),
    "audio": (),
}
"""Refused, except with `null` or one of these values, which say "not wanted"."""


class RagChatRequest(AnswerSettings, Asking):
    """`POST /api/rag/chat`."""

    model_config = ConfigDict(
        json_schema_extra={
            "examples": [{"collection": "default", "question": "When may a market be held?"}]
        }
    )

    collection: Text = Field(description="Name of the collection.")
    question: str = Field(description="The question.", min_length=1)
    history: Annotated[tuple[ChatMessage, ...], BeforeValidator(_listed)] = Field(
        (), max_length=1000, description="Earlier turns, oldest first."
    )
    max_tokens: int | None = Field(None, ge=1, le=MOST, description="Longest answer, in tokens.")
    temperature: float = Field(0.0, ge=0, le=2, allow_inf_nan=False)


class SearchRequest(Narrowing, Asking):
    """`POST /api/collections/{name}/search`."""

    model_config = ConfigDict(
        json_schema_extra={"examples": [{"query": "market opening hours", "k": 5}]}
    )

    query: str = Field(description="What to look for.", min_length=1, max_length=20_000)
    k: int = Field(10, ge=1, le=500, description="Most hits.")
    rerank: bool = Field(True, description="Use the collection's reranker, if it has one.")


class OpenSessionsRequest(Body):
    """`POST /api/sessions`."""

    model_config = ConfigDict(
        json_schema_extra={"examples": [{"owner": "agent-7", "collections": ["default"]}]}
    )

    owner: Annotated[str, Field(min_length=1, max_length=128)] = Field(
        description="Who holds them; `server.sessions.per_owner` counts by this name."
    )
    collections: Annotated[tuple[Text, ...], BeforeValidator(_listed)] = Field(
        min_length=1, max_length=100, description="The only collections that they may search."
    )
    count: int = Field(1, ge=1, le=MOST, description="How many: all of them are opened, or none.")
    ttl_seconds: float | None = Field(
        None,
        gt=0,
        allow_inf_nan=False,
        description="Their life without a renewal; empty takes `server.sessions.ttl_seconds`.",
    )
    access: Annotated[tuple[Label, ...], BeforeValidator(_listed)] | None = Field(
        None, description="Labels to narrow the caller's own access set to."
    )
    owner_pid: int | None = Field(
        None,
        ge=1,
        le=MOST,
        description="A process on the server's machine whose end ends them (loopback only).",
    )


class RenewSessionRequest(Body):
    """`POST /api/sessions/{id}/renew`."""

    ttl_seconds: float | None = Field(
        None, gt=0, allow_inf_nan=False, description="Life from now on; empty takes the last one."
    )


def _text_input(value: object) -> object:
    items = value if isinstance(value, list) else [value]
    if any(isinstance(item, int | list) for item in items):
        raise ValueError("token arrays are not supported; send texts")
    for number, item in enumerate(items):
        if isinstance(item, str) and not item.strip():
            raise ValueError(f"text {number} is empty")
    return _listed(value)


class EmbeddingsRequest(Asking):
    """`POST /v1/embeddings`."""

    model_config = ConfigDict(
        json_schema_extra={"examples": [{"model": "e5-small", "input": ["one text", "another"]}]}
    )

    model: Text = Field(description="An embedder's name.")
    input: Annotated[Texts, BeforeValidator(_text_input), OneOrMore] = Field(
        min_length=1, description="A text, or up to 2,048 texts. Token arrays are not supported."
    )
    encoding_format: Literal["float", "base64"] = Field(
        "float", description="`base64`: little-endian float32."
    )
    dimensions: int | None = Field(
        None, ge=1, le=MOST, description="Must equal the model's own, if it is given."
    )
    input_type: Literal["query", "passage"] = Field(
        "passage",
        description="What the texts are: models with prefixes embed questions and documents "
        "differently. Compare queries with passages.",
    )
    user: Any = Field(None, description="Accepted, has no effect.")


def _document_texts(value: object) -> object:
    """Documents as strings or as `{"text": ...}`."""
    if not isinstance(value, list):
        return value
    return tuple(
        item["text"] if isinstance(item, dict) and set(item) == {"text"} else item for item in value
    )


_DOCUMENTS_SCHEMA: dict[str, Any] = {
    "type": "array",
    "items": {
        "anyOf": [
            {"type": "string"},
            {
                "type": "object",
                "properties": {"text": {"type": "string"}},
                "required": ["text"],
                "additionalProperties": False,
            },
        ]
    },
}
RerankTexts = Annotated[
    tuple[Text, ...], BeforeValidator(_document_texts), WithJsonSchema(_DOCUMENTS_SCHEMA)
]


class RerankRequest(Asking):
    """`POST /v1/rerank`, `/rerank`, `/v2/rerank`: `documents` asks in Jina's and Cohere's way,
    `texts` in that of text-embeddings-inference."""

    model_config = ConfigDict(
        json_schema_extra={
            "examples": [
                {"query": "market hours", "documents": ["Markets open at six.", "Dogs bark."]},
                {"query": "market hours", "texts": ["Markets open at six.", "Dogs bark."]},
            ]
        }
    )

    model: Text | None = Field(None, description="A reranker's name; empty takes the default.")
    query: str = Field(min_length=1, max_length=20_000)
    documents: RerankTexts | None = Field(None, min_length=1, max_length=1000)
    top_n: int | None = Field(None, ge=1, le=MOST, description="Most results.")
    return_documents: bool | None = Field(None, description="Repeat each text in its result.")
    max_chunks_per_doc: Any = _HARMLESS
    max_tokens_per_doc: Any = _HARMLESS
    priority: Any = _HARMLESS
    texts: RerankTexts | None = Field(None, min_length=1, max_length=1000)
    raw_scores: bool = Field(False, description="Accepted: scores are always the model's own.")
    return_text: bool = Field(False, description="Repeat each text in its result.")
    truncate: bool | None = Field(None, description="Accepted: longer texts are always cut.")
    truncation_direction: Any = _HARMLESS

    @model_validator(mode="after")
    def _one_shape(self) -> RerankRequest:
        if (self.documents is None) == (self.texts is None):
            raise ValueError("give `documents` (Jina, Cohere) or `texts` (TEI), one of them")
        return self


class ResetRequest(Body):
    """Which model to restart."""

    model: Text
