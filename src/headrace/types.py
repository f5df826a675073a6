"""The shared vocabulary, as frozen types. Imports nothing of ours.

Positions in a document are counted in Python characters (Unicode code points) of its *parsed
text*; every range is half-open.
"""

from __future__ import annotations

from enum import StrEnum
from typing import Literal, TypeAlias

import msgspec


class Role(StrEnum):
    """What a model is for."""

    GENERATOR = "generator"
    EMBEDDER = "embedder"
    RERANKER = "reranker"


class Lane(StrEnum):
    """Who goes first when a model has more work than it can do at once."""

    INTERACTIVE = "interactive"
    BULK = "bulk"


class Call(msgspec.Struct, frozen=True):
    """For whom a model works. `deadline` is a time of `time.monotonic()`, the same clock in all
    processes of a machine; `cycle` names the run of the pipeline that asks, and `then` the models
    that this run will need next, so that none of them is put out in between."""

    lane: Lane = Lane.INTERACTIVE
    deadline: float | None = None
    cycle: str = ""
    then: tuple[str, ...] = ()


USER = Call()
"""A person waits, without a deadline."""

BULK = Call(Lane.BULK)
"""Work that yields to people."""

EmbedKind: TypeAlias = Literal["query", "passage"]
Verification: TypeAlias = Literal["annotate", "strict", "off"]
"""What happens to a sentence that the sources do not support: it is marked, or withheld; `off`:
sentences are not checked."""
FinishReason: TypeAlias = Literal["stop", "length", "cancelled"]

ALL_ACCESS: frozenset[str] = frozenset({"*"})
"""The access set that may read every label: the owner at the command line."""


class Span(msgspec.Struct, frozen=True):
    """A half-open character range `[start, end)` in a document's parsed text."""

    start: int
    end: int

    def __post_init__(self) -> None:
        if not 0 <= self.start <= self.end:
            raise ValueError(f"span [{self.start}, {self.end}) is not a range")

    def __len__(self) -> int:
        return self.end - self.start

    def of(self, text: str) -> str:
        return text[self.start : self.end]


# Documents -------------------------------------------------------------------------------------


class Heading(msgspec.Struct, frozen=True):
    """A heading line in the parsed text. `level` 1 is the outermost."""

    span: Span
    level: int
    title: str


class PageMark(msgspec.Struct, frozen=True):
    """Page `number` (from 1) covers `span`; `size` is (width, height) in points.

    `lines` maps character ranges to their place on the page, as
    (start, end, left, bottom, right, top) in PDF points; empty where the reader knows none.
    """

    number: int
    span: Span
    size: tuple[float, float] = (0.0, 0.0)
    lines: tuple[tuple[int, int, float, float, float, float], ...] = ()


class Row(msgspec.Struct, frozen=True):
    """One row of a table: where it stands in the text, its sheet, and its number in the source
    (from 1, as a spreadsheet shows it)."""

    span: Span
    number: int
    sheet: str = ""


class Exclusion(msgspec.Struct, frozen=True):
    """Characters deliberately left out of every chunk, and why."""

    span: Span
    reason: str


class Parsed(msgspec.Struct, frozen=True):
    """What a reader makes of a file: its text and the structure found in it.

    `hidden` lists ranges that the reader put in the text but that are not content (front matter,
    comments): chunkers exclude them with that reason.
    """

    text: str
    media_type: str
    title: str = ""
    headings: tuple[Heading, ...] = ()
    pages: tuple[PageMark, ...] = ()
    rows: tuple[Row, ...] = ()
    hidden: tuple[Exclusion, ...] = ()
    metadata: dict[str, str] = {}
    notes: tuple[str, ...] = ()  # what the reader could not use, for the ingestion report


class Chunk(msgspec.Struct, frozen=True):
    """A retrievable piece of one document. `path` is its title path, outermost first."""

    span: Span
    path: tuple[str, ...] = ()


class Chunking(msgspec.Struct, frozen=True):
    """The result of a chunker: every character is in a chunk or in an exclusion."""

    chunks: tuple[Chunk, ...]
    exclusions: tuple[Exclusion, ...]


class Document(msgspec.Struct, frozen=True):
    """A source file as parsed text, with all that is needed to check a quotation against it.

    `id` is derived from `source` (see `document_id`), so it survives a change of content.
    `sha256` is of the file's bytes.
    """

    id: str
    source: str
    sha256: str
    parsed: Parsed
    chunker: str
    exclusions: tuple[Exclusion, ...] = ()
    labels: tuple[str, ...] = ("public",)
    metadata: dict[str, str] = {}
    added: str = ""  # ISO 8601, UTC


# Search ----------------------------------------------------------------------------------------


class Filter(msgspec.Struct, frozen=True):
    """What a search may return: documents that carry a label of `access` (all, if it holds `*`),
    and whose metadata have one of the given values for every key. `documents` narrows to ids."""

    access: frozenset[str] = frozenset({"public"})
    metadata: dict[str, tuple[str, ...]] = {}
    documents: tuple[str, ...] = ()

    @property
    def open(self) -> bool:
        """True if nothing is filtered out."""
        return "*" in self.access and not self.metadata and not self.documents


class Hit(msgspec.Struct, frozen=True):
    """A chunk found. `scores` has one entry per stage that saw it: `dense` (cosine), `lexical`
    (BM25), `fused`, `ranked` (by what was fitted for the collection), `rerank_first`, `rerank`;
    `score` is that of the last stage."""

    chunk_id: int
    document_id: str
    source: str
    title: str
    path: tuple[str, ...]
    span: Span
    text: str
    score: float
    scores: dict[str, float]
    page: int | None = None
    metadata: dict[str, str] = {}


class SearchResult(msgspec.Struct, frozen=True):
    """Hits, best first, with the index generation they come from, milliseconds per stage, and what
    the deadline left out. `stages` holds each stage's own list of chunk ids, best first, if it was
    asked for."""

    hits: tuple[Hit, ...]
    generation: int
    timings: dict[str, float] = {}
    skipped: tuple[str, ...] = ()
    stages: dict[str, tuple[int, ...]] = {}
    ranker: str = ""  # which `ranker.json` was in force


# Models ----------------------------------------------------------------------------------------


class Message(msgspec.Struct, frozen=True):
    """One turn of a conversation, as OpenAI's API has it."""

    role: Literal["system", "user", "assistant"]
    content: str


class GenerateParams(msgspec.Struct, frozen=True):
    """How to generate. `max_tokens` is a hard cap; `None` leaves a choice to the engine."""

    max_tokens: int = 512
    temperature: float = 0.0
    top_p: float | None = None
    seed: int | None = None
    stop: tuple[str, ...] = ()
    json_schema: str | None = None  # a JSON schema, encoded


class Usage(msgspec.Struct, frozen=True):
    """Tokens read and written, as counted by the engine."""

    prompt_tokens: int = 0
    completion_tokens: int = 0

    @property
    def total_tokens(self) -> int:
        return self.prompt_tokens + self.completion_tokens


class Delta(msgspec.Struct, frozen=True):
    """A piece of generated text. The last one of a stream has `finish_reason` and `usage`."""

    text: str = ""
    finish_reason: FinishReason | None = None
    usage: Usage | None = None


# Answers ---------------------------------------------------------------------------------------


class Quote(msgspec.Struct, frozen=True):
    """A span cited by an answer: `text` equals the document's parsed text over `span`."""

    number: int  # the marker in the answer's text, from 1
    document_id: str
    source: str
    title: str
    path: tuple[str, ...]
    span: Span
    text: str
    page: int | None = None


class StageEvent(msgspec.Struct, frozen=True, tag="stage", tag_field="type"):
    """A stage ended after `ms` milliseconds."""

    name: str
    ms: float
    detail: str = ""


class HitsEvent(msgspec.Struct, frozen=True, tag="hits", tag_field="type"):
    hits: tuple[Hit, ...]


class Sought(msgspec.Struct, frozen=True):
    """One query: its text, why it was asked (`the question`, `a part of it`, `rewritten`, a name
    that was followed), and the titles of the best that it found."""

    text: str
    why: str
    found: tuple[str, ...] = ()


class HopEvent(msgspec.Struct, frozen=True, tag="hop", tag_field="type"):
    """A round of searching ended. `new` counts the passages that it brought among the best, and
    `decision` says why another one follows or not."""

    number: int
    sought: tuple[Sought, ...]
    new: int
    decision: str


class DeltaEvent(msgspec.Struct, frozen=True, tag="delta", tag_field="type"):
    text: str


class QuoteEvent(msgspec.Struct, frozen=True, tag="quote", tag_field="type"):
    quote: Quote


class UnsupportedEvent(msgspec.Struct, frozen=True, tag="unsupported", tag_field="type"):
    """A sentence that the sources do not support, at `span` of the answer's text (withheld where
    the verification is strict or the sentence repeats the generator's instruction: then the span
    is empty)."""

    text: str
    reason: str
    span: Span


class Refused(msgspec.Struct, frozen=True):
    """Why there is no answer: too little `support` (less than `threshold`), or nothing in the
    passages that answers on its own. `nearest` are the passages that came closest."""

    reason: str
    support: float
    threshold: float
    nearest: tuple[Hit, ...]


class RefusedEvent(msgspec.Struct, frozen=True, tag="refused", tag_field="type"):
    """The documents hold no answer; comes once, before `done`."""

    refused: Refused


class Conflict(msgspec.Struct, frozen=True):
    """Passages that do not go together. `contradiction`: the quotes numbered `quotes` say
    different things of the same matter, `values` (in their order). `superseded`: the answer leans
    on the newer of two versions of one text; `sources` names both, the newer first, and `values`
    are their dates."""

    kind: Literal["contradiction", "superseded"]
    sources: tuple[str, ...]
    values: tuple[str, ...]
    quotes: tuple[int, ...] = ()


class ConflictEvent(msgspec.Struct, frozen=True, tag="conflict", tag_field="type"):
    """A conflict that the answer's text names."""

    conflict: Conflict


class Cached(msgspec.Struct, frozen=True):
    """An answer that was made for another request: before (`exact`: for the same question,
    `semantic`: for one that asks the same), or, `shared`, while this one waited for it.
    `similarity` is the cosine of the two questions (1 for the same one); `saved_ms` is what the
    answer took when it was made, less what this request waited."""

    kind: Literal["exact", "semantic", "shared"]
    similarity: float
    age_seconds: float
    saved_ms: float


class DoneEvent(msgspec.Struct, frozen=True, tag="done", tag_field="type"):
    """The end of an answer. `refusal` means: the documents hold no answer, and the text says so.
    `cached` is there if the answer was made for another request: then no model wrote it for this
    one, and `usage` is nothing."""

    finish_reason: FinishReason
    usage: Usage
    refusal: bool
    timings: dict[str, float]
    skipped: tuple[str, ...]
    config_version: str
    generation: int
    ranker: str = ""  # which `ranker.json` was in force, if any
    cached: Cached | None = None


class ErrorEvent(msgspec.Struct, frozen=True, tag="error", tag_field="type"):
    """The end of an answer that failed. `retry_after` seconds, where trying again may help."""

    code: str
    message: str
    retry_after: float | None = None


Event: TypeAlias = (
    StageEvent
    | HopEvent
    | HitsEvent
    | DeltaEvent
    | QuoteEvent
    | UnsupportedEvent
    | RefusedEvent
    | ConflictEvent
    | DoneEvent
    | ErrorEvent
)
