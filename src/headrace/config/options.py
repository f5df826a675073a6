"""Every option, declared once: name, type, default, limits and help.

The JSON schema, the reference document, `headrace config init` and the error messages are made
from these classes. Nothing else in the program reads the environment for settings.
"""

from __future__ import annotations

from pathlib import Path
from typing import Literal

from platformdirs import user_cache_path, user_data_path
from pydantic import Field, model_validator

from headrace.config.answering import AnswerOptions, RetrievalOptions
from headrace.config.caching import CacheOptions
from headrace.config.fields import RESTART, Device, Label, Name, Options, Size
from headrace.config.model_options import DefaultModels, ModelOptions, default_models
from headrace.types import Role


class ApiKey(Options):
    """Who may call the server, and what they may read."""

    env: str = Field(
        pattern=r"^[A-Z_][A-Z0-9_]*$",
        description="Environment variable that holds the key; keys never stand in this file.",
    )
    access: tuple[Label | Literal["*"], ...] = Field(
        ("public",), description="Labels that this key's owner may read; `*` reads all."
    )
    admin: bool = Field(
        False, description="May this key add, change and delete documents and collections?"
    )


class SessionOptions(Options):
    """Retrieval sessions of agents."""

    ttl_seconds: float = Field(
        300.0, gt=0, le=86400, description="Life of a session that names none and is not renewed."
    )
    max_ttl_seconds: float = Field(3600.0, gt=0, le=86400, description="Longest life to ask for.")
    per_owner: int = Field(16, ge=1, description="Sessions that one owner may hold.")
    total: int = Field(256, ge=1, description="Sessions in all; beyond them 429.")


class DeviceOptions(Options):
    """One device's memory."""

    limit: Size | None = Field(
        None,
        description="Memory that Headrace may take there, such as `6GiB`; empty: all that is "
        "free for `cuda:N`, no limit for `host`.",
    )


class ServerOptions(Options):
    """The HTTP server."""

    processes: int = Field(
        1,
        ge=1,
        le=64,
        description="Server processes that share the port; they share the models.",
        json_schema_extra=RESTART,
    )
    max_deadline_ms: int = Field(
        600_000, ge=1, description="Longest `deadline_ms` of a request, and its bound without one."
    )
    sessions: SessionOptions = Field(SessionOptions(), description="Retrieval sessions of agents.")

    host: str = Field("127.0.0.1", description="Address to listen on.", json_schema_extra=RESTART)
    port: int = Field(
        8017,
        ge=0,
        le=65535,
        description="Port to listen on; 0 takes a free one.",
        json_schema_extra=RESTART,
    )
    keys: tuple[ApiKey, ...] = Field(
        (), description="API keys. With none, callers need no key (keep `host` on loopback then)."
    )
    anonymous_access: tuple[Label | Literal["*"], ...] = Field(
        ("public",), description="Labels that callers may read where no keys are configured."
    )
    max_body_mib: int = Field(
        64, ge=1, le=4096, description="Largest request body, uploads included, in MiB."
    )
    max_model_mib: int = Field(
        32 * 1024,
        ge=1,
        le=1 << 24,
        description="Largest upload of a model's files, in MiB, packed or not.",
    )
    max_pending: int = Field(
        256,
        ge=1,
        description="Requests in progress beyond which new ones get 429 at once, over all server "
        "processes; those with `X-Lane: bulk` may be three quarters of them.",
    )
    max_connections: int = Field(
        2048,
        ge=1,
        description="Open connections of one server process; more get 503 and are closed.",
        json_schema_extra=RESTART,
    )
    keepalive_seconds: float = Field(
        60.0,
        gt=0,
        le=3600,
        description="How long a connection may be idle between two requests.",
        json_schema_extra=RESTART,
    )
    trace_file: Path | None = Field(
        None,
        description="File to which every request of a model is added, without its text, to be "
        "replayed by `bench/simulate_arbiter.py --trace`; empty: none.",
        json_schema_extra=RESTART,
    )
    stall_seconds: float = Field(
        60.0,
        gt=0,
        le=3600,
        description="How long a client may take nothing of its answer before it is cut off.",
        json_schema_extra=RESTART,
    )
    heartbeat_seconds: float = Field(
        15.0, gt=0, le=300, description="Silence after which a stream sends a heartbeat."
    )
    shutdown_seconds: float = Field(
        10.0,
        ge=0,
        le=600,
        description="How long running answers may go on after SIGTERM.",
        json_schema_extra=RESTART,
    )


class CollectionOptions(Options):
    """Settings of one collection; what is not given comes from the other sections."""

    chunker: Literal["auto", "statute", "headings", "rows", "plain"] = Field(
        "auto",
        description="How documents are cut; `auto` picks per file. A change takes effect when "
        "`headrace ingest` is next given the files, or by `headrace collections reindex NAME`.",
    )
    embedder: Name | None = Field(
        None,
        description="Embedder model; empty takes the default. After a change, the collection keeps "
        "the one that it has, until `headrace collections reindex NAME` gives it other vectors.",
    )
    generator: Name | None = Field(None, description="Generator model; empty takes the default.")
    reranker: Name | None = Field(None, description="Reranker model; empty takes the default.")
    labels: tuple[Label, ...] = Field(
        ("public",), min_length=1, description="Labels given to documents that bring none."
    )
    compress_passages: bool = Field(
        False,
        description="At ingestion, also keep what a reranker with `scoring: late_interaction` "
        "needs of each passage: about 100 bytes a token, and then a question's candidates are "
        "reranked without reading their texts. `headrace collections rebuild NAME --compress` "
        "does it for what is there.",
    )
    retrieval: RetrievalOptions | None = Field(
        None, description="Overrides the section `retrieval` for this collection."
    )
    answer: AnswerOptions | None = Field(
        None, description="Overrides the section `answer` for this collection."
    )


class IngestOptions(Options):
    """How files become documents."""

    max_file_mib: int = Field(
        256, ge=1, description="Files larger than this are skipped, and reported."
    )
    max_text_mib: int = Field(
        64, ge=1, description="Files whose text is larger than this are skipped (archive bombs)."
    )
    chunk_tokens: int = Field(
        400,
        ge=32,
        le=8192,
        description="Token budget of one chunk, title path included. A change takes effect when "
        "`headrace ingest` is next given the files.",
    )
    batch_texts: int = Field(
        32,
        ge=1,
        le=1024,
        description="Texts per embedding step; a query waits for one step at most.",
    )
    reader_seconds: float = Field(
        120.0, gt=0, description="Longest time a reader may take for one file."
    )
    follow_links: bool = Field(False, description="Follow symbolic links in folders.")


class Config(Options):
    """The whole configuration file."""

    data_dir: Path = Field(
        default_factory=lambda: user_data_path("headrace"),
        description="Folder of the collections.",
        json_schema_extra=RESTART,
    )
    cache_dir: Path = Field(
        default_factory=lambda: user_cache_path("headrace"),
        description="Folder of fetched and converted models; can be deleted at any time.",
        json_schema_extra=RESTART,
    )
    server: ServerOptions = Field(ServerOptions(), description="The HTTP server.")
    devices: dict[Literal["host"] | Device, DeviceOptions] = Field(
        default_factory=dict,
        description="Memory by device: `host`, `cuda:0`, ... What is not named has no limit but "
        "its own.",
    )
    models: dict[Name, ModelOptions] = Field(
        default_factory=default_models,
        description="Models by name. The default models stay unless an entry replaces them.",
    )
    defaults: DefaultModels = Field(
        DefaultModels(), description="Models used where nothing else is said."
    )
    collections: dict[Name, CollectionOptions] = Field(
        default_factory=dict,
        description="Settings by collection; a collection needs none to exist.",
    )
    retrieval: RetrievalOptions = Field(RetrievalOptions(), description="How passages are found.")
    answer: AnswerOptions = Field(
        AnswerOptions(), description="How answers are written and checked."
    )
    ingest: IngestOptions = Field(IngestOptions(), description="How files become documents.")
    cache: CacheOptions = Field(CacheOptions(), description="What is kept for the next caller.")

    @model_validator(mode="before")
    @classmethod
    def _keep_default_models(cls, data: object) -> object:
        if isinstance(data, dict) and isinstance(data.get("models"), dict):
            return {**data, "models": {**default_models(), **data["models"]}}
        return data

    @model_validator(mode="after")
    def _names_resolve(self) -> Config:
        def check(where: str, name: str | None, role: Role) -> None:
            if name is None:
                return
            model = self.models.get(name)
            if model is None:
                known = ", ".join(sorted(self.models))
                raise ValueError(f"{where}: there is no model {name!r}; known: {known}")
            if model.role is not role:
                raise ValueError(f"{where}: model {name!r} is a {model.role}, not a {role}")

        for role in Role:
            check(f"defaults.{role}", getattr(self.defaults, role), role)
            for key, collection in self.collections.items():
                check(f"collections.{key}.{role}", getattr(collection, role), role)
        check("retrieval.rerank_first", self.retrieval.rerank_first, Role.RERANKER)
        for key, collection in self.collections.items():
            if collection.retrieval is not None:
                where = f"collections.{key}.retrieval.rerank_first"
                check(where, collection.retrieval.rerank_first, Role.RERANKER)
        return self

    def collection(self, name: str) -> CollectionOptions:
        """The settings of collection `name`, with every default filled in."""
        given = self.collections.get(name, CollectionOptions())
        return given.model_copy(
            update={
                "embedder": given.embedder or self.defaults.embedder,
                "generator": given.generator or self.defaults.generator,
                "reranker": given.reranker or self.defaults.reranker,
                "retrieval": given.retrieval or self.retrieval,
                "answer": given.answer or self.answer,
            }
        )

    def rerankers(self, collection: str) -> list[str]:
        """The rerankers of a collection, in the order in which they look at hits."""
        options = self.collection(collection)
        assert options.retrieval is not None
        if options.reranker is None:
            return []
        return [name for name in (options.retrieval.rerank_first, options.reranker) if name]
