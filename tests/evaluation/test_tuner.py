"""Tuning over a real index: what pays and harms nothing is kept, and the file that it writes."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterator, Sequence
from contextlib import AsyncExitStack
from pathlib import Path
from typing import Any

import msgspec
import pytest
from msgspec.structs import replace
from tests.evaluation.evaluating import HANDBOOK, question, suite

from headrace.app import application
from headrace.cli.tune import Start, milliseconds
from headrace.config.options import Config
from headrace.errors import BadRequest, StorageError
from headrace.evaluation.format import Gold
from headrace.evaluation.journal import Identity, Record
from headrace.evaluation.levers import Change, Lever, Scene
from headrace.evaluation.metrics import Metric
from headrace.evaluation.report import Times
from headrace.evaluation.running import identity_of
from headrace.evaluation.trial import Laboratory, _ratio
from headrace.evaluation.tuned_files import CONFIG, DATA, EVIDENCE, earlier, write_tuned
from headrace.evaluation.tuner import SAMPLE, Side, Tuned, Tuner, slow_half, worse_than
from headrace.serving.hosting import model_host
from headrace.serving.pool import Pool

TEXT = """# ours
models:
  talk: {role: generator, engine: echo, source: delay=0.03}
  quick: {role: generator, engine: echo}  # the small one
  vector: {role: embedder, engine: echo}
defaults:
  generator: talk  # writes
  embedder: vector
"""
ASKED = suite(
    question(
        1,
        "Who keeps the keys of the gates?",
        gold=((Gold(place="Keys"),),),
        answers=("The race keeper keeps the keys of the gates.",),
    ),
    question(
        2,
        "How long is annual leave?",
        gold=((Gold(place="Leave"),),),
        answers=("Annual leave is 24 days a year.",),
    ),
    kinds=("answers",),
)


def lever(name: str, *values: dict[tuple[str, ...], Any]) -> Lever:
    def changes(at: Scene) -> Iterator[Change]:
        for value in values:
            yield Change(value, str(value))

    return Lever(name, "something", changes)


CAP = lever("cap", {("answer", "max_tokens"): 2}, {("answer", "max_tokens"): 100})
MODEL = lever("model", {("defaults", "generator"): "quick"})
SLOWER = lever("slower", {("models", "talk", "source"): "delay=0.2"})
FASTER = lever("faster", {("models", "talk", "source"): "delay=0.001"})
INVALID = lever("invalid", {("answer", "max_tokens"): -1})


async def tuned(
    folder: Path,
    levers: Sequence[Lever],
    target_ms: float = 1,
    seconds: float = 600,
    tell: Callable[[Tuned], None] = lambda found: None,
) -> Tuned:
    start = Start(f"data_dir: {folder / 'data'}\ncache_dir: {folder / 'cache'}\n{TEXT}", None)
    config = start.apply({})
    (folder / "handbook.md").write_text(HANDBOOK, encoding="utf-8")
    async with AsyncExitStack() as stack:
        host = await stack.enter_async_context(model_host(config))
        services = await stack.enter_async_context(application(config, host))
        await services.jobs.run("book", [folder / "handbook.md"])
        assert isinstance(host.models, Pool)
        identity = await identity_of(services, ASKED)

        def told(found: Tuned) -> None:
            write_tuned(found, start.text, folder / "out")
            tell(found)

        tuner = Tuner(
            Laboratory(services, host.models.configure, ASKED),
            start.apply,
            target_ms=target_ms,
            seconds=seconds,
            levers=levers,
            identity=identity,
            earlier=earlier(folder / "out", identity),
            tell=told,
        )
        async with asyncio.timeout(120):
            found = await tuner.run()
        write_tuned(found, start.text, folder / "out")
        return found


@pytest.mark.slow
async def test_what_is_faster_is_kept_and_what_cuts_answers_is_not(tmp_path: Path) -> None:
    found = await tuned(tmp_path, [CAP, INVALID, SLOWER, MODEL])
    verdicts = {(one.lever, one.verdict) for one in found.evidence}
    assert ("cap", "worse answers") in verdicts
    assert ("invalid", "invalid") in verdicts
    assert ("slower", "no gain") in verdicts
    assert ("model", "kept") in verdicts
    cut = next(one for one in found.evidence if one.verdict == "worse answers")
    assert cut.worse["answers.exact"] == (1.0, 0.0)
    assert (("defaults", "generator"), "quick") in found.values
    assert (("answer", "max_tokens"), 2) not in found.values
    assert found.after.total.p95 < found.before.total.p95
    assert found.after.metrics == found.before.metrics
    assert found.checked
    assert not found.reached

    written = (tmp_path / "out" / CONFIG).read_text(encoding="utf-8")
    assert "# the small one" in written  # comments stay
    assert "generator: quick" in written
    loaded = Start(written, tmp_path / "out" / CONFIG).apply({})
    assert loaded.defaults.generator == "quick"
    report = (tmp_path / "out" / EVIDENCE).read_text(encoding="utf-8")
    assert "worse answers: " in report
    assert "answers.exact 1 → 0" in report
    assert "defaults.generator: quick" in report


@pytest.mark.slow
async def test_a_model_with_other_options_is_tried_as_a_twin(tmp_path: Path) -> None:
    found = await tuned(tmp_path, [FASTER])
    assert found.values == ((("models", "talk", "source"), "delay=0.001"),)
    assert found.after.total.p95 < found.before.total.p95


@pytest.mark.slow
async def test_a_run_that_was_stopped_goes_on_after_its_last_trial(tmp_path: Path) -> None:
    def stop(found: Tuned) -> None:
        if len(found.evidence) == 3:
            raise asyncio.CancelledError

    levers = [CAP, INVALID, MODEL, SLOWER]
    with pytest.raises(asyncio.CancelledError):
        await tuned(tmp_path, levers, tell=stop)
    kept = (tmp_path / "out" / DATA).read_bytes()
    told: list[Tuned] = []
    found = await tuned(tmp_path, levers, tell=told.append)
    assert [one.lever for one in found.evidence] == ["cap", "cap", "invalid", "model", "slower"]
    assert [len(one.evidence) for one in told] == [4, 5]  # nothing of before is tried, or lost
    assert msgspec.json.decode(kept, type=Tuned).evidence == found.evidence[:3]
    assert "max_tokens" in found.evidence[2].why
    again = await tuned(tmp_path, levers, tell=told.append)
    assert (again.values, again.evidence) == (found.values, found.evidence)
    assert len(told) == 2
    assert again.checked


async def test_trials_of_another_state_are_not_taken(tmp_path: Path) -> None:
    times = Times(1, 1.0, 1.0)
    side = Side(times, {})
    identity = Identity("suite", "config", "1", "book", "today", 3, machine="here")
    made = Tuned(1.0, side, side, (), (), 1, 1, 1.0, identity=identity)
    write_tuned(made, TEXT, tmp_path)
    assert earlier(tmp_path, identity) == made
    assert earlier(tmp_path / "none", identity) is None
    with pytest.raises(BadRequest, match=r"before the machine changed.*--fresh"):
        earlier(tmp_path, replace(identity, machine="there"))
    (tmp_path / DATA).write_text("{}")
    with pytest.raises(StorageError, match="--fresh"):
        earlier(tmp_path, identity)


@pytest.mark.slow
async def test_it_ends_when_the_target_is_reached_or_the_time_is_over(tmp_path: Path) -> None:
    enough = await tuned(tmp_path, [MODEL], target_ms=1e6)
    assert enough.reached
    assert not enough.evidence
    assert "target" in enough.ended
    late = await tuned(tmp_path, [MODEL], seconds=0.001)
    assert "time" in late.ended
    assert not late.values


def test_questions_that_fail_decide_nothing_by_their_time() -> None:
    fails = float("inf")
    assert _ratio({"a": 10.0, "b": 30.0}, {"a": 5.0, "b": 15.0}) == 0.5
    assert _ratio({"a": 10.0, "b": fails}, {"a": 5.0, "b": 7.0}) == 0.5
    assert _ratio({"a": 10.0, "b": 10.0}, {"a": 1.0, "b": fails}) == fails
    assert _ratio({"a": fails}, {"a": 1.0}) == fails


def test_a_trial_asks_the_slower_half() -> None:
    questions = [question(n, "?") for n in range(40)]
    records = [Record(id=f"q{n}", timings={"total": float(n)}) for n in range(40)]
    chosen = [int(one.id[1:]) for one in slow_half(questions, records)]
    assert len(chosen) == SAMPLE
    assert min(chosen) >= 20
    assert chosen[0] == 39


def test_worse_is_what_drops_or_vanishes_or_rises_where_less_is_better() -> None:
    def metrics(**values: float) -> dict[str, Metric]:
        return {name.replace("_", "."): Metric(value, 10) for name, value in values.items()}

    before = metrics(quotes_recall=0.9, refusal_false=0.1, answers_f1=0.5)
    assert worse_than(before, metrics(quotes_recall=0.95, refusal_false=0.0, answers_f1=0.5)) == {}
    found = worse_than(before, metrics(quotes_recall=0.8, refusal_false=0.2))
    assert set(found) == {"quotes.recall", "refusal.false", "answers.f1"}


def test_times_are_read_as_people_write_them() -> None:
    assert [milliseconds(text) for text in ("1000ms", "1.5s", "800", " 2 s ")] == [
        1000,
        1500,
        800,
        2000,
    ]
    for text in ("soon", "0ms", "-5s", "", "1m"):
        with pytest.raises(BadRequest, match="1000ms"):
            milliseconds(text)


def test_the_start_is_the_file_or_the_defaults() -> None:
    assert Start("", None).apply({}).answer == Config().answer
    assert Start("", None).apply({("answer", "max_tokens"): 7}).answer.max_tokens == 7
