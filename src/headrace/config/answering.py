"""Options of search and of answers."""

from __future__ import annotations

from typing import Literal

from pydantic import Field

from headrace.config.fields import Options


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
    max_sentences: int | None = Field(
        None,
        ge=1,
        description="Most sentences that the generator writes; it is stopped after the last one. "
        "Empty: as many as `max_tokens` allow.",
    )
