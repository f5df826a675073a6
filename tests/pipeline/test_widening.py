"""What is read beside a passage found: over a real index of documents with cut sections."""

from __future__ import annotations

from collections.abc import AsyncIterator, Sequence
from contextlib import aclosing
from dataclasses import replace
from pathlib import Path
from typing import Any, Literal, TypeAlias

import pytest
import pytest_asyncio

from headrace.app import application
from headrace.config.model_options import DefaultModels, ModelOptions
from headrace.config.options import Config, IngestOptions
from headrace.pipeline.answer import answer
from headrace.pipeline.plan import AnswerRequest
from headrace.pipeline.services import Services
from headrace.pipeline.widening import widened
from headrace.retrieval.embedded import EmbeddedIndex
from headrace.types import (
    ALL_ACCESS,
    Event,
    Filter,
    Hit,
    HitsEvent,
    QuoteEvent,
    Role,
    StageEvent,
)

pytestmark = pytest.mark.asyncio(loop_scope="module")

OWNER = Filter(access=ALL_ACCESS)
Widen: TypeAlias = Literal["off", "cut", "section"]

MANUAL = """# Manual of the pump house

## Starting

The keeper who starts the pump in the morning does all of the following, in this order, and notes \
each in the book that lies beside the door of the pump house:

- open the suction valve by two turns and wait until the air has left the pipe
- set the governor to 120 turns a minute and watch the needle for one minute
- close the bypass when the pressure has reached 4 bar, and lock it

## Stopping

The pump is stopped before the gate is closed, never after it, or the pipe may burst.

After stopping, the keeper opens the drain so that no water stands in the pump over the night.

In frost the drain stays open, and a lamp is lit under the pump until the morning of the next day.
"""
PRESSURES = """# 水压

## 各级水压

各级水渠在开闸以后应当达到的水压如下，达不到的，渠务员应当立即关闸并报告市政厅，\
不得继续供水，也不得自行修理水泵：

一级水渠，水压为四巴，每小时读数一次，读数记入渠簿，渠簿保存五年。
二级水渠，水压为三巴，每两小时读数一次，读数记入渠簿，渠簿保存三年。
"""
TABLE = "name,pressure\n" + "".join(f"valve {n},{n} bar at the lower end\n" for n in range(1, 6))


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def services(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[Services]:
    folder = tmp_path_factory.mktemp("widening")
    documents = folder / "documents"
    documents.mkdir()
    (documents / "manual.md").write_text(MANUAL)
    (documents / "水压.md").write_text(PRESSURES)
    (documents / "valves.csv").write_text(TABLE)
    config = Config(
        data_dir=folder / "data",
        cache_dir=folder / "cache",
        models={
            "echo-vector": ModelOptions(role=Role.EMBEDDER, engine="echo"),
            "echo-talk": ModelOptions(role=Role.GENERATOR, engine="echo"),
        },
        defaults=DefaultModels(embedder="echo-vector", generator="echo-talk"),
        ingest=IngestOptions(chunk_tokens=64),
    )
    async with application(config) as made:
        await made.jobs.run("mill", [documents])
        yield made


@pytest.fixture
def index(services: Services) -> EmbeddedIndex:
    return services.collections.open("mill")


async def ask(services: Services, question: str, **options: Any) -> list[Event]:
    request = AnswerRequest("mill", question, OWNER, **options)
    async with aclosing(answer(services, request)) as events:
        return [event async for event in events]


def chunks(index: EmbeddedIndex, name: str) -> list[Hit]:
    """All chunks of a document, in its order."""
    ids = index.snapshot().live.nonzero()[0].tolist()
    return [hit for hit in index.get({key: {} for key in ids}, OWNER) if hit.source.endswith(name)]


def holding(index: EmbeddedIndex, words: str) -> Hit:
    (found,) = (
        hit
        for name in ("manual.md", "水压.md", "valves.csv")
        for hit in chunks(index, name)
        if words in hit.text
    )
    return found


def read(
    index: EmbeddedIndex, *hits: Hit, widen: Widen = "cut", tokens: int = 1000
) -> list[tuple[int, str]]:
    found = widened(hits, index, OWNER, widen, tokens)
    for hit in found:
        document = index.document(hit.document_id)
        assert document is not None
        assert hit.span.of(document.parsed.text) == hit.text
    return [(hit.chunk_id, hit.text) for hit in found]


@pytest.mark.parametrize(
    ("introduction", "items"),
    [("in this order", ("suction", "governor", "bypass")), ("各级水渠", ("一级水渠", "二级水渠"))],
)
async def test_an_introduction_is_read_with_the_list_that_was_cut_off(
    index: EmbeddedIndex, introduction: str, items: Sequence[str]
) -> None:
    hit = holding(index, introduction)
    assert not any(item in hit.text for item in items[1:]), "the example is not cut"
    ((_, text),) = read(index, hit)
    assert text.startswith(hit.text)
    assert items[0] in text


async def test_an_item_is_read_with_what_introduces_it(index: EmbeddedIndex) -> None:
    hit = holding(index, "一级水渠")
    ((chunk, text),) = read(index, hit)
    assert chunk == hit.chunk_id
    assert "各级水渠" in text
    assert hit.text in text


async def test_a_paragraph_beside_it_is_read_only_if_wanted(index: EmbeddedIndex) -> None:
    hit = holding(index, "never after it")
    assert "In frost" not in hit.text, "the example is not cut"
    assert read(index, hit) == [(hit.chunk_id, hit.text)]
    ((_, text),) = read(index, hit, widen="section")
    assert text.startswith(hit.text)
    assert len(text) > len(hit.text)
    assert read(index, hit, widen="section", tokens=0) == [(hit.chunk_id, hit.text)]


async def test_another_section_or_row_is_no_neighbour(index: EmbeddedIndex) -> None:
    last = [hit for hit in chunks(index, "manual.md") if "Starting" in hit.path][-1]
    ((_, text),) = read(index, last, widen="section")
    assert "Stopping" not in text
    assert "is stopped" not in text
    row = holding(index, "valve 3")
    assert read(index, row, widen="section") == [(row.chunk_id, row.text)]


async def test_neighbours_that_were_both_found_are_one_passage(index: EmbeddedIndex) -> None:
    first, second = holding(index, "各级水渠"), holding(index, "一级水渠")
    other = holding(index, "valve 3")
    found = read(index, second, other, first, tokens=0)
    assert [chunk for chunk, _ in found] == [second.chunk_id, other.chunk_id]
    assert first.text in found[0][1]
    assert second.text in found[0][1]
    assert read(index, second, other, first, widen="off") == [
        (hit.chunk_id, hit.text) for hit in (second, other, first)
    ]


async def test_nothing_that_the_caller_may_not_read(index: EmbeddedIndex) -> None:
    hit = holding(index, "各级水渠")
    (found,) = widened([hit], index, Filter(access=frozenset({"others"})), "section", 1000)
    assert found == hit


async def test_a_document_that_changed_is_read_as_it_was_found(
    services: Services, tmp_path: Path
) -> None:
    file = tmp_path / "manual.md"
    file.write_text(MANUAL)
    await services.jobs.run("changing", [file])
    index = services.collections.open("changing")
    hit = next(hit for hit in chunks(index, "manual.md") if "in this order" in hit.text)
    file.write_text(MANUAL.replace("Manual", "Handbook"))
    await services.jobs.run("changing", [file])
    (found,) = widened([hit], index, OWNER, "section", 1000)
    assert found == hit


async def test_an_answer_quotes_across_the_cut(services: Services, index: EmbeddedIndex) -> None:
    seen = await ask(services, "各级水渠在开闸以后应当达到的水压是多少？", generate="none", hits=1)
    (hits,) = (event.hits for event in seen if isinstance(event, HitsEvent))
    (stage,) = (event for event in seen if isinstance(event, StageEvent) and event.name == "widen")
    assert not stage.detail.startswith("0 characters")
    quoted = [event.quote for event in seen if isinstance(event, QuoteEvent)]
    beyond = [
        quote
        for quote in quoted
        if not any(h.span.start <= quote.span.start and quote.span.end <= h.span.end for h in hits)
    ]
    assert beyond, "nothing beside the hit was quoted"
    for quote in quoted:
        document = index.document(quote.document_id)
        assert document is not None
        assert quote.span.of(document.parsed.text) == quote.text


def stage(events: Sequence[Event], name: str) -> str:
    (found,) = (event for event in events if isinstance(event, StageEvent) and event.name == name)
    return found.detail


async def test_what_a_generator_reads_stays_within_its_budget(services: Services) -> None:
    question = "各级水渠在开闸以后应当达到的水压是多少？"
    roomy = await ask(services, question, hits=1)
    assert not stage(roomy, "widen").startswith("0 characters")
    answers = services.config.answer.model_copy(update={"prompt_tokens": 128})
    config = services.config.model_copy(update={"answer": answers})
    tight = await ask(replace(services, config=config), question, hits=1)
    assert stage(tight, "widen").startswith("0 characters")


async def test_a_low_estimate_leaves_no_passage_out_of_the_prompt(
    services: Services, tmp_path: Path
) -> None:
    file = tmp_path / "codes.md"
    rows = "\n\n".join(f"## Gate {n}\n\nGate opens a b c d e f g h i j k l m {n}." for n in "12345")
    file.write_text(f"# Codes\n\n{rows}\n")
    await services.jobs.run("codes", [file])
    request = AnswerRequest("codes", "Which gate opens a b c?", OWNER)
    async with aclosing(answer(services, request)) as events:
        seen = [event async for event in events]
    assert stage(seen, "prompt") == "5 of 5 passages"
