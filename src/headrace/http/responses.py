"""Response bodies: encoded by msgspec, described in the OpenAPI document from the same classes."""

from __future__ import annotations

from typing import Any, Literal

import msgspec

from headrace.ingest.outcomes import Job
from headrace.retrieval.base import RemovedDocument
from headrace.retrieval.collections import CollectionInfo
from headrace.serving.settings import Changed
from headrace.serving.status import DeviceStatus, ModelStatus
from headrace.types import Cached, Conflict, Hit, HopEvent, Quote, Refused, Span


class Extension(msgspec.Struct, frozen=True):
    """The field `headrace` of a cited answer: what OpenAI's format has no place for.

    `quotes` are numbered as the markers in the text. `unsupported` lists the sentences that the
    sources do not support. `refusal` means that the documents hold no answer; `refused` then says
    why, with the nearest passages. `conflicts` are between passages. `hops` tells what was searched
    for and found, where more than the question itself was. `timings` are
    milliseconds per stage, `skipped` says what was left out and why, `config_version` and
    `generation` identify the configuration and the state of the index. `cached` is there if the
    answer came out of a cache.
    """

    quotes: tuple[Quote, ...]
    unsupported: tuple[UnsupportedSentence, ...]
    refusal: bool
    hits: tuple[Hit, ...]
    hops: tuple[HopEvent, ...]
    timings: dict[str, float]
    skipped: tuple[str, ...]
    config_version: str
    generation: int
    refused: Refused | None = None
    conflicts: tuple[Conflict, ...] = ()
    cached: Cached | None = None


class UnsupportedSentence(msgspec.Struct, frozen=True):
    """`span` is its place in the answer's text; empty where it was withheld."""

    text: str
    reason: str
    span: Span


class ChatUsage(msgspec.Struct, frozen=True):
    prompt_tokens: int
    completion_tokens: int
    total_tokens: int


class ChatAnswer(msgspec.Struct, frozen=True, omit_defaults=True):
    """The assistant's message; `headrace` is there in answers from a collection."""

    role: Literal["assistant"] = msgspec.field()
    content: str = msgspec.field()
    headrace: Extension | None = None


class ChatChoice(msgspec.Struct, frozen=True):
    index: int
    message: ChatAnswer
    finish_reason: Literal["stop", "length"]
    logprobs: None = None


class ChatCompletion(msgspec.Struct, frozen=True):
    """OpenAI's `chat.completion`; `system_fingerprint` is the configuration's version."""

    id: str
    object: Literal["chat.completion"]
    created: int
    model: str
    choices: tuple[ChatChoice, ...]
    usage: ChatUsage
    system_fingerprint: str


class ChunkDelta(msgspec.Struct, frozen=True, omit_defaults=True):
    role: str | None = None
    content: str | None = None


class ChunkChoice(msgspec.Struct, frozen=True):
    index: int
    delta: ChunkDelta
    finish_reason: Literal["stop", "length"] | None = None
    logprobs: None = None


class ChatChunk(msgspec.Struct, frozen=True, omit_defaults=True):
    """OpenAI's `chat.completion.chunk`. The chunk with a `finish_reason` carries `headrace`."""

    id: str
    object: str
    created: int
    model: str
    choices: tuple[ChunkChoice, ...]
    system_fingerprint: str
    usage: ChatUsage | None = None
    headrace: Extension | None = None


class Embedding(msgspec.Struct, frozen=True):
    """`embedding` is a list of numbers, or base64 of little-endian float32."""

    object: Literal["embedding"]
    index: int
    embedding: list[float] | str


class EmbeddingUsage(msgspec.Struct, frozen=True):
    prompt_tokens: int
    total_tokens: int


class EmbeddingList(msgspec.Struct, frozen=True):
    object: Literal["list"]
    data: list[Embedding]
    model: str
    usage: EmbeddingUsage


class RerankDocument(msgspec.Struct, frozen=True):
    text: str


class RerankResult(msgspec.Struct, frozen=True, omit_defaults=True):
    """`index` is the document's place in the request."""

    index: int
    relevance_score: float
    document: RerankDocument | None = None


class ApiVersion(msgspec.Struct, frozen=True):
    version: str


class BilledUnits(msgspec.Struct, frozen=True):
    search_units: int


class RerankMeta(msgspec.Struct, frozen=True):
    api_version: ApiVersion
    billed_units: BilledUnits


class RerankUsage(msgspec.Struct, frozen=True):
    total_tokens: int
    prompt_tokens: int


class RerankList(msgspec.Struct, frozen=True):
    """What both Jina's and Cohere's clients read: best first."""

    id: str
    object: Literal["list"]
    model: str
    results: list[RerankResult]
    usage: RerankUsage
    meta: RerankMeta


class TeiScore(msgspec.Struct, frozen=True, omit_defaults=True):
    """One entry of text-embeddings-inference's answer: best first."""

    index: int
    score: float
    text: str | None = None


class ModelDetails(msgspec.Struct, frozen=True):
    """`role` is `generator`, `embedder`, `reranker`, or `collection` for cited answers."""

    role: str
    engine: str | None = None


class ModelEntry(msgspec.Struct, frozen=True):
    id: str
    object: Literal["model"]
    created: int
    owned_by: str
    headrace: ModelDetails


class ModelList(msgspec.Struct, frozen=True):
    object: Literal["list"]
    data: list[ModelEntry]


class CollectionList(msgspec.Struct, frozen=True):
    collections: list[CollectionInfo]


class JobList(msgspec.Struct, frozen=True):
    jobs: tuple[Job, ...]


class SearchResponse(msgspec.Struct, frozen=True):
    """Hits, best first, each with its score per stage; milliseconds per stage; what the deadline
    left out, and why."""

    collection: str
    hits: tuple[Hit, ...]
    generation: int
    timings: dict[str, float]
    skipped: tuple[str, ...] = ()


class DocumentEntry(msgspec.Struct, frozen=True):
    """A document of a collection, without its text. `sha256` is of the file's bytes."""

    id: str
    source: str
    sha256: str
    title: str
    media_type: str
    chunker: str
    chunks: int
    characters: int
    labels: tuple[str, ...]
    metadata: dict[str, str]
    added: str


class DocumentList(msgspec.Struct, frozen=True):
    """`total` counts all documents that the caller may read; `documents` is the page asked for."""

    total: int
    documents: list[DocumentEntry]


class DocumentText(msgspec.Struct, frozen=True):
    """`text` is the parsed text over `span`; a quote holds if its text equals it."""

    id: str
    source: str
    title: str
    media_type: str
    characters: int
    span: Span
    text: str
    labels: tuple[str, ...]
    metadata: dict[str, str]


class Deleted(msgspec.Struct, frozen=True):
    """What was removed; from now on no search finds it."""

    deleted: tuple[str, ...]


class Receipt(msgspec.Struct, frozen=True):
    """Documents that were deleted, each with its passages in the index in use and in those beside
    it (`next`, being made; `previous`, kept for going back); `vectors` that nothing uses any more
    and that are gone too. `answers_cleared` counts what this server process had in its cache; the
    other ones compare the generation at each lookup and give nothing older."""

    deleted: tuple[str, ...]
    documents: tuple[RemovedDocument, ...]
    vectors: int
    generation_before: int
    generation: int
    answers_cleared: int


class Readiness(msgspec.Struct, frozen=True):
    """`problems` is empty when `ready`."""

    ready: bool
    problems: tuple[str, ...]


class Health(msgspec.Struct, frozen=True):
    status: Literal["ok"]
    version: str


class ShownConfig(msgspec.Struct, frozen=True):
    """The configuration in force, `version`, with all its values. The options of `restart_needed`
    differ in the file, which is `file_version`, and wait for the next start. `file` is empty where
    there is none. `problem` says why the file, as it is now, is not in force."""

    version: str
    file_version: str
    file: str
    restart_needed: tuple[str, ...]
    problem: str
    values: dict[str, Any]


class ModelStates(msgspec.Struct, frozen=True):
    """`problems` says why a model cannot serve, by its name."""

    models: tuple[ModelStatus, ...]
    problems: dict[str, str]


class DeviceList(msgspec.Struct, frozen=True):
    devices: tuple[DeviceStatus, ...]


class CacheState(msgspec.Struct, frozen=True):
    """Lookups that hit, by kind, and that missed; seconds that the hits saved; what it holds."""

    hits: dict[str, int]
    misses: int
    hit_rate: float
    saved_seconds: float
    entries: int
    bytes: int


class CacheStates(msgspec.Struct, frozen=True):
    """`answers`, and `embeddings` of queries."""

    caches: dict[str, CacheState]


class Pulled(msgspec.Struct, frozen=True):
    """`path` is where its weights are now."""

    model: str
    source: str
    path: str


class Removed(msgspec.Struct, frozen=True):
    """`files` are the folders that were deleted with it."""

    configuration: Changed
    files: tuple[str, ...]


class ModelFiles(msgspec.Struct, frozen=True):
    """`source` is for a model's entry; `sha256` too, where it names one file. `digests` and
    `checks` tell by file its SHA-256 and what it was found to be."""

    source: str
    sha256: str | None
    folder: str
    digests: dict[str, str]
    checks: dict[str, str]
