"""Options of search and of answers."""

from __future__ import annotations

from typing import Literal

from pydantic import Field

from headrace.config.fields import Name, Options
from headrace.types import Verification


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
    document_weight: float = Field(
        0.15,
        ge=0,
        le=1,
        description="How much a hit gains from others of its document among the first 30, as a "
        "part of the best score; 0 judges each alone.",
    )
    ranker: Literal["auto", "off"] = Field(
        "auto",
        description="`auto` uses what `headrace eval tune-retrieval` fitted for the collection, "
        "if there is any, in place of the weights and the depth given here.",
    )
    rrf_k: int = Field(20, ge=1, description="Constant of reciprocal-rank fusion.")
    rerank_depth: int = Field(50, ge=1, le=500, description="Hits that a reranker looks at.")
    rerank_first: Name | None = Field(
        None,
        description="A cheap reranker that looks at `rerank_first_depth` hits, of which the "
        "collection's reranker then sees the best `rerank_depth`; empty: none.",
    )
    rerank_first_depth: int = Field(
        100, ge=1, le=1000, description="Hits that the cheap reranker looks at."
    )
    hits: int = Field(5, ge=1, le=100, description="Hits that the answer is written from.")


class AnswerOptions(Options):
    """How answers are written and checked."""

    generate: Literal["auto", "none"] = Field(
        "auto",
        description="`auto` writes with the generator; `none` answers with quotations alone.",
    )
    effort: Literal["fast", "balanced", "deep", "auto"] = Field(
        "auto",
        description="`fast`: one search, without rewriting or reranking. `balanced`: the question "
        "and its rewriting, reranked. `deep`: also its parts, and then what the passages found "
        "lead to, with twice the hits. `auto` takes one by the kind of question.",
    )
    rewrite: Literal["auto", "rules", "off"] = Field(
        "auto",
        description="How a question is given other words to be searched with, beside its own: "
        "by a generator that is `capable`, or else by rules; by rules; not at all.",
    )
    hops: int = Field(
        2, ge=1, le=4, description="Most rounds of searching for one question, effort `deep`."
    )
    verification: Verification = Field(
        "annotate",
        description="Sentences that the sources do not support are marked (`annotate`) or withheld "
        "(`strict`), or sentences are not checked (`off`).",
    )
    refuse_below: float | None = Field(
        None,
        ge=0,
        description="Support below which a question is refused. Empty: the threshold that the "
        "collection was calibrated to (`headrace eval calibrate`), a probability; without a "
        "calibration 1, which is what the rule for any collection asks for.",
    )
    max_tokens: int = Field(256, ge=1, description="Longest answer, in tokens.")
    prompt_tokens: int = Field(
        1024, ge=128, description="Token budget of the prompt; passages beyond it are left out."
    )
    widen: Literal["off", "cut", "section"] = Field(
        "cut",
        description="What is read beside a passage found, as far as `prompt_tokens` allow: the "
        "next chunk or the one before where a paragraph, list or table was cut in two (`cut`), "
        "those of the same section in any case (`section`), nothing (`off`).",
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
