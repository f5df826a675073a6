"""The path of a question, on one screen: plan, retrieve, prompt, generate, verify, done."""

from __future__ import annotations

import asyncio
import contextlib
import time
from collections.abc import AsyncGenerator, Sequence

from msgspec.structs import replace

from headrace.errors import DeadlineExceeded, HeadraceError, Overloaded
from headrace.pipeline.budget import FINISH, Budget, until
from headrace.pipeline.checking import Checker
from headrace.pipeline.evidence import Passage, passages
from headrace.pipeline.plan import AnswerRequest, Plan, cycle_call, make_plan
from headrace.pipeline.prompt import Prompt, build_prompt, prompt_estimate
from headrace.pipeline.quotes import CANDIDATES
from headrace.pipeline.quoting import choose_in_time
from headrace.pipeline.relevance import relevant
from headrace.pipeline.services import Services
from headrace.pipeline.writing import Writer
from headrace.retrieval.search import search
from headrace.types import (
    DoneEvent,
    ErrorEvent,
    Event,
    FinishReason,
    GenerateParams,
    HitsEvent,
    Message,
    SearchResult,
    StageEvent,
    Usage,
)

__all__ = ["AnswerRequest", "answer"]


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
    index = await asyncio.to_thread(services.collections.open, request.collection)
    planned = run.stage("plan", "; ".join(plan.skipped))

    result = await search(
        index,
        services.models,
        plan.embedder,
        plan.lookup,
        options=plan.retrieval,
        where=request.where,
        k=plan.hits,
        reranker=plan.reranker,
        call=replace(budget.call, then=() if plan.generator is None else (plan.generator,)),
        paces=services.paces,
    )
    run.skipped += result.skipped
    yield planned  # not before: until here an error has its own status
    yield run.stage("retrieve")
    yield HitsEvent(result.hits)

    sources = passages(result.hits)
    checker = Checker(plan, index, sources)
    near = services.config.models[plan.embedder].near_cosine
    if not await asyncio.to_thread(relevant, plan.lookup, sources, index.snapshot(), near):
        yield checker.refuse()
    else:
        if plan.generator is not None:
            written = _write(services, request, plan, checker, sources, budget, run)
            async with contextlib.aclosing(written) as events:
                async for event in events:
                    yield event
            yield run.stage("generate")
        if checker.supported == 0:
            async for event in _quote(services, plan, checker, sources, budget, run):
                yield event
            yield run.stage("quote")
    yield _done(services, plan, checker, result, run)


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
    wanted = prompt_estimate(plan.answer.system_prompt, sources, request.history, plan.question)
    wanted = min(wanted, plan.answer.prompt_tokens)
    allowed = budget.allow(plan.generator, plan.max_tokens, wanted, call)
    run.skipped += allowed.skipped
    if not allowed.max_tokens:
        return
    most = plan.answer.max_sentences
    writer = Writer(plan.generator, services.paces, allowed.prompt_tokens, most)
    try:
        async with asyncio.timeout_at(call.deadline):
            prompt = await _prompt(services, request, plan, sources, allowed.prompt_tokens)
    except TimeoutError:
        writer.give_up()
        run.skipped.append("generate: given up at the deadline, before its prompt was made")
        return
    writer.reads = prompt.tokens
    yield run.stage("prompt", f"{prompt.used} of {len(sources)} passages")
    params = GenerateParams(
        max_tokens=allowed.max_tokens,
        temperature=request.temperature,
        top_p=request.top_p,
        seed=request.seed,
        stop=request.stop,
    )
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
        run.usage = await _count(services, plan.generator, prompt.messages, writer.text)
        return
    async for event in checker.check(writer.rest()):
        yield event


async def _prompt(
    services: Services, request: AnswerRequest, plan: Plan, sources: list[Passage], most: int
) -> Prompt:
    """At most so many tokens, and as the generator's context allows."""
    assert plan.generator is not None
    context = (await services.models.info(plan.generator)).context
    return await build_prompt(
        services.models,
        plan.generator,
        system=plan.answer.system_prompt,
        hits=[passage.hit for passage in sources],
        history=request.history,
        question=plan.question,
        budget=min(most, context - plan.max_tokens),
    )


async def _count(
    services: Services, generator: str, prompt: Sequence[Message], written: str
) -> Usage:
    """The usage of a generator that was stopped before it could tell: what its tokenizer counts,
    without what its chat template adds."""
    texts = [*(message.content for message in prompt), written]
    *read, out = await services.models.count(generator, texts)
    return Usage(sum(read), out)


async def _quote(
    services: Services,
    plan: Plan,
    checker: Checker,
    sources: list[Passage],
    budget: Budget,
    run: Run,
) -> AsyncGenerator[Event, None]:
    """An answer made of quotations alone; a refusal if none is left that holds."""
    paces = services.paces
    found, skipped = await choose_in_time(services.models, plan, sources, budget, paces)
    run.skipped += skipped
    began = time.monotonic()
    async for event in checker.quote(found):
        yield event
    paces.note(FINISH, time.monotonic() - began)
    if checker.supported == 0:
        yield checker.refuse()


def _done(
    services: Services,
    plan: Plan,
    checker: Checker,
    result: SearchResult,
    run: Run,
) -> DoneEvent:
    retrieval = {f"retrieve.{name}": ms for name, ms in result.timings.items()}
    repeated = ("generate: cut short, the model repeated itself",) if checker.repeats else ()
    return DoneEvent(
        finish_reason=run.finish_reason,
        usage=run.usage,
        refusal=checker.refused,
        timings=retrieval | run.total(),
        skipped=(*plan.skipped, *run.skipped, *repeated),
        config_version=services.config_version,
        generation=result.generation,
    )
