"""How long answers take, stage by stage: questions through the real pipeline, timed.

Unlike an evaluation it asks as a person would (interactive lane), knows no gold, and says how much
of the models' time was waiting.
"""

from __future__ import annotations

import contextlib
import itertools
import time
from collections import Counter
from collections.abc import Callable, Sequence

import msgspec
from msgspec.structs import replace

from headrace.errors import HeadraceError, ModelFailed, by_code
from headrace.evaluation.report import Times, times_of
from headrace.pipeline.answer import answer
from headrace.pipeline.plan import AnswerRequest
from headrace.pipeline.services import Services
from headrace.serving.models import together
from headrace.serving.survey import MODELS, Nothing
from headrace.types import DeltaEvent, DoneEvent, ErrorEvent, Usage

FIRST_TEXT = "first_text"
"""From the question to the first text that a reader sees: the name of this among the stages."""


P99_NEEDS = 100
"""Values from which the slowest in a hundred is shown; to be believed it needs ten times more."""


class Timed(msgspec.Struct, frozen=True):
    """One answer. `timings` in milliseconds by stage, `total` and `first_text` among them; `failed`
    is an error's code. `cached` if it came out of a cache."""

    timings: dict[str, float]
    usage: Usage = Usage()
    refusal: bool = False
    cached: bool = False
    skipped: tuple[str, ...] = ()
    failed: str = ""


class Shares(msgspec.Struct, frozen=True):
    """Seconds of one model's calls, of all that were made in the run."""

    waited: float
    worked: float


class Measurement(msgspec.Struct, frozen=True):
    """`seconds` for all answers. `tokens_in`, `tokens_out` are per answer that a generator wrote;
    `models` has the seconds of their calls; `failures` and `skipped` count."""

    questions: int
    users: int
    seconds: float
    stages: dict[str, Times]
    tokens_in: Times | None
    tokens_out: Times | None
    cached: int
    refused: int
    failures: dict[str, int]
    skipped: dict[str, int]
    models: dict[str, Shares]


async def measure(
    services: Services,
    requests: Sequence[AnswerRequest],
    count: int,
    *,
    users: int = 1,
    deadline_ms: int | None = None,
    progress: Callable[[int], None] = lambda done: None,
) -> Measurement:
    """`count` answers (at least one), the requests in turn, `users` of them at once; the first
    request is asked once before, so that no load of a model is measured. Failures are counted, not
    raised; but what that first one fails with is raised."""
    await _asked(services, requests[0])
    before = await _spent(services)
    turns = itertools.islice(itertools.cycle(requests), count)
    found: list[Timed] = []

    async def user() -> None:
        for request in turns:
            try:
                found.append(await _asked(services, _timely(request, deadline_ms)))
            except HeadraceError as error:
                found.append(Timed({}, failed=error.code))
            progress(len(found))

    began = time.perf_counter()
    await together(*(user() for _ in range(min(users, count))))
    seconds = time.perf_counter() - began
    after = await _spent(services)
    spent = {
        name: Shares(now.waited - old.waited, now.worked - old.worked)
        for name, now in after.items()
        if (old := before.get(name, Shares(0.0, 0.0))) != now
    }
    return summed(found, users, seconds, spent)


def _timely(request: AnswerRequest, deadline_ms: int | None) -> AnswerRequest:
    """Due so long from now."""
    if deadline_ms is None:
        return request
    call = replace(request.call, deadline=time.monotonic() + deadline_ms / 1000)
    return replace(request, call=call)


async def _asked(services: Services, request: AnswerRequest) -> Timed:
    began, first = time.perf_counter(), 0.0
    async with contextlib.aclosing(answer(services, request)) as events:
        async for event in events:
            match event:
                case DeltaEvent() if not first:
                    first = time.perf_counter() - began
                case DoneEvent():
                    return Timed(
                        {**event.timings, FIRST_TEXT: round(1000 * first, 3)},
                        event.usage,
                        event.refusal,
                        event.cached is not None,
                        event.skipped,
                    )
                case ErrorEvent(code, message):
                    raise by_code(code, message)
    raise ModelFailed("the answer broke off")


def summed(
    found: Sequence[Timed], users: int, seconds: float, models: dict[str, Shares]
) -> Measurement:
    good = [one for one in found if not one.failed]
    stages: dict[str, list[float]] = {}
    for one in good:
        for stage, ms in one.timings.items():
            stages.setdefault(stage, []).append(ms)
    written = [one.usage for one in good if one.usage.total_tokens]
    return Measurement(
        questions=len(found),
        users=users,
        seconds=round(seconds, 3),
        stages={stage: times_of(values, P99_NEEDS) for stage, values in stages.items()},
        tokens_in=_tokens([u.prompt_tokens for u in written]),
        tokens_out=_tokens([u.completion_tokens for u in written]),
        cached=sum(one.cached for one in good),
        refused=sum(one.refusal for one in good),
        failures=dict(Counter(one.failed for one in found if one.failed)),
        skipped=dict(Counter(what.split(":")[0] for one in good for what in one.skipped)),
        models=models,
    )


def _tokens(counts: Sequence[int]) -> Times | None:
    return times_of(list(map(float, counts)), P99_NEEDS) if counts else None


async def _spent(services: Services) -> dict[str, Shares]:
    survey = await services.control.ask(MODELS, Nothing())
    return {
        model.name: Shares(sum(model.waited.values()), sum(model.worked.values()))
        for model in survey.models
    }
