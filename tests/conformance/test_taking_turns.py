"""Models that share memory: what one does to the others. In brackets: the complaints of users of
other servers that these tests answer."""

from __future__ import annotations

import asyncio
import contextlib
import os
import signal
import time
from collections.abc import AsyncIterator
from pathlib import Path

import psutil
import pytest
from tests.conformance.harness import RESULT, leaving_nothing, outcome, outcomes, until
from tests.conformance.subjects import configured, http, models

from headrace.config.model_options import ModelOptions
from headrace.config.options import Config, DeviceOptions
from headrace.errors import ConfigError
from headrace.serving import arbiter_events
from headrace.serving.arbiter_types import Place
from headrace.serving.pool import Pool
from headrace.serving.profiles import Profiles
from headrace.types import BULK, GenerateParams, Message, Role

pytestmark = pytest.mark.slow

MIB = 1 << 20


@pytest.fixture(autouse=True)
async def _nothing_left() -> AsyncIterator[None]:
    async with leaving_nothing():
        yield


def limited(folder: Path, mib: int, **named: ModelOptions) -> Config:
    """Those models alone, in so much memory beside what this process holds itself."""
    own = psutil.Process().memory_info().rss // MIB
    base = configured(folder).model_copy(update={"models": named})
    return base.model_copy(update={"devices": {"host": DeviceOptions(limit=f"{own + mib}MiB")}})


def embedder(source: str = "", **options: object) -> ModelOptions:
    return models(Role.EMBEDDER, source, **options)


def generator(source: str = "", **options: object) -> ModelOptions:
    return models(Role.GENERATOR, source, **options)


async def spoken(pool: Pool, text: str, model: str = "talk") -> str:
    stream = pool.generate(model, [Message("user", text)], GenerateParams(max_tokens=10_000))
    async with contextlib.aclosing(stream) as deltas:
        return "".join([delta.text async for delta in deltas])


def loads(pool: Pool) -> int:
    return sum(decision.what == "load" for decision in pool.decisions())


@pytest.mark.slow
async def test_a_load_does_not_hold_up_requests_for_loaded_models(tmp_path: Path) -> None:
    """ollama#14578, #5724: head-of-line blocking while another model loads."""
    config = configured(tmp_path, heavy=embedder("load=1"))
    async with Pool(config) as pool:
        await pool.embed("vectors", ["x"], "query")
        heavy = asyncio.create_task(outcome(pool.embed("heavy", ["x"], "query")))
        await until(lambda: pool.states()[0] and _place(pool, "heavy") is Place.LOADING, "it loads")
        found = await outcomes(pool.embed("vectors", [str(n)], "query") for n in range(50))
        assert found == [RESULT] * 50
        assert not heavy.done()
        assert await heavy == RESULT


def _place(pool: Pool, model: str) -> Place:
    return next(status.place for status in pool.states() if status.name == model)


@pytest.mark.slow
async def test_health_answers_while_a_model_is_stuck(tmp_path: Path) -> None:
    """FastChat#3833, vllm PR#38157: /health waits behind a model; vllm#39863: it lies."""
    config = configured(tmp_path, stuck=embedder("load=1.2"))
    async with http(config) as subject:
        stuck = asyncio.create_task(outcome(subject.ask("x", model="stuck")))
        waiting = [asyncio.create_task(outcome(subject.ask("stall"))) for _ in range(4)]
        await until(lambda: subject.workers("vectors"), "the other one computes for ever")
        began = time.monotonic()
        async with subject.client() as client:
            for _ in range(10):
                assert (await client.get("/healthz")).status_code == 200
                assert (await client.get("/admin/models")).status_code == 200
                assert (await client.get("/metrics")).status_code == 200
        assert time.monotonic() - began < 10
        assert not stuck.done() or await stuck == RESULT
        assert set(await asyncio.gather(*waiting)) == {"model_failed"}
        assert await stuck == RESULT


async def test_a_swap_waits_for_the_stream_that_is_under_way(tmp_path: Path) -> None:
    """llama.cpp#22447, #21678: the router kills active requests to load another model."""
    config = limited(
        tmp_path,
        330,
        talk=generator("delay=0.01,memory=150", size_hint="230MiB"),
        vectors=embedder("memory=150", size_hint="230MiB"),
    )
    async with Pool(config) as pool:
        text = "word " * 80
        stream = asyncio.create_task(spoken(pool, text))
        await until(lambda: _place(pool, "talk") is Place.SERVING, "it speaks")
        assert await outcome(pool.embed("vectors", ["x"], "query")) == RESULT
        assert (await stream).split() == text.split()
        assert await outcome(spoken(pool, "again")) == RESULT
        assert pool.devices()[0].booked <= pool.devices()[0].limit


async def test_two_that_do_not_fit_together_take_turns_and_do_not_thrash(tmp_path: Path) -> None:
    """ollama#12247, #4681, qmd#275: the embedder puts out the LLM, and back, with each request;
    llama-swap#946, #119: in the end nothing is loaded any more."""
    config = limited(
        tmp_path,
        330,
        talk=generator("delay=0.002,memory=150", size_hint="230MiB"),
        vectors=embedder("memory=150", size_hint="230MiB"),
    )
    async with Pool(config) as pool:
        works = []
        for n in range(60):  # they come alternately, ten a burst
            works.append(asyncio.create_task(outcome(spoken(pool, f"a few words {n}"))))
            works.append(asyncio.create_task(outcome(pool.embed("vectors", [f"t{n}"], "query"))))
            if n % 10 == 9:
                await asyncio.sleep(0.05)
        assert await asyncio.gather(*works) == [RESULT] * 120
        assert 2 <= loads(pool) <= 20, "120 requests that alternate must not be 120 swaps"
        assert await outcome(pool.embed("vectors", ["next"], "query")) == RESULT
        assert await outcome(spoken(pool, "next")) == RESULT


async def test_bulk_work_neither_starves_nor_is_starved(tmp_path: Path) -> None:
    """neo#12509, then #17062: bulk starves queries, and, after the fix, queries starve bulk."""
    config = configured(tmp_path, vectors=embedder("delay=0.01", batch_tokens=64))
    async with Pool(config) as pool:
        await pool.embed("vectors", ["x"], "query")
        texts = [f"a text of some length, number {n}" for n in range(200)]
        bulk = asyncio.create_task(pool.embed("vectors", texts, "passage", call=BULK))
        asked = 0
        while not bulk.done():
            async with asyncio.timeout(20):
                await pool.embed("vectors", ["a query"], "query")
            asked += 1
        assert (await bulk).shape == (200, 64)
        assert asked >= 3, "queries went in between"


async def test_a_worker_that_dies_as_its_load_ends(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """llama-swap#38: never starts again, because the state says that it runs. The first worker is
    killed when its load has ended and the arbiter has not been told yet."""
    victims: list[int] = []
    put = Profiles.put

    def kill_and_put(self: Profiles, *given: object) -> None:
        put(self, *given)  # type: ignore[arg-type]
        if not victims:
            children = psutil.Process().children()
            (worker,) = [one for one in children if "headrace.serving.launch" in one.cmdline()]
            victims.append(worker.pid)
            os.kill(worker.pid, signal.SIGKILL)
            time.sleep(0.3)  # in a thread; the loop hears of it meanwhile

    monkeypatch.setattr(Profiles, "put", kill_and_put)
    async with Pool(configured(tmp_path)) as pool:
        first = await outcome(pool.embed("vectors", ["x"], "query"))
        assert first in (RESULT, "model_failed")
        assert await outcome(pool.embed("vectors", ["y"], "query")) == RESULT


@pytest.mark.slow
async def test_a_worker_that_dies_while_it_is_parked_keeps_nobody_waiting(tmp_path: Path) -> None:
    """llama.cpp#28774: a model that is on its way out for ever keeps the room of all others."""
    config = limited(tmp_path, 400, vectors=embedder("memory=50"), others=embedder("memory=50"))
    async with Pool(config) as pool:
        await pool.embed("vectors", ["x"], "query")
        (worker,) = pool.processes()["vectors"]
        os.kill(worker, signal.SIGSTOP)
        order = asyncio.create_task(outcome(pool.order("vectors", Place.PARKED)))
        await until(lambda: _place(pool, "vectors") is Place.PARKING, "it parks")
        os.kill(worker, signal.SIGKILL)
        assert await order == "model_failed"
        assert await outcome(pool.embed("others", ["x"], "query")) == RESULT
        assert await outcome(pool.embed("vectors", ["x"], "query")) == RESULT


async def test_a_crash_does_not_make_the_server_unready_and_failing_does(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A balancer sends nothing to a server that is not ready: if only a request could make it ready
    again, it never would be (vllm#39863 the other way round: /readyz must tell of what cannot
    serve)."""
    monkeypatch.setattr(arbiter_events, "FIRST_PAUSE", 0.2)  # longer than it takes to look
    async with http(configured(tmp_path)) as subject:
        assert await outcome(subject.ask("x")) == RESULT
        async with subject.client() as client:
            assert await outcome(subject.ask("boom")) == "model_failed"
            assert (await client.get("/readyz")).status_code == 200
            while (await client.get("/readyz")).status_code == 200:
                assert await outcome(subject.ask("boom")) == "model_failed"
            shown = (await client.get("/readyz")).json()
            assert "times in a row" in shown["problems"][0]
            assert (await client.get("/healthz")).status_code == 200
            assert await outcome(subject.ask("refused at once")) == "model_failed"


@pytest.mark.slow
async def test_a_model_removed_while_it_is_ordered(tmp_path: Path) -> None:
    """The order ends, and so does everything else that waited for the arbiter."""
    config = configured(tmp_path, heavy=embedder("load=1"))
    async with Pool(config) as pool:
        order = asyncio.create_task(outcome(pool.order("heavy", Place.SERVING)))
        await until(lambda: _place(pool, "heavy") is Place.LOADING, "it loads")
        overtaken = asyncio.create_task(outcome(pool.order("heavy", Place.GONE)))
        await asyncio.sleep(0)
        assert await order == "model_failed"
        assert await overtaken == RESULT
        again = asyncio.create_task(outcome(pool.order("heavy", Place.SERVING)))
        await until(lambda: _place(pool, "heavy") is Place.LOADING, "it loads")
        await pool.configure(configured(tmp_path))
        assert await again in (RESULT, "model_failed")
        assert await outcome(pool.embed("vectors", ["x"], "query")) == RESULT


async def test_what_can_never_fit_is_refused_and_the_others_serve(tmp_path: Path) -> None:
    """LocalAI#7269, llama.cpp#23668: out of memory instead of a refusal."""
    config = limited(
        tmp_path, 200, vectors=embedder(size_hint="80MiB"), big=embedder(size_hint="9GiB")
    )
    async with Pool(config) as pool:
        with pytest.raises(ConfigError, match="9216 MiB"):
            await pool.embed("big", ["x"], "query")
        assert await outcome(pool.embed("vectors", ["x"], "query")) == RESULT


async def test_after_use_gives_the_memory_back(tmp_path: Path) -> None:
    """inference#2162, infinity#514: what was loaded stays until the server ends; gpustack#1429."""
    config = limited(tmp_path, 400, vectors=embedder("memory=150", give_back="after_use"))
    async with Pool(config) as pool:
        assert await outcome(pool.embed("vectors", ["x"], "query")) == RESULT
        await until(lambda: _place(pool, "vectors") in (Place.PARKED, Place.GONE), "it went")
        held = sum(child.memory_info().rss for child in psutil.Process().children())
        assert held < 140 * MIB
        assert await outcome(pool.embed("vectors", ["y"], "query")) == RESULT
