"""What will be done for a question: by rules, without a model."""

from __future__ import annotations

import uuid
from typing import Literal

import msgspec

from headrace.config.answering import AnswerOptions, RetrievalOptions
from headrace.config.options import Config
from headrace.errors import BadRequest, UnknownModel
from headrace.pipeline.classify import EFFORTS, Effort, Kind, classify
from headrace.pipeline.language import language
from headrace.pipeline.rewrite import standalone
from headrace.types import USER, Call, Filter, Message, Role, Verification

MAX_QUESTION = 20_000
"""Characters of a question; more is a document, not a question."""


class AnswerRequest(msgspec.Struct, frozen=True):
    """A question to a collection. What is `None` comes from the collection's configuration.
    `cache` is whether an answer that was given before will do, where the configuration has such."""

    collection: str
    question: str
    where: Filter
    history: tuple[Message, ...] = ()
    generate: Literal["auto", "none"] | None = None
    generator: str | None = None
    effort: Literal["fast", "balanced", "deep", "auto"] | None = None
    verification: Verification | None = None
    hits: int | None = None
    max_tokens: int | None = None
    max_quotes: int | None = None
    temperature: float = 0.0
    top_p: float | None = None
    seed: int | None = None
    stop: tuple[str, ...] = ()
    call: Call = USER
    cache: bool = True


class Plan(msgspec.Struct, frozen=True):
    """`generator` is `None` for an answer made of quotations alone; `skipped` says which stages
    were left out, and why. `lookup` is what is searched for: the question, made to stand alone.
    `kind` is what kind of question it is, `why` says by what; `helper` is the generator that may
    rewrite it."""

    question: str
    lookup: str
    kind: Kind
    why: str
    effort: Effort
    helper: str | None
    embedder: str
    generator: str | None
    reranker: str | None
    retrieval: RetrievalOptions
    answer: AnswerOptions
    hits: int
    max_tokens: int
    max_quotes: int
    verification: Verification
    skipped: tuple[str, ...]


def make_plan(config: Config, request: AnswerRequest) -> Plan:
    """Raises `BadRequest` for an empty, wordless or huge question, `UnknownModel` for a wrong
    generator."""
    question = request.question.strip()
    if not question:
        raise BadRequest("the question is empty", field="messages")
    if not any(map(str.isalnum, question)):
        raise BadRequest(
            "the question has no letter and no digit, so there is nothing to look for",
            field="messages",
        )
    if len(question) > MAX_QUESTION:
        raise BadRequest(
            f"the question has {len(question)} characters; the limit is {MAX_QUESTION}: "
            "ingest long texts as documents",
            field="messages",
        )
    options = config.collection(request.collection)
    answer = options.answer or config.answer
    retrieval = options.retrieval or config.retrieval
    generator, why_not = _generator(config, request, answer, options.generator, question)
    skipped = [f"generate: {why_not}"] if why_not else []
    kind, why = classify(question)
    effort = request.effort or answer.effort
    if effort == "auto":
        effort = EFFORTS[kind]
    verification = request.verification or answer.verification
    if verification == "off" and generator is not None:
        skipped.append("verify: switched off")
    if options.reranker is None:
        skipped.append("rerank: no reranker is configured")
    elif effort == "fast":
        skipped.append("rerank: effort is fast")
    follow = kind != "chat" and answer.rewrite != "off"
    hits = retrieval.hits * (2 if effort == "deep" else 1)
    return Plan(
        question=question,
        lookup=standalone(question, request.history) if follow else question,
        kind=kind,
        why=why,
        effort=effort,
        helper=_helper(config, generator, answer),
        embedder=options.embedder or config.defaults.embedder,
        generator=generator,
        reranker=None if effort == "fast" else options.reranker,
        retrieval=retrieval,
        answer=answer,
        hits=request.hits or hits,
        max_tokens=request.max_tokens or answer.max_tokens,
        max_quotes=request.max_quotes or answer.max_quotes,
        verification=verification,
        skipped=tuple(skipped),
    )


def cycle_call(call: Call) -> Call:
    """The call of one run of the pipeline, under a name of its own."""
    return msgspec.structs.replace(call, cycle=uuid.uuid4().hex[:12])


def _helper(config: Config, name: str | None, answer: AnswerOptions) -> str | None:
    """The generator that may rewrite the question that it will answer, if it can."""
    model = config.models.get(name) if name and answer.rewrite == "auto" else None
    return name if model is not None and model.capable else None


def _generator(
    config: Config,
    request: AnswerRequest,
    answer: AnswerOptions,
    configured: str | None,
    question: str,
) -> tuple[str | None, str]:
    """The generator to use, or `None` with the reason."""
    if (request.generate or answer.generate) == "none":
        return None, "quotations alone were asked for"
    name = request.generator or configured
    if name is None:
        return None, "no generator is configured"
    model = config.models.get(name)
    if model is None or model.role is not Role.GENERATOR:
        known = [key for key, m in config.models.items() if m.role is Role.GENERATOR]
        raise UnknownModel(name, known)
    asked = language(question)
    if model.languages and asked not in model.languages and request.generator is None:
        writes = ", ".join(model.languages)
        return None, f"the question is in {asked!r}, and generator {name!r} writes {writes}"
    return name, ""
