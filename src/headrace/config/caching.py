"""Options of the caches."""

from __future__ import annotations

from typing import Literal

from pydantic import Field

from headrace.config.fields import Options, Size


class CacheOptions(Options):
    """What is kept in memory for the next caller. Each server process has caches of its own; none
    outlives it. A cached answer is given only to callers with the same access set, for the same
    state of the collection and the same configuration."""

    answers: Literal["off", "exact", "semantic"] = Field(
        "off",
        description="`exact` gives an answer again to the same question; `semantic` also to one "
        "that differs only in words that cannot matter (`docs/architecture.md` says how that is "
        "decided). Requests for the same at one moment share one run. Answers with a temperature "
        "above 0 are never cached.",
    )
    similarity: float = Field(
        0.96,
        ge=0,
        le=1,
        description="Least cosine of two questions' vectors for `semantic`, beside its rules. The "
        "default is calibrated for the default embedder; another one needs its own.",
    )
    answers_size: Size = Field(
        "64MiB", description="Memory for cached answers; the longest unused go first."
    )
    max_age_seconds: float = Field(
        86_400.0, gt=0, description="Age at which a cached answer is not given any more."
    )
    embeddings_size: Size | None = Field(
        "16MiB",
        description="Memory for the vectors of queries, by embedder and text; empty: none are "
        "kept. 16 MiB hold about 8,000.",
    )
