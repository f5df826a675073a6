"""Cached answers: the same as without a cache, for every caller, at every moment."""

from __future__ import annotations

import asyncio
import re
from collections.abc import AsyncIterator, Iterator, Sequence
from contextlib import aclosing, asynccontextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

import msgspec
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from headrace.config.caching import CacheOptions
from headrace.config.load import config_version
from headrace.config.options import Config
from headrace.errors import BadRequest, UnknownCollection
from headrace.ingest.chunkers import chunk
from headrace.ingest.jobs import Jobs
from headrace.ingest.outcomes import document_id
from headrace.pipeline.answer import answer
from headrace.pipeline.cache import cached, scope
from headrace.pipeline.kept_answers import Kept, KeptAnswers, Key, State
from headrace.pipeline.plan import AnswerRequest
from headrace.pipeline.services import Services
from headrace.retrieval.base import NewChunk, chunk_key, embedding_text
from headrace.retrieval.collections import Collections
from headrace.serving.catalogue import model_specs
from headrace.serving.control import LocalControl
from headrace.serving.embedding_cache import CachedModels, QueryVectors
from headrace.serving.local import LocalModels
from headrace.telemetry import Metrics
from headrace.types import (
    ALL_ACCESS,
    Call,
    DeltaEvent,
    Document,
    DoneEvent,
    Event,
    Filter,
    Heading,
    HitsEvent,
    Message,
    Parsed,
    QuoteEvent,
    Span,
    StageEvent,
    Usage,
)

QUESTION = "Must dogs be kept on a leash?"
LABELS = ("public", "hr", "board")


def text(number: int, variant: int = 0) -> str:
    return (
        f"# Rule {number}\n\nDogs of district {number} must be kept on a leash of {variant + 2} "
        f"metres.\n\n# Fines\n\nThe fine in district {number} is {10 * variant + 40} francs.\n"
    )


def with_cache(services: Services, **options: Any) -> Services:
    """The same parts under a configuration with these options of the cache."""
    cache = CacheOptions(**{"answers": "exact", **options})
    config = services.config.model_copy(update={"cache": cache})
    return replace(services, config=config, config_version=config_version(config))


@asynccontextmanager
async def town(config: Config) -> AsyncIterator[Services]:
    """Services over models in this process, and a collection of two documents."""
    collections, models = (
        Collections(config.data_dir / "collections"),
        LocalModels(model_specs(config)),
    )
    metrics = Metrics()
    vectors = QueryVectors()
    vectors.configure(config.cache)
    wrapped = CachedModels(models, metrics, vectors)
    jobs = Jobs(config, collections, wrapped)
    yield Services(
        *(config, "test", wrapped, collections, jobs, metrics, LocalControl()), vectors=vectors
    )
    collections.close()
    await models.close()


async def put(services: Services, name: str, content: str, label: str = "public") -> None:
    """Store a document, as ingestion does."""
    embedder = services.config.defaults.embedder
    info = await services.models.info(embedder)
    parsed = Parsed(content, "text/markdown", headings=headings(content))
    _, chunking = chunk(parsed, "headings", 400)
    texts = [embedding_text(c.path, c.span.of(content)) for c in chunking.chunks]
    vectors = await services.models.embed(embedder, texts, "passage")
    document = Document(
        document_id(name), name, "0", parsed, "headings", chunking.exclusions, (label,)
    )
    chunks = [
        NewChunk(c, chunk_key(info.fingerprint, text), vector)
        for c, text, vector in zip(chunking.chunks, texts, vectors, strict=True)
    ]

    def write() -> None:
        services.collections.create("town", embedder, info).upsert(document, chunks)

    await asyncio.to_thread(write)


def headings(content: str) -> tuple[Heading, ...]:
    found = re.finditer(r"^# (.+)$", content, re.MULTILINE)
    return tuple(Heading(Span(*match.span()), 1, match[1]) for match in found)


async def fill(services: Services) -> None:
    await put(services, "rules.md", text(1))
    await put(services, "hr.md", text(2), "hr")


@pytest.fixture
async def services(fast: Config) -> AsyncIterator[Services]:
    async with town(fast) as made:
        await fill(made)
        yield with_cache(made)


def request(question: str = QUESTION, **more: Any) -> AnswerRequest:
    where = more.pop("where", Filter(access=ALL_ACCESS))
    return AnswerRequest("town", question, where, generate="none", **more)


async def ask(services: Services, asked: AnswerRequest) -> list[Event]:
    async with aclosing(cached(services, asked)) as events:
        return [event async for event in events]


async def fresh(services: Services, asked: AnswerRequest) -> list[Event]:
    async with aclosing(answer(services, asked)) as events:
        return [event async for event in events]


def done(events: Sequence[Event]) -> DoneEvent:
    assert isinstance(events[-1], DoneEvent)
    return events[-1]


def said(events: Sequence[Event]) -> list[Event]:
    """All that a reader gets but times."""
    plain = replace_done(done(events))
    return [event for event in events[:-1] if not isinstance(event, StageEvent)] + [plain]


def replace_done(event: DoneEvent) -> DoneEvent:
    return msgspec.structs.replace(event, timings={}, cached=None, usage=Usage())


def index(services: Services) -> Any:
    return services.collections.open("town")


async def test_the_second_time_is_a_hit_and_says_so(services: Services) -> None:
    first = await ask(services, request())
    second = await ask(services, request())
    assert done(first).cached is None
    found = done(second).cached
    assert found is not None
    assert (found.kind, found.similarity) == ("exact", 1.0)
    assert found.saved_ms + done(second).timings["total"] == pytest.approx(
        done(first).timings["total"], abs=0.01
    )
    assert said(first) == said(second)
    assert any(isinstance(event, QuoteEvent) for event in second)
    kinds = [type(event) for event in second]
    assert kinds[:2] == [StageEvent, HitsEvent]
    assert kinds.index(QuoteEvent) < kinds.index(DeltaEvent)
    assert done(second).usage.total_tokens == 0


@pytest.mark.parametrize("name", ["calibration.json", "ranker.json"])
async def test_what_is_fitted_counts_from_the_next_question_on(
    services: Services, name: str
) -> None:
    await ask(services, request())
    assert done(await ask(services, request())).cached is not None
    file = index(services).folder / name
    for content in ("{}", "{ }"):  # damaged, so that answers are as before, but for `skipped`
        file.write_text(content)
        assert done(await ask(services, request())).cached is None
    file.unlink()
    assert done(await ask(services, request())).cached is None
    assert done(await ask(services, request())).cached is not None


async def test_off_by_default_and_by_request(services: Services) -> None:
    plain = replace(services, config=services.config.model_copy(update={"cache": CacheOptions()}))
    for asker, asked in (
        (plain, request()),
        (services, request(cache=False)),
        (services, request(temperature=0.5)),
    ):
        for _ in range(2):
            assert done(await ask(asker, asked)).cached is None
    assert done(await ask(services, request())).cached is None
    assert done(await ask(services, request())).cached is not None
    await ask(plain, request())  # what is switched off is freed
    assert done(await ask(services, request())).cached is None


OTHER_REQUESTS: dict[str, object] = {
    "collection": "village",
    "where": Filter(access=frozenset({"public"})),
    "history": (Message("user", "Hello"),),
    "generate": None,
    "generator": "echo-generator",
    "effort": "deep",
    "verification": "strict",
    "hits": 1,
    "max_tokens": 9,
    "max_quotes": 1,
    "temperature": 0.1,
    "top_p": 0.5,
    "seed": 5,
    "stop": ("x",),
    "cache": False,
}


def test_every_field_of_a_request_counts() -> None:
    """A field that is added later counts too; this table then wants a value for it, and says so."""
    state = State("t", 1)
    one = scope(request(), state, "v", "f")
    fields = set(AnswerRequest.__struct_fields__) - {"question", "call"}
    assert fields <= OTHER_REQUESTS.keys()
    for name in fields:
        other = msgspec.structs.replace(request(), **{name: OTHER_REQUESTS[name]})
        assert scope(other, state, "v", "f") != one, name
    assert scope(request(), State("t", 2), "v", "f") != one
    assert scope(request(), State("u", 1), "v", "f") != one
    assert scope(request(), State("t", 1, "fitted"), "v", "f") != one
    assert scope(request(), state, "w", "f") != one
    assert scope(request(), state, "v", "g") != one
    assert scope(request(call=Call(deadline=1.0, cycle="c")), state, "v", "f") == one


def test_filters_that_allow_the_same_are_the_same() -> None:
    state = State("t", 1)

    def of(where: Filter) -> bytes:
        return scope(request(where=where), state, "v", "f")

    assert of(Filter(frozenset({"*", "hr"}))) == of(Filter(ALL_ACCESS))
    assert of(Filter(frozenset({"a", "b"}))) == of(Filter(frozenset({"b", "a"})))
    assert of(Filter(frozenset({"a"}))) != of(Filter(frozenset({"a", "b"})))
    one = Filter(ALL_ACCESS, {"k": ("b", "a"), "m": ("x",)}, ("2", "1"))
    assert of(one) == of(Filter(ALL_ACCESS, {"m": ("x",), "k": ("a", "b", "a")}, ("1", "2", "2")))
    assert of(one) != of(Filter(ALL_ACCESS, {"k": ("a",), "m": ("x",)}, ("1", "2")))


async def test_another_access_set_never_hits(services: Services) -> None:
    for mode in ("exact", "semantic"):
        asker = with_cache(services, answers=mode, similarity=0.0)
        owner = await ask(asker, request())
        reader = await ask(asker, request(where=Filter(frozenset({"public"}))))
        assert done(reader).cached is None
        sources = {
            hit.source for event in reader if isinstance(event, HitsEvent) for hit in event.hits
        }
        assert all(source.endswith("rules.md") for source in sources)
        assert said(owner) != said(reader)


async def test_a_delete_by_another_process_is_seen_at_the_next_lookup(services: Services) -> None:
    await ask(services, request())
    other = Collections(services.collections.folder)  # as another process has it
    gone = next(d.id for d in other.open("town").documents() if d.source.endswith("rules.md"))
    other.open("town").delete([gone])
    other.close()
    after = await ask(services, request())
    assert done(after).cached is None
    assert said(after) == said(await fresh(services, request()))
    assert gone not in msgspec.json.encode(after).decode()


async def test_what_does_not_hold_any_more_is_not_given(services: Services) -> None:
    """Even if an entry were found by mistake: hits and quotes are proved again."""
    await ask(services, request())
    (entry,) = services.kept._entries.items()
    key, kept = entry
    forged = kept.events.replace(b"must be kept", b"may be loose")
    assert forged != kept.events
    services.kept.keep(key, replace(kept, events=forged), 1 << 20)
    found = await ask(services, request())
    assert done(found).cached is None
    assert said(found) == said(await fresh(services, request()))


async def test_a_collection_made_anew_has_no_answers(services: Services) -> None:
    await ask(services, request())
    services.collections.delete("town")
    with pytest.raises(UnknownCollection):
        await ask(services, request())
    await fill(services)
    assert done(await ask(services, request())).cached is None


async def test_errors_are_raised_as_without_a_cache(services: Services) -> None:
    for asked in (request("  "), request("x" * 30_000)):
        with pytest.raises(BadRequest):
            await ask(services, asked)
    assert len(services.kept) == 0


async def test_a_broken_off_answer_is_not_kept(services: Services) -> None:
    async with aclosing(cached(services, request())) as events:
        async for event in events:
            if isinstance(event, DeltaEvent):
                break
    assert len(services.kept) == 0


async def test_an_answer_that_a_deadline_shortened_is_not_kept(services: Services) -> None:
    """The generator of this one is left out for lack of time."""
    asked = AnswerRequest("town", QUESTION, Filter(access=ALL_ACCESS))
    services.paces.note("first_token echo-generator", 1000.0)
    loop = asyncio.get_running_loop()
    hurried = msgspec.structs.replace(asked, call=Call(deadline=loop.time() + 30))
    found = done(await ask(services, hurried))
    assert any("ms left" in reason for reason in found.skipped)
    assert len(services.kept) == 0
    assert done(await ask(services, asked)).cached is None


async def test_an_answer_during_which_the_documents_changed_is_not_kept(
    services: Services,
) -> None:
    async with aclosing(cached(services, request())) as events:
        async for event in events:
            if isinstance(event, HitsEvent):
                await asyncio.to_thread(index(services).delete, ["0" * 16])
    assert len(services.kept) == 0


async def test_a_question_in_other_words_hits(services: Services) -> None:
    near = with_cache(services, answers="semantic", similarity=0.5)
    await ask(near, request("Must dogs be kept on a leash?"))
    found = done(await ask(near, request("Do dogs have to be kept on a leash, please?"))).cached
    assert found is not None
    assert found.kind == "semantic"
    assert 0.5 <= found.similarity < 1
    for other in (
        "Must dogs not be kept on a leash?",
        "Must dogs be kept on a leash of 3 metres?",
        "Must dogs of district 1 be kept on a leash?",
        "Must fines be kept on a leash?",
    ):
        assert done(await ask(near, request(other))).cached is None, other
    far = with_cache(services, answers="semantic", similarity=1.0)
    await ask(far, request("Must dogs be kept on a leash?"))
    found = done(await ask(far, request("Do dogs have to be kept on a leash, please?"))).cached
    assert found is None


async def test_old_answers_are_not_given(services: Services) -> None:
    young = with_cache(services, max_age_seconds=1e-9)
    await ask(young, request())
    assert done(await ask(young, request())).cached is None


def kept(size: int, vector: Any = None, collection: str = "c") -> Kept:
    return Kept(collection, State("t", 1), b"x" * size, vector, 1.0)


def test_memory_is_bounded() -> None:
    import numpy as np

    answers = KeptAnswers()
    limit = 64 << 10
    for number in range(500):
        vector = np.eye(16, dtype=np.float32)[number % 16]
        answers.keep(Key(b"s", f"q{number}"), kept(1000, vector), limit)
        assert answers.size <= limit
    assert 20 < len(answers) < 500
    assert answers.exact(Key(b"s", "q0"), 1e9) is None
    assert answers.exact(Key(b"s", "q499"), 1e9) is not None
    near = answers.near(b"s", np.eye(16, dtype=np.float32)[3], 0.9, 1e9)
    assert 0 < len(near) <= 4
    assert all(int(found.question[1:]) % 16 == 3 for found in near)
    answers.keep(Key(b"s", "huge"), kept(limit // 2), limit)
    assert answers.exact(Key(b"s", "huge"), 1e9) is None
    assert answers.drop_collection("c") > 0
    assert (len(answers), answers.size) == (0, 0)
    assert answers.near(b"s", vector, 0.0, 1e9) == []


# Whatever happens, in whatever order --------------------------------------------------------

ACCESS = st.sets(st.sampled_from(LABELS), min_size=1).map(frozenset) | st.just(ALL_ACCESS)
QUESTIONS = st.sampled_from(
    (
        QUESTION,
        "Must dogs be kept on a leash, please?",
        "Do dogs have to be kept on a leash?",
        "What is the fine in district 1?",
        "What is the fine in district 2?",
        "Must dogs not be kept on a leash?",
    )
)
STEPS = st.lists(
    st.one_of(
        st.tuples(st.just("ask"), QUESTIONS, ACCESS, st.sampled_from([1, 3])),
        st.tuples(st.just("put"), st.integers(0, 2), st.integers(0, 2), st.sampled_from(LABELS)),
        st.tuples(st.just("delete"), st.integers(0, 2)),
        st.tuples(st.just("configure"), st.integers(1, 3)),
    ),
    min_size=6,
    max_size=14,
)


@pytest.fixture(scope="module")
def shared_town(
    tmp_path_factory: pytest.TempPathFactory,
) -> Iterator[tuple[asyncio.Runner, Services]]:
    """One application for all examples; each example begins with an empty collection and cache."""
    from headrace.config.model_options import DefaultModels, ModelOptions
    from headrace.types import Role

    folder: Path = tmp_path_factory.mktemp("cache")
    config = Config(
        data_dir=folder / "data",
        cache_dir=folder / "cache",
        models={
            "e": ModelOptions(role=Role.EMBEDDER, engine="echo"),
            "g": ModelOptions(role=Role.GENERATOR, engine="echo"),
        },
        defaults=DefaultModels(generator="g", embedder="e"),
    )
    with asyncio.Runner() as runner:
        manager = town(config)
        services = runner.run(manager.__aenter__())
        runner.run(fill(services))
        yield runner, services
        runner.run(manager.__aexit__(None, None, None))


@pytest.mark.parametrize("mode", ["exact", "semantic"])
@settings(max_examples=15)
@given(steps=STEPS)
def test_each_answer_is_the_uncached_one(
    shared_town: tuple[asyncio.Runner, Services], mode: str, steps: list[tuple[Any, ...]]
) -> None:
    """Questions of callers with random access sets between ingestions, deletions, changes of labels
    and of the configuration: whatever comes out of the cache is what this caller would have got
    without it, for the question that was asked (in `semantic`, for one that asks the same)."""
    runner, services = shared_town
    runner.run(_play(services, mode, steps))


async def _play(services: Services, mode: str, steps: list[tuple[Any, ...]]) -> None:
    await asyncio.to_thread(index(services).delete, [d.id for d in index(services).documents()])
    await fill(services)
    asker = replace(with_cache(services, answers=mode, similarity=0.3), kept=KeptAnswers())
    for step in steps:
        match step:
            case ("put", number, variant, label):
                await put(services, f"f{number}.md", text(number, variant), label)
            case ("delete", number):
                held = index(services).documents()
                gone = [d.id for d in held if d.source.endswith(f"f{number}.md")]
                await asyncio.to_thread(index(services).delete, gone)
            case ("configure", quotes):
                options = asker.config.answer.model_copy(update={"max_quotes": quotes})
                config = asker.config.model_copy(update={"answer": options})
                asker = replace(asker, config=config, config_version=config_version(config))
            case ("ask", question, access, hits):
                asked = request(question, where=Filter(access), hits=hits)
                got = await ask(asker, asked)
                _check(services, got, access)
                found = done(got).cached
                if found is None or found.kind == "exact":
                    assert said(got) == said(await fresh(asker, asked))
                else:
                    assert done(got).generation == index(services).generation()
                    assert done(got).config_version == asker.config_version


def _check(services: Services, events: Sequence[Event], access: frozenset[str]) -> None:
    """Everything that left is in a document that the caller may read, as it is now."""
    hits = [hit for event in events if isinstance(event, HitsEvent) for hit in event.hits]
    quotes = [event.quote for event in events if isinstance(event, QuoteEvent)]
    for item in (*hits, *quotes):
        document = index(services).document(item.document_id)
        assert document is not None
        assert "*" in access or access & set(document.labels)
        assert item.span.of(document.parsed.text) == item.text
