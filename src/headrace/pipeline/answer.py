"""The path of a question, on one screen: plan, retrieve, prompt, generate, verify, done."""

from __future__ import annotations

import asyncio
import contextlib
import math
import time
from collections.abc import AsyncGenerator, Sequence

from msgspec.structs import replace

from headrace.errors import DeadlineExceeded, HeadraceError, Overloaded
from headrace.pipeline.budget import FINISH, Budget, until
from headrace.pipeline.checking import Checker
from headrace.pipeline.evidence import Passage, passages
from headrace.pipeline.finding import Finding
from headrace.pipeline.plan import AnswerRequest, Plan, cycle_call, make_plan
from headrace.pipeline.prompt import TURN_TOKENS, Prompt, build_prompt, prompt_estimate
from headrace.pipeline.quotes import CANDIDATES
from headrace.pipeline.quoting import choose_in_time
from headrace.pipeline.refusal import conflicts, refused, supported
from headrace.pipeline.services import Services
from headrace.pipeline.versions import current
from headrace.pipeline.widening import widened
from headrace.pipeline.writing import Writer
from headrace.retrieval.collections import held_embedder
from headrace.retrieval.embedded import EmbeddedIndex
from headrace.types import (
    Call,
    DoneEvent,
    ErrorEvent,
    Event,
    FinishReason,
    GenerateParams,
    HitsEvent,
    SearchResult,
    StageEvent,
    Usage,
)

__all__ = ["AnswerRequest", "answer"]

SURELY = 0.75
"""Of the prompt's token budget, what is filled with more than was found: the tokens are estimated,
and code has a third more than its estimate. No passage found is to give way to a neighbour."""

REPEATED = "generate: cut short, the model repeated itself"


class Run:
    """What is known at the end of an answer: milliseconds per stage, how the generator ended."""

    def __init__(self) -> None:
        self._start = self._last = time.perf_counter()
        self.timings: dict[str, float] = {}
        self.finish_reason: FinishReason = "stop"
        self.usage = Usage()
        self.skipped: list[str] = []  # for the deadline

    def stage(self, name: str, detail: str = "") -> StageEvent:
        """The stage that ends now."""
        now = time.perf_counter()
        event = StageEvent(name, round((now - self._last) * 1000, 3), detail)
        self._last = now
        self.timings[name] = event.ms
        return event

    def total(self) -> dict[str, float]:
        self.timings["total"] = round((time.perf_counter() - self._start) * 1000, 3)
        return self.timings


async def answer(services: Services, request: AnswerRequest) -> AsyncGenerator[Event, None]:
    """Events of one answer; the last is a `DoneEvent` or an `ErrorEvent`. An error before the
    first event (an unknown collection, say) is raised. Closing the generator stops all work."""
    begun = False
    try:
        async with contextlib.aclosing(_answer(services, request)) as events:
            async for event in events:
                yield event
                begun = True
    except HeadraceError as error:
        if not begun:
            raise
        yield error_event(error)


def error_event(error: HeadraceError) -> ErrorEvent:
    retry_after = error.retry_after if isinstance(error, Overloaded) else None
    return ErrorEvent(error.code, error.message, retry_after)


async def _answer(services: Services, request: AnswerRequest) -> AsyncGenerator[Event, None]:
    run = Run()
    plan = make_plan(services.config, request)
    budget = Budget(cycle_call(request.call), services.paces)
    index, held = await asyncio.to_thread(services.collections.opened, request.collection)
    embedder = await held_embedder(services.models, held, plan.embedder, request.call)
    plan = replace(plan, embedder=embedder)
    planned = run.stage("plan", _decided(plan))
    if plan.kind == "chat":
        async with contextlib.aclosing(_greet(services, plan, index, run)) as greeting:
            yield planned
            async for event in greeting:
                yield event
        return

    finding = Finding(services, request, plan, index, budget)
    async with contextlib.aclosing(finding.rounds()) as rounds:
        hop = await anext(rounds, None)
        yield planned  # not before: until here an error has its own status
        while hop is not None:
            yield hop
            hop = await anext(rounds, None)
    result = finding.result
    run.skipped += result.skipped
    yield run.stage("retrieve")
    yield HitsEvent(result.hits)

    hits, superseded = await asyncio.to_thread(current, result.hits, index)
    found = passages(hits)
    support, problem = await supported(services, plan, index, found)
    run.skipped += [problem] if problem else []
    yield run.stage("relevance", str(support))
    sources = found
    if support.enough:
        sources = await asyncio.to_thread(_read, request, plan, index, found)
        yield run.stage("widen", _more(found, sources))
    checker = Checker(plan, index, sources)
    if not support.enough:
        yield checker.refuse()
    else:
        if plan.generator is not None:
            written = _write(services, request, plan, checker, sources, budget, run)
            async with contextlib.aclosing(written) as events:
                async for event in events:
                    yield event
            if (note := checker.withheld()) is not None:
                yield note
            yield run.stage("generate")
        if checker.supported == 0:
            grouped = finding.grouped(sources)
            async for event in _quote(services, plan, checker, grouped, budget, run):
                yield event
            yield run.stage("quote")
    if checker.refused:
        yield refused(support, found)
    else:
        async for event in conflicts(plan, checker, sources, superseded):
            yield event
    yield _done(services, plan, checker, result, run)


def _read(
    request: AnswerRequest, plan: Plan, index: EmbeddedIndex, found: Sequence[Passage]
) -> list[Passage]:
    """What is read of the passages found: more than was found, where that fits. Blocks."""
    answer = plan.answer
    hits = [passage.hit for passage in found]
    left = math.inf
    if plan.generator is not None:
        left = SURELY * answer.prompt_tokens - _tokens(request, plan, found)
    return passages(widened(hits, index, request.where, answer.widen, left))


def _tokens(request: AnswerRequest, plan: Plan, sources: Sequence[Passage]) -> int:
    """About what a prompt with all of the passages has."""
    return prompt_estimate(plan.answer.system_prompt, sources, request.history, plan.question)


def _more(found: Sequence[Passage], sources: Sequence[Passage]) -> str:
    """The detail of the event: how much more is read than was found."""
    before, after = (sum(len(each.hit.text) for each in some) for some in (found, sources))
    return f"{after - before} characters beside {before} found, {len(sources)} passages"


async def _write(
    services: Services,
    request: AnswerRequest,
    plan: Plan,
    checker: Checker,
    sources: list[Passage],
    budget: Budget,
    run: Run,
) -> AsyncGenerator[Event, None]:
    """Generate, one sentence behind: each is checked before it is shown."""
    assert plan.generator is not None
    call = budget.writing(plan.embedder, CANDIDATES)
    wanted = min(_tokens(request, plan, sources), plan.answer.prompt_tokens)
    allowed = budget.allow(plan.generator, plan.max_tokens, wanted, call)
    run.skipped += allowed.skipped
    if not allowed.max_tokens:
        return
    reads = allowed.prompt_tokens
    writer = Writer(plan.generator, services.paces, reads, plan.answer.max_sentences)
    reads = plan.answer.prompt_tokens if reads == wanted else reads  # an estimate limits nothing
    try:
        async with asyncio.timeout_at(call.deadline):
            prompt, room = await _prompt(services, request, plan, sources, reads, call)
    except (TimeoutError, DeadlineExceeded):
        writer.give_up()
        run.skipped.append("generate: given up at the deadline, before its prompt was made")
        return
    if not prompt.used:
        run.skipped.append("generate: the question leaves no room for a passage in the prompt")
        return
    writer.reads = prompt.tokens
    yield run.stage("prompt", f"{prompt.used} of {len(sources)} passages")
    params = _params(request, min(allowed.max_tokens, room))
    generated = services.models.generate(plan.generator, prompt.messages, params, call=call)
    try:
        async with contextlib.aclosing(until(call.deadline, generated)) as deltas:
            async for delta in deltas:
                if "first_token" not in run.timings:
                    yield run.stage("first_token")
                for sentence in writer.take(delta):
                    async for event in checker.check(sentence):
                        yield event
                if delta.finish_reason is not None:
                    run.finish_reason, run.usage = delta.finish_reason, delta.usage or Usage()
                checker.repeats |= writer.goes_round
                if checker.repeats or writer.full:
                    break  # a small model that goes round in circles says nothing new
    except (TimeoutError, DeadlineExceeded):
        writer.give_up()
        run.skipped.append("generate: cut at the deadline")
        run.finish_reason, run.usage = "length", Usage(prompt.tokens, writer.deltas)
        return
    if checker.repeats or writer.full:
        run.usage = await _used(services, plan.generator, prompt, writer, call)
        return
    async for event in checker.check(writer.rest()):
        yield event


def _params(request: AnswerRequest, max_tokens: int) -> GenerateParams:
    return GenerateParams(
        max_tokens=max_tokens,
        temperature=request.temperature,
        top_p=request.top_p,
        seed=request.seed,
        stop=request.stop,
    )


async def _prompt(
    services: Services,
    request: AnswerRequest,
    plan: Plan,
    sources: list[Passage],
    most: int,
    call: Call,
) -> tuple[Prompt, int]:
    """At most so many tokens, and as the generator's context allows; and how many are left of it
    for the answer. One that may be as long as all of it still leaves half to the prompt."""
    assert plan.generator is not None
    context = (await services.models.info(plan.generator, call=call)).context
    prompt = await build_prompt(
        services.models,
        plan.generator,
        system=plan.answer.system_prompt,
        hits=[passage.hit for passage in sources],
        history=request.history,
        question=plan.question,
        budget=min(most, context - min(plan.max_tokens, context // 2)),
        call=call,
    )
    return prompt, context - prompt.tokens - TURN_TOKENS * len(prompt.messages)


async def _used(
    services: Services, generator: str, prompt: Prompt, writer: Writer, call: Call
) -> Usage:
    """The usage of a generator that was stopped before it could tell: what its tokenizer counts,
    without what its chat template adds; if there is no time for that, its deltas."""
    try:
        (written,) = await services.models.count(generator, [writer.text], call=call)
    except DeadlineExceeded:
        written = writer.deltas
    return Usage(prompt.tokens, written)


async def _quote(
    services: Services,
    plan: Plan,
    checker: Checker,
    groups: Sequence[Sequence[Passage]],
    budget: Budget,
    run: Run,
) -> AsyncGenerator[Event, None]:
    """An answer made of quotations alone, of each round's passages; a refusal if none is left that
    holds."""
    paces = services.paces
    found, skipped = await choose_in_time(services.models, plan, groups, budget, paces)
    run.skipped += skipped
    began = time.monotonic()
    async for event in checker.quote(found):
        yield event
    paces.note(FINISH, time.monotonic() - began)
    if checker.supported == 0:
        yield checker.refuse()


async def _greet(
    services: Services, plan: Plan, index: EmbeddedIndex, run: Run
) -> AsyncGenerator[Event, None]:
    """What is said to a greeting. Nothing is searched, and no model asked."""
    checker = Checker(plan, index, ())
    yield HitsEvent(())
    yield checker.greet()
    run.skipped.append("retrieve: a greeting asks nothing of the documents")
    generation = await asyncio.to_thread(index.generation)
    yield _done(services, plan, checker, SearchResult((), generation), run)


def _decided(plan: Plan) -> str:
    """The detail of the plan's event."""
    kind = plan.kind.replace("_", "-")
    return "; ".join([f"{kind}: {plan.why}", f"effort {plan.effort}", *plan.skipped])


def _done(
    services: Services,
    plan: Plan,
    checker: Checker,
    result: SearchResult,
    run: Run,
) -> DoneEvent:
    retrieval = {f"retrieve.{name}": ms for name, ms in result.timings.items()}
    repeated = (REPEATED,) if checker.repeats else ()
    return DoneEvent(
        finish_reason=run.finish_reason,
        usage=run.usage,
        refusal=checker.refused,
        timings=retrieval | run.total(),
        skipped=(*plan.skipped, *run.skipped, *repeated),
        config_version=services.config_version,
        generation=result.generation,
        ranker=result.ranker,
    )
