"""Finding a faster configuration that answers as well: `headrace tune`.

1. All questions of the suite are answered as the configuration says: the default's times and
   metrics. 2. The levers are pulled in order (`headrace.evaluation.levers`), each beside the best
   configuration so far, on the slower half of the questions, in turns. What does not pay is
   dropped. 3. What pays answers the whole suite; if a metric is worse than the default's
   (`headrace.evaluation.gate`), it is dropped too, and the lever's next, milder change is tried.
4. It ends when the 95th percentile is where it should be, the levers or the time are used up; then
   the default and what was found answer the whole suite once more, in turns. These are the numbers
   that count.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from typing import Literal, TypeAlias

import msgspec

from headrace.config.options import Config
from headrace.errors import ConfigError
from headrace.evaluation.format import Question
from headrace.evaluation.gate import TOLERANCE
from headrace.evaluation.journal import Identity, Record
from headrace.evaluation.levers import LEVERS, Change, Lever, Path, scene
from headrace.evaluation.metrics import LOWER_IS_BETTER, Metric, means, measure
from headrace.evaluation.report import Times, times_of
from headrace.evaluation.trial import Laboratory

PAYS = 0.97
"""What takes more of the time before than this is noise, or not worth an option."""

SAMPLE = 6
"""Questions of a trial; more than the slots of a generator, whose caches would hold them all."""

Verdict: TypeAlias = Literal["kept", "no gain", "worse answers", "invalid"]


class Side(msgspec.Struct, frozen=True):
    """The whole suite under one configuration."""

    total: Times
    metrics: dict[str, Metric]


class Evidence(msgspec.Struct, frozen=True):
    """One trial. `ratio` of the time of the sample; `after` and `worse` (metric: before and after,
    `None` where it is absent now) of the whole suite, where it came to that; `why` it is not
    valid."""

    lever: str
    harms: str
    change: str
    verdict: Verdict
    ratio: float | None = None
    after: Side | None = None
    worse: dict[str, tuple[float, float | None]] = {}
    why: str = ""


class Tuned(msgspec.Struct, frozen=True):
    """What was found so far. `values` with their paths in the configuration; `checked` says that
    the two sides were measured in turns at the end, `ended` why it ended, empty until then.
    `identity` is that of what was measured: a run of the same goes on from the evidence."""

    target_ms: float
    before: Side
    after: Side
    values: tuple[tuple[Path, object], ...]
    evidence: tuple[Evidence, ...]
    questions: int
    asked: int
    seconds: float
    checked: bool = False
    ended: str = ""
    identity: Identity | None = None

    @property
    def reached(self) -> bool:
        return self.after.total.p95 <= self.target_ms


class Tuner:
    """One run. `apply` makes the configuration with some values changed; it raises `ConfigError`
    for one that is not valid. `tell` is told after each trial. What `earlier`, a run of the same
    `identity`, has tried is not tried again."""

    def __init__(
        self,
        laboratory: Laboratory,
        apply: Callable[[dict[Path, object]], Config],
        *,
        target_ms: float,
        seconds: float,
        models: tuple[str, ...] = (),
        levers: Sequence[Lever] = LEVERS,
        identity: Identity | None = None,
        earlier: Tuned | None = None,
        tell: Callable[[Tuned], None] = lambda tuned: None,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._laboratory = laboratory
        self._apply = apply
        self._target = target_ms
        self._seconds = seconds
        self._models = models
        self._levers = levers
        self._tell = tell
        self._clock = clock
        self._began = clock()
        self._identity = identity
        self._earlier = earlier
        known = earlier.evidence if earlier is not None else ()
        self._known = {(one.lever, one.change): one for one in known}
        self._values: dict[Path, object] = {}
        self._evidence: list[Evidence] = []

    async def run(self) -> Tuned:
        """Raises what the first question raises if all of them fail."""
        suite = self._laboratory.suite
        default = self._now = self._apply({})
        await self._laboratory.use(default)
        await self._laboratory.answers(default, suite.questions[:1])
        began = self._clock()
        self._before = self._after = await self._whole(default)
        whole = self._clock() - began
        sample = slow_half(suite.questions, self._records)
        if not self._known:  # else there is more to tell already
            self._tell(self._tuned())
        ended = "all levers were tried"
        for lever in self._levers:
            if self._after.total.p95 <= self._target:
                ended = "the target is reached"
                break
            if not await self._pull(lever, sample, reserve=2.2 * whole):
                ended = "the time is over"
                break
        if self._values:
            self._before, self._after = await self._compared(default)
        return self._tuned(checked=bool(self._values), ended=ended)

    async def _pull(self, lever: Lever, sample: Sequence[Question], reserve: float) -> bool:
        """Try the changes of a lever until one is kept. False if there is no time."""
        suite = self._laboratory.suite
        at = scene(self._now, suite.collection, self._models, suite.answer)
        for change in lever.effective(at):
            known = self._known.get((lever.name, change.says))
            if known is None and self._clock() - self._began > self._seconds - reserve:
                return False
            evidence = known or await self._tried(lever, change, sample)
            self._evidence.append(evidence)
            kept = evidence.verdict == "kept" and evidence.after is not None
            if kept and evidence.after is not None:
                self._values |= change.values
                self._now, self._after = self._apply(self._values), evidence.after
            await self._laboratory.use(self._now)
            if known is None:
                self._tell(self._tuned())
            if kept:
                break
        return True

    async def _tried(self, lever: Lever, change: Change, sample: Sequence[Question]) -> Evidence:
        evidence = Evidence(lever.name, lever.harms, change.says, "no gain")
        try:
            config = self._apply({**self._values, **change.values})
            ratio = await self._laboratory.ratio(self._now, config, sample)
            evidence = msgspec.structs.replace(evidence, ratio=round(ratio, 3))
            if ratio > PAYS:
                return evidence
            await self._laboratory.use(config)
            after = await self._whole(config)
        except ConfigError as error:  # also of a model that cannot be loaded
            return msgspec.structs.replace(evidence, verdict="invalid", why=error.message)
        worse = worse_than(self._before.metrics, after.metrics)
        verdict: Verdict = "worse answers" if worse else "kept"
        return msgspec.structs.replace(evidence, verdict=verdict, after=after, worse=worse)

    async def _whole(self, config: Config) -> Side:
        suite = self._laboratory.suite
        self._records = await self._laboratory.answers(config, suite.questions)
        return self._side(self._records)

    async def _compared(self, default: Config) -> tuple[Side, Side]:
        """Both sides on the whole suite, a question under one, then a block under the other."""
        suite = self._laboratory.suite
        await self._laboratory.use(default)
        old: list[Record] = []
        new: list[Record] = []
        same = default.models == self._now.models
        block = SAMPLE if same else len(suite.questions)  # models are changed once
        for start in range(0, len(suite.questions), block):
            some = suite.questions[start : start + block]
            old += await self._laboratory.answers(default, some)
            if not same:
                await self._laboratory.use(self._now)
            new += await self._laboratory.answers(self._now, some)
        return self._side(old), self._side(new)

    def _side(self, records: Sequence[Record]) -> Side:
        totals = [record.timings["total"] for record in records if not record.failed]
        if not totals:
            raise ConfigError(f"every question of the suite failed: {records[0].failed}")
        return Side(times_of(totals), means(measure(self._laboratory.suite, records)))

    def _tuned(self, *, checked: bool = False, ended: str = "") -> Tuned:
        return Tuned(
            target_ms=self._target,
            before=self._before,
            after=self._after,
            values=tuple(self._values.items()),
            evidence=tuple(self._evidence),
            questions=len(self._laboratory.suite.questions),
            asked=self._laboratory.asked + (self._earlier.asked if self._earlier else 0),
            seconds=round(
                self._clock() - self._began + (self._earlier.seconds if self._earlier else 0), 1
            ),
            checked=checked,
            ended=ended,
            identity=self._identity,
        )


def slow_half(questions: Sequence[Question], records: Sequence[Record]) -> list[Question]:
    """At most `SAMPLE` of the slower half, spread evenly: they make the 95th percentile."""
    ms = {record.id: record.timings.get("total", 0.0) for record in records}
    slower = sorted(questions, key=lambda question: -ms[question.id])
    slower = slower[: max(1, (len(slower) + 1) // 2)]
    count = min(SAMPLE, len(slower))
    return [slower[i * len(slower) // count] for i in range(count)]


def worse_than(
    before: dict[str, Metric], after: dict[str, Metric]
) -> dict[str, tuple[float, float | None]]:
    """Metrics that are worse by more than the gate allows, or absent now: before and after."""
    worse: dict[str, tuple[float, float | None]] = {}
    for name, old in before.items():
        new = after.get(name)
        if new is None:
            worse[name] = (round(old.value, 4), None)
            continue
        change = old.value - new.value if name not in LOWER_IS_BETTER else new.value - old.value
        if change > TOLERANCE:
            worse[name] = (round(old.value, 4), round(new.value, 4))
    return worse
