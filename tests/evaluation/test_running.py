"""Runs through the real pipeline, and their journal."""

from __future__ import annotations

import asyncio
import sqlite3
from contextlib import closing
from pathlib import Path

import msgspec
import pytest
from msgspec.structs import replace
from tests.evaluation.evaluating import handbook, question, suite

from headrace.config.model_options import ModelOptions
from headrace.config.options import Config
from headrace.errors import BadRequest, Busy, ModelFailed, StorageError, UnknownCollection
from headrace.evaluation import running
from headrace.evaluation.asking import ask
from headrace.evaluation.format import Gold
from headrace.evaluation.journal import FILE, Identity, Journal, Record
from headrace.evaluation.output import write_all
from headrace.evaluation.report import read, summarise
from headrace.evaluation.running import run_suite
from headrace.retrieval.ranker import FORMAT, Fitted, digest
from headrace.types import Role

IDENTITY = Identity("suite", "config", "1", "book", "today", 3)
RECORDS = [Record(id=f"q{n}", timings={"total": 9.0}) for n in (1, 2, 3)]


async def test_a_run_from_questions_to_report(fast: Config, tmp_path: Path) -> None:
    asked = suite(
        question(
            1,
            "Who keeps the keys of the gates?",
            gold=((Gold(place="Keys"),),),
            answers=("The race keeper keeps the keys of the gates.",),
            choices=("1. The mayor", "2. The race keeper"),
            correct=2,
        ),
        question(2, "How long is annual leave?", gold=((Gold(place="Leave"),),)),
        question(3, "Zzyzx qwrtp?", answerable=False),
        kinds=("retrieval", "answers"),
    )
    told: list[tuple[int, int]] = []
    async with handbook(fast, tmp_path) as services:
        report = await run_suite(
            services, asked, tmp_path / "out", progress=lambda *done: told.append(done)
        )
        index = services.collections.open("book")
        chunks = index.info().chunks
    assert told == [(0, 3), (1, 3), (2, 3), (3, 3)]
    assert report.questions == 3
    assert {"dense.R@1", "lexical.R@1", "fused.nDCG@10", "answered.RR@10"} <= set(report.metrics)
    assert report.metrics["lexical.R@1"].value == 1.0
    assert report.metrics["lexical.R@1"].n == 2
    assert report.metrics["quotes.identical"].value == 1.0
    assert report.metrics["answers.exact"].value == 1.0
    assert report.metrics["failed"].value == 0.0
    assert report.models == {"embedder": "echo-embedder", "generator": "echo-generator"}
    first = next(row for row in report.rows if row.id == "q1")
    assert first.record.depths["dense"] == chunks
    assert first.record.sources[0].endswith("handbook.md > Handbook > Keys")
    assert {"total", "retrieve", "search.total"} <= set(report.times)

    write_all(report, tmp_path / "out")
    again = read(tmp_path / "out")
    assert again == report
    text = (tmp_path / "out" / "report.md").read_text(encoding="utf-8")
    assert "| lexical | 1.000 |" in text
    assert "![recall by stage](recall-by-stage.svg)" in text
    for name in ("recall-by-stage.svg", "metrics.svg", "time-per-stage.svg"):
        assert "</svg>" in (tmp_path / "out" / name).read_text(encoding="utf-8")


async def test_gold_that_is_nowhere_is_a_mistake_of_the_suite(fast: Config, tmp_path: Path) -> None:
    asked = suite(
        *suite().questions,
        question(4, "Who keeps the keys?", gold=((Gold(place="Kays"),),)),
        question(5, "Zzyzx?", gold=((Gold(document="handbook.md", place="Leave"),),)),
    )
    async with handbook(fast, tmp_path) as services:
        report = await run_suite(services, asked, tmp_path / "out")
    (note,) = report.notes
    assert note.startswith("no passage of the collection is the gold one of 1 questions (q4), so")


async def test_a_report_says_that_the_search_was_fitted_to_its_questions(
    fast: Config, tmp_path: Path
) -> None:
    asked = suite()
    async with handbook(fast, tmp_path) as services:
        index = services.collections.open("book")
        learned = Fitted(
            format=FORMAT,
            embedder=index.embedder().fingerprint,
            taught=(digest(asked.questions[0].text), digest("something else")),
            measured={"R@10": 0.5},
        )
        index.ranker.write(learned)
        report = await run_suite(services, asked, tmp_path / "out")
        index.ranker.write(replace(learned, embedder="another"))
        other = await run_suite(services, asked, tmp_path / "other")
    (note,) = report.notes
    assert note.startswith("the collection's search was fitted to 1 of these 3 questions")
    assert note.endswith("by cross-validation: R@10 0.500")
    assert other.notes == ()


async def test_a_reranker_has_a_stage_of_its_own(fast: Config, tmp_path: Path) -> None:
    defaults = fast.defaults.model_copy(update={"reranker": "echo-reranker"})
    config = fast.model_copy(update={"defaults": defaults})
    asked = suite()
    async with handbook(config, tmp_path) as services:
        record = await ask(services, asked, asked.questions[0])
    assert set(record.ranks) == {"dense", "lexical", "fused", "rerank"}
    assert record.ranks["rerank"] == (1,)


async def test_multiple_choice_is_asked_with_its_options(fast: Config, tmp_path: Path) -> None:
    options = ("1. The mayor", "2. The race keeper")
    asked = suite(
        question(1, "Who keeps the keys of the gates?", choices=options, correct=2),
        kinds=("choice",),
    )
    async with handbook(fast, tmp_path) as services:
        record = await ask(services, asked, asked.questions[0])
    assert record.chosen == 2
    assert record.ranks == {}


async def test_nothing_is_asked_twice(
    fast: Config, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked: list[str] = []

    async def counting(services, suite, question):  # type: ignore[no-untyped-def]
        asked.append(question.id)
        if asked == ["q1", "q1", "q2"]:
            raise StorageError("the disk is full")
        return await ask(services, suite, question)

    monkeypatch.setattr(running, "ask", counting)
    async with handbook(fast, tmp_path) as services:
        with pytest.raises(StorageError):
            await run_suite(services, suite(), tmp_path / "out", concurrency=1)
        report = await run_suite(services, suite(), tmp_path / "out", concurrency=1)
        # The first of each session is asked once before, for the models to be loaded.
        assert asked == ["q1", "q1", "q2", "q2", "q2", "q3"]
        assert report.questions == 3
        await run_suite(services, suite(), tmp_path / "out")
        assert len(asked) == 6
        await run_suite(services, suite(), tmp_path / "out", fresh=True)
        assert len(asked) == 10


async def test_states_are_not_mixed(fast: Config, tmp_path: Path) -> None:
    """Another suite, or a collection that changed, needs another folder or a new beginning."""
    out = tmp_path / "out"
    async with handbook(fast, tmp_path) as services:
        await run_suite(services, suite(), out)
        with pytest.raises(
            BadRequest, match=r"3 answers from before the suite or its --limit changed.*--fresh"
        ):
            await run_suite(services, suite(question(9, "?")), out)
        (tmp_path / "docs" / "new.md").write_text("# New\n\nNew words.\n", encoding="utf-8")
        await services.jobs.run("book", [tmp_path / "docs"])
        with pytest.raises(BadRequest, match="before the collection's content changed"):
            await run_suite(services, suite(), out)
        report = await run_suite(services, suite(), out, fresh=True)
        assert report.generation == 2
        with pytest.raises(UnknownCollection):
            await run_suite(services, replace(suite(), collection="none"), out)


async def test_what_is_fitted_meanwhile_is_a_change_too(fast: Config, tmp_path: Path) -> None:
    """Calibration and ranker change answers, and leave the collection's generation as it is."""
    out = tmp_path / "out"
    async with handbook(fast, tmp_path) as services:
        folder = services.collections.open("book").folder

        def calibrated(done: int, total: int) -> None:
            (folder / "calibration.json").write_text("{}")

        with pytest.raises(BadRequest, match=r"calibration or ranker changed during.*--fresh"):
            await run_suite(services, suite(), out, progress=calibrated)
        report = await run_suite(services, suite(), out, fresh=True)
        assert report.questions == 3
        (folder / "ranker.json").write_text("{}")
        with pytest.raises(BadRequest, match="before the collection's calibration or ranker"):
            await run_suite(services, suite(), out)


async def test_a_change_during_the_run_stops_it(
    fast: Config, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def later(services, suite, question):  # type: ignore[no-untyped-def]
        return replace(await ask(services, suite, question), generation=2)

    async with handbook(fast, tmp_path) as services:
        monkeypatch.setattr(running, "ask", later)
        with pytest.raises(BadRequest, match=r"changed during the evaluation \(generation 1 to 2"):
            await run_suite(services, suite(), tmp_path / "out")


def failing(fast: Config, word: str) -> Config:
    """An embedder that cannot compute texts with this word."""
    poisoned = ModelOptions(role=Role.EMBEDDER, engine="echo", source=f"poison={word}")
    return fast.model_copy(update={"models": {**fast.models, "echo-embedder": poisoned}})


async def test_a_question_that_fails_is_counted(
    fast: Config, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(running, "TRIES", 1)
    gold = ((Gold(place="Keys"),),)
    asked = suite(
        question(1, "Who keeps the keys of the gates?", gold=gold),
        question(2, "Which arsenic?", gold=gold),
    )
    async with handbook(failing(fast, "arsenic"), tmp_path) as services:
        report = await run_suite(services, asked, tmp_path / "out")
    assert report.metrics["failed"].value == 0.5
    assert report.metrics["lexical.R@1"].value == 0.5
    assert list(report.failures) == ["model_failed"]


async def test_a_broken_model_is_not_the_questions_fault(
    fast: Config, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Ten failures in a row stop the run, and none of them is kept."""
    monkeypatch.setattr(running, "TRIES", 1)
    asked = suite(*(question(i, f"arsenic {i}", gold=((Gold(place="Keys"),),)) for i in range(30)))
    async with handbook(failing(fast, "arsenic"), tmp_path) as services:
        with pytest.raises(ModelFailed, match="10 questions in a row failed"):
            await run_suite(services, asked, tmp_path / "out")
        identity = await running.identity_of(services, asked)
    with Journal(tmp_path / "out", identity) as journal:
        assert journal.done() == set()


# The journal -------------------------------------------------------------------------------------


def test_a_record_is_kept_once(tmp_path: Path) -> None:
    with Journal(tmp_path / "run", IDENTITY) as journal:
        journal.add(Record(id="a", answer="安", ranks={"dense": (3, 0)}))
        with pytest.raises(StorageError):
            journal.add(Record(id="a", answer="other"))
        with pytest.raises(Busy, match=r"an evaluation \(process \d+\) is running in"):
            Journal(tmp_path / "run", IDENTITY)
    with Journal(tmp_path / "run", IDENTITY) as journal:
        assert list(journal.records()) == [Record(id="a", answer="安", ranks={"dense": (3, 0)})]


def test_a_damaged_journal_says_how_to_go_on(tmp_path: Path) -> None:
    (tmp_path / FILE).write_bytes(b"no database" * 100)
    with pytest.raises(StorageError, match="--fresh begins the evaluation anew"):
        Journal(tmp_path, IDENTITY)
    with Journal(tmp_path, IDENTITY, fresh=True) as journal:
        assert journal.done() == set()


@pytest.mark.parametrize("what", ["run", "records"])
def test_a_journal_of_another_program_says_how_to_go_on(tmp_path: Path, what: str) -> None:
    with Journal(tmp_path, IDENTITY) as journal:
        journal.add(Record(id="a"))
    with closing(sqlite3.connect(tmp_path / FILE, isolation_level=None)) as db:
        column = "identity" if what == "run" else "record"
        db.execute(f"UPDATE {what} SET {column} = ?", (b'{"id": 3}',))
    said = r"of another version of headrace .*--fresh"
    with pytest.raises(StorageError, match=said), Journal(tmp_path, IDENTITY) as journal:
        list(journal.records())


def test_a_folder_that_is_none_is_named(tmp_path: Path) -> None:
    (tmp_path / "out").write_text("a file")
    with pytest.raises(StorageError, match=r"out: File exists; .* give another --out"):
        Journal(tmp_path / "out", IDENTITY)


def test_every_time_of_a_threshold_is_shown(tmp_path: Path) -> None:
    made = summarise(
        Config(), suite(thresholds={"time.total.p95": "<= 1000"}), IDENTITY, RECORDS, 1, 1.0, "e"
    )
    write_all(made, tmp_path)
    text = (tmp_path / "report.md").read_text(encoding="utf-8")
    assert "| time.total.p95 | <= 1000 | 9.000 | yes |" in text
    assert sorted(path.name for path in tmp_path.iterdir() if path.suffix != ".svg") == [
        "questions.jsonl",
        "report.json",
        "report.md",
    ]


@pytest.mark.parametrize(
    "field", ["suite", "config_version", "program", "created", "generation", "fitted", "machine"]
)
def test_every_part_of_the_identity_counts(tmp_path: Path, field: str) -> None:
    with Journal(tmp_path, IDENTITY):
        pass
    changed = msgspec.convert(
        msgspec.to_builtins(IDENTITY) | {field: 9 if field == "generation" else "x"}, Identity
    )
    with pytest.raises(BadRequest, match="changed"):
        Journal(tmp_path, changed)


async def test_a_run_that_is_cancelled_goes_on(fast: Config, tmp_path: Path) -> None:
    asked = suite(*(question(i, f"keys {i}", gold=((Gold(place="Keys"),),)) for i in range(200)))
    begun = asyncio.Event()
    async with handbook(fast, tmp_path) as services:

        def progress(done: int, total: int) -> None:
            if done >= 20:
                begun.set()

        work = asyncio.create_task(run_suite(services, asked, tmp_path / "out", progress=progress))
        await begun.wait()
        work.cancel()
        with pytest.raises(asyncio.CancelledError):
            await work
        report = await run_suite(services, asked, tmp_path / "out")
    assert report.questions == 200
