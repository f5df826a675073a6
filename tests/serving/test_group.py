"""Groups over real worker processes with the echo engine."""

from __future__ import annotations

import asyncio
import contextlib
import os
import signal
import time
from collections.abc import AsyncIterator, Callable
from pathlib import Path

import numpy as np
import psutil
import pytest

from headrace.engines.base import ModelSpec, pairs
from headrace.engines.echo import EchoEngine
from headrace.errors import ConfigError, DeadlineExceeded, HeadraceError, ModelFailed
from headrace.serving.group import MOST_DELAY, Group, restart_delay
from headrace.types import BULK, USER, Call, GenerateParams, Message, Role


class Deaths(list[HeadraceError]):
    """What a group reported."""


@contextlib.asynccontextmanager
async def made(
    folder: Path, source: str = "", role: Role = Role.EMBEDDER, **options: object
) -> AsyncIterator[tuple[Group, Deaths]]:
    deaths = Deaths()
    group = Group(
        ModelSpec("model", role, "echo", source, str(folder), options), on_death=deaths.append
    )
    try:
        yield group, deaths
    finally:
        await group.leave()
        assert group.pids() == ()
    assert children() == []


_OTHERS: set[int] = set()
"""Children of this process that are none of a test's: helpers of the standard library."""


@pytest.fixture(autouse=True)
def _before() -> None:
    _OTHERS.clear()
    _OTHERS.update(children())


def children() -> list[int]:
    living = [one.pid for one in psutil.Process().children() if one.status() != "zombie"]
    return [pid for pid in living if pid not in _OTHERS]


async def until(condition: Callable[[], object]) -> None:
    async with asyncio.timeout(30):
        while not condition():  # noqa: ASYNC110 - other processes set no event
            await asyncio.sleep(0.01)


async def test_two_replicas_share_the_work_and_answer_like_the_engine(tmp_path: Path) -> None:
    texts = [f"text number {n} 第{n}条" for n in range(70)]
    async with made(tmp_path, "delay=0.01", replicas=2, batch_tokens=64) as (group, deaths):
        info = await group.bring("cpu")
        assert group.info == info
        assert len(group.pids()) == 2
        whole, *single = await asyncio.gather(
            group.embed(texts, "passage", BULK),
            *(group.embed([text], "query", USER) for text in texts),
        )
        engine = EchoEngine()
        engine.load(group.spec)
        engine._delay = 0.0
        assert np.array_equal(whole, engine.embed(texts, "passage"))
        assert np.array_equal(np.concatenate(single), engine.embed(texts, "query"))
        assert np.array_equal(
            await group.score("text", texts, USER), engine.score(pairs("text", texts))
        )
        codes = await group.compress(texts, BULK)
        assert codes == engine.compress(texts)
        assert np.array_equal(
            await group.score("text", codes, USER), engine.score(pairs("text", texts))
        )
        assert await group.compress([], USER) == []
        assert await group.count(texts, USER) == engine.count(texts)
        assert all(replica._freed for replica in group._serving)  # both computed
        assert (await group.embed([], "query", USER)).shape == (0, 64)
        assert (await group.score("text", [], USER)).shape == (0,)
        assert group.backlog_seconds() == 0.0
        assert group.memory().held["host"] > len(group.pids()) << 20
        assert not deaths


async def test_a_count_ends_at_its_deadline(tmp_path: Path) -> None:
    """Behind a worker that does not get to it."""
    async with made(tmp_path) as (group, _):
        await group.bring("cpu")
        (pid,) = group.pids()
        os.kill(pid, signal.SIGSTOP)
        with pytest.raises(DeadlineExceeded, match="counted"):
            await group.count(["a b"], Call(deadline=time.monotonic() + 0.05))
        os.kill(pid, signal.SIGCONT)
        assert await group.count(["a b"], USER) == [2]


async def test_streams_come_and_a_closed_one_gives_its_place_back(tmp_path: Path) -> None:
    async with made(tmp_path, "delay=0.01", Role.GENERATOR) as (group, _):
        await group.bring("cpu")
        ask = [Message("user", "one two three four")]
        async with contextlib.aclosing(group.generate(ask, GenerateParams(), USER)) as deltas:
            async for _delta in deltas:
                assert group._serving[0].streams == 1
                break
        assert group._serving[0].streams == 0
        found = [delta.text async for delta in group.generate(ask, GenerateParams(), USER)]
        assert "".join(found) == "one two three four"


async def test_a_replica_that_dies_fails_its_own_requests_and_comes_back(tmp_path: Path) -> None:
    async with made(tmp_path, "delay=0.3", replicas=2) as (group, deaths):
        await group.bring("cpu")
        victim = group.pids()[0]
        tasks = []
        for text in ("a", "b"):
            tasks.append(asyncio.create_task(group.embed([text], "query", USER)))
            await asyncio.sleep(0.05)
        os.kill(victim, signal.SIGKILL)
        found = await asyncio.gather(*tasks, return_exceptions=True)
        assert sorted(isinstance(one, ModelFailed) for one in found) == [False, True]
        assert (await group.embed(["c"], "query", USER)).shape == (1, 64)
        await until(lambda: len(group.pids()) == 2 and group.restarts == 1)
        assert victim not in group.pids()
        await asyncio.gather(*(group.embed([text], "query", USER) for text in "defg"))
        assert deaths == []


async def test_when_the_last_one_dies_it_says_so_once_and_can_be_brought_again(
    tmp_path: Path,
) -> None:
    async with made(tmp_path, "delay=0.3", replicas=2) as (group, deaths):
        await group.bring("cpu")
        tasks = [asyncio.create_task(group.embed([t], "query", USER)) for t in "abc"]
        await asyncio.sleep(0.1)
        for pid in group.pids():
            os.kill(pid, signal.SIGKILL)
        found = await asyncio.gather(*tasks, return_exceptions=True)
        assert all(isinstance(one, ModelFailed) for one in found)
        await until(lambda: deaths)
        with pytest.raises(ModelFailed) as caught:
            await group.embed(["d"], "query", USER)
        assert caught.value.unsent
        await group.bring("cpu")
        assert (await group.embed(["e"], "query", USER)).shape == (1, 64)
        assert len(deaths) == 1
        assert "signal 9" in deaths[0].message


async def test_a_killed_group_tells_why_and_who_was_queued_may_ask_again(tmp_path: Path) -> None:
    async with made(tmp_path, "delay=30") as (group, deaths):
        await group.bring("cpu")
        tasks = []
        for text in "abc":
            tasks.append(asyncio.create_task(group.embed([text], "query", USER)))
            await asyncio.sleep(0.02)
        group.kill("an operator reset it")
        for task, unsent in zip(tasks, (False, False, True), strict=True):
            with pytest.raises(ModelFailed, match="an operator reset it") as caught:
                await task
            assert caught.value.unsent is unsent
        assert [error.message for error in deaths] == ["an operator reset it"]


async def test_parked_workers_stay_and_serve_again(tmp_path: Path) -> None:
    async with made(tmp_path) as (group, _):
        await group.bring("cpu")
        pids = group.pids()
        await group.park()
        assert group.pids() == pids
        assert group.info is not None
        with pytest.raises(ModelFailed):
            await group.embed(["a"], "query", USER)
        await group.bring("cpu")
        assert group.pids() == pids
        assert (await group.embed(["a"], "query", USER)).shape == (1, 64)


async def test_a_load_that_fails_leaves_no_process(tmp_path: Path) -> None:
    async with made(tmp_path, "nonsense", replicas=3) as (group, deaths):
        with pytest.raises(ConfigError, match="nonsense"):
            await group.bring("cpu")
        assert children() == []
        assert deaths == []
    async with made(tmp_path, replicas=2, cores=("0", "4095")) as (group, deaths):
        with pytest.raises(ConfigError, match="4095"):  # of the second one
            await group.bring("cpu")
        assert group.pids() == ()
        assert children() == []
        assert deaths == []


@pytest.mark.parametrize("how", ["cancel", "kill", "leave"])
async def test_a_load_that_is_broken_off_leaves_no_process(tmp_path: Path, how: str) -> None:
    async with made(tmp_path, replicas=2) as (group, deaths):
        bringing = asyncio.create_task(group.bring("cpu"))
        await until(children)
        if how == "cancel":
            bringing.cancel()
            with pytest.raises(asyncio.CancelledError):
                await bringing
        else:
            if how == "kill":
                group.kill("it grew too large")
            else:
                await group.leave()
            with pytest.raises(ModelFailed, match=r"it grew too large|was unloaded"):
                await bringing
        assert children() == []
        assert deaths == []


async def test_leaving_ends_what_runs_and_is_no_death(tmp_path: Path) -> None:
    async with made(tmp_path, "delay=30") as (group, deaths):
        await group.bring("cpu")
        task = asyncio.create_task(group.embed(["a"], "query", USER))
        await asyncio.sleep(0.05)
        await group.leave()
        with pytest.raises(ModelFailed):
            await task
        assert children() == []
        assert deaths == []


def test_restarts_back_off() -> None:
    assert [restart_delay(n, 0.0) for n in range(1, 9)] == [1, 2, 4, 8, 16, 32, 60, MOST_DELAY]
    assert restart_delay(3, 0.999) == pytest.approx(2.0, abs=0.01)
