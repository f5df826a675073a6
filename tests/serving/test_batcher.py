"""Batches over real engines in this process, which the test lets go one message at a time."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Sequence
from typing import Any, cast

import msgspec
import numpy as np
import pytest

from headrace.engines.base import ModelInfo, ModelSpec, Pair, Vectors, pairs
from headrace.engines.echo import EchoEngine
from headrace.errors import BadRequest, DeadlineExceeded, ModelFailed, Overloaded
from headrace.serving.batcher import MOST_FAILURES, Batcher
from headrace.serving.client import WorkerClient
from headrace.serving.replica import Replica
from headrace.types import BULK, USER, Call, EmbedKind, Lane, Role


class Here:
    """A worker's place taken by its engine in this process: it refuses texts that say `poison`,
    computes one message after the other, interactive ones first, and only while `go` is set."""

    def __init__(self) -> None:
        spec = ModelSpec("vector", Role.EMBEDDER, "echo", "", "")
        self._engine = EchoEngine()
        self.info: ModelInfo = self._engine.load(spec)
        self.alive = True
        self.go = asyncio.Event()
        self.arrived: list[tuple[tuple[str, ...], str, Lane]] = []
        self.computed: list[tuple[str, ...]] = []
        self._queue: list[tuple[bool, int, asyncio.Future[None]]] = []
        self._busy = False

    async def embed(self, texts: tuple[str, ...], kind: EmbedKind, lane: Lane) -> Vectors:
        self.arrived.append((texts, kind, lane))
        turn: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        entry = (lane is Lane.BULK, len(self.arrived), turn)
        self._queue.append(entry)
        self._next()
        try:
            await turn
        finally:
            if entry in self._queue:
                self._queue.remove(entry)
        try:
            await self.go.wait()
            if not self.alive:
                raise ModelFailed("the worker was killed")
            self.computed.append(texts)
            if any("full" in text for text in texts):
                raise Overloaded("the upstream is full", retry_after=7.0)
            if any("poison" in text for text in texts):
                raise BadRequest("this text cannot be embedded")
            return self._engine.embed(texts, kind)
        finally:
            self._busy = False
            self._next()

    def _next(self) -> None:
        self._queue = [entry for entry in self._queue if not entry[2].done()]
        if self._queue and not self._busy:
            entry = min(self._queue, key=lambda one: one[:2])
            self._queue.remove(entry)
            self._busy = True
            entry[2].set_result(None)


class Bench:
    """A batcher over some of them."""

    def __init__(self, replicas: int = 1, most_tokens: int = 4096) -> None:
        self.clients = [Here() for _ in range(replicas)]
        self.replicas = [
            Replica(cast(WorkerClient, client), number)
            for number, client in enumerate(self.clients)
        ]
        self.batcher = Batcher("vector", _embed, self.replicas, most_tokens)

    def ask(
        self, *texts: str, call: Call = USER, kind: EmbedKind = "query"
    ) -> asyncio.Task[Vectors]:
        return asyncio.create_task(self.batcher.run(kind, texts, call))

    def let_go(self) -> None:
        for client in self.clients:
            client.go.set()

    def sizes(self) -> list[int]:
        return [len(texts) for client in self.clients for texts, _, _ in client.arrived]


async def _embed(replica: Replica, kind: str, texts: tuple[str, ...], lane: Lane) -> Vectors:
    return await replica.client.embed(texts, cast(EmbedKind, kind), lane)


async def _score(replica: Replica, kind: str, asked: tuple[Pair, ...], lane: Lane) -> Vectors:
    """Refuses a pair whose passage says `poison`."""
    texts = tuple(f"{query} | {passage!s}" for query, passage in asked)
    await replica.client.embed(texts, "query", lane)
    return np.array([len(query) - len(passage) for query, passage in asked], np.float32)


async def turns(count: int = 20) -> None:
    """Let the event loop do all that it can do now."""
    for _ in range(count):
        await asyncio.sleep(0)


def alone(texts: Sequence[str], kind: EmbedKind = "query") -> Vectors:
    engine = EchoEngine()
    engine.load(ModelSpec("vector", Role.EMBEDDER, "echo", "", ""))
    return engine.embed(texts, kind)


async def test_what_arrives_at_once_goes_together_and_everybody_gets_his_own() -> None:
    bench = Bench()
    bench.let_go()
    texts = [f"question number {n}" for n in range(20)]
    found = await asyncio.gather(*(bench.ask(text) for text in texts))
    assert np.array_equal(np.concatenate(found), alone(texts))
    assert bench.sizes() == [20]


async def test_what_arrives_while_it_computes_is_collected_behind_one_prefetched_batch() -> None:
    bench = Bench()
    tasks = []
    for n in range(5):
        tasks.append(bench.ask(f"question {n}"))
        await turns()
    assert bench.sizes() == [1, 1]  # the first computes, the second waits in the worker
    bench.let_go()
    await asyncio.gather(*tasks)
    assert bench.sizes() == [1, 1, 3]


async def test_kinds_are_not_mixed_and_lengths_are_kept_apart() -> None:
    bench = Bench(2)
    bench.let_go()
    await asyncio.gather(
        bench.ask("short"),
        bench.ask("other", kind="passage"),
        bench.ask("long " * 100),
        bench.ask("brief"),
    )
    batches = {(texts, kind) for client in bench.clients for texts, kind, _ in client.arrived}
    assert batches == {
        (("short", "brief"), "query"),
        (("other",), "passage"),
        (("long " * 100,), "query"),
    }


async def test_a_long_request_comes_back_in_its_own_order() -> None:
    bench = Bench(most_tokens=256)
    bench.let_go()
    texts = [f"text {n} " * (1 + n * 7 % 40) for n in range(100)]
    assert np.array_equal(await bench.ask(*texts), alone(texts))
    assert len(bench.sizes()) > 10


async def test_a_person_overtakes_a_long_request_of_another() -> None:
    bench = Bench(most_tokens=256)
    long = bench.ask(*[f"passage number {n} of very many" for n in range(400)])
    await turns()
    short = bench.ask("question")
    bench.let_go()
    await short
    assert not long.done()
    place = [texts for texts, _, _ in bench.clients[0].arrived].index(("question",))
    assert place <= 3  # behind two in flight and one that waited already
    await long


async def test_a_person_waits_for_one_bulk_step_at_most() -> None:
    bench = Bench(most_tokens=64)
    bulk = bench.ask(*[f"passage number {n}" for n in range(60)], call=BULK)
    await turns()
    assert len(bench.sizes()) == 2
    person = bench.ask("question")
    await turns()
    bench.let_go()
    await person
    assert bench.clients[0].computed[1] == ("question",)
    assert (await bulk).shape == (60, 64)


async def test_the_replica_with_the_fewest_tokens_gets_the_next_batch() -> None:
    bench = Bench(2)
    tasks = [bench.ask("long " * 500)]
    await turns()
    for n in range(2):
        tasks.append(bench.ask(f"short {n}"))
        await turns()
    assert [len(client.arrived) for client in bench.clients] == [1, 2]
    bench.let_go()
    await asyncio.gather(*tasks)
    assert [replica.tokens for replica in bench.replicas] == [0, 0]


async def test_who_is_cancelled_is_not_sent() -> None:
    bench = Bench()
    first, second = bench.ask("first"), None
    await turns()
    second = bench.ask("second")
    await turns()
    gone, stays = bench.ask("gone"), bench.ask("stays")
    await turns()
    gone.cancel()
    await turns()
    assert len(bench.batcher._waiting[Lane.INTERACTIVE]) == 1
    bench.let_go()
    await asyncio.gather(first, second, stays)
    assert [texts for texts, _, _ in bench.clients[0].arrived] == [
        ("first",),
        ("second",),
        ("stays",),
    ]
    assert bench.batcher.backlog == 0


async def test_a_batch_that_nobody_waits_for_is_cancelled_in_the_worker() -> None:
    bench = Bench()
    running = bench.ask("running")
    await turns()
    prefetched = bench.ask("prefetched")
    await turns()
    prefetched.cancel()
    await turns()
    bench.let_go()
    await running
    assert bench.clients[0].computed == [("running",)]
    assert bench.replicas[0].tokens == 0


async def test_who_leaves_in_the_turn_in_which_he_is_sent_leaves_his_place() -> None:
    """The task that carries the batch is cancelled before its first step."""
    bench = Bench()
    bench.let_go()
    for _ in range(5):
        asked = bench.ask("gone")
        await asyncio.sleep(0)
        asked.cancel()
        await asyncio.wait([asked])
    async with asyncio.timeout(5):
        assert len(await bench.ask("still here")) == 1
    assert bench.replicas[0].tokens == 0
    assert bench.batcher.backlog == 0


async def test_a_deadline_ends_the_wait_and_what_is_late_is_not_sent() -> None:
    bench = Bench()
    tasks = [bench.ask("first"), bench.ask("second", kind="passage")]
    await turns()
    late = bench.ask("late", call=Call(deadline=time.monotonic() + 0.02))
    past = bench.ask("past", call=Call(deadline=time.monotonic() - 1))
    with pytest.raises(DeadlineExceeded, match="vector"):
        await late
    with pytest.raises(DeadlineExceeded):
        await past
    bench.let_go()
    await asyncio.gather(*tasks)
    assert sorted(bench.clients[0].computed) == [("first",), ("second",)]


async def test_a_past_deadline_is_not_sent_to_an_idle_worker() -> None:
    bench = Bench()
    bench.let_go()
    with pytest.raises(DeadlineExceeded):
        await bench.ask("past", call=Call(deadline=time.monotonic() - 1))
    await turns()
    assert bench.sizes() == []


@pytest.mark.parametrize("bad", [{0}, {13}, {31}, {3, 20}])
async def test_a_poisoned_text_fails_alone(bad: set[int]) -> None:
    bench = Bench()
    bench.let_go()
    texts = [f"poison {n}" if n in bad else f"sound {n}" for n in range(32)]
    found = await asyncio.gather(*(bench.ask(text) for text in texts), return_exceptions=True)
    for n, (text, rows) in enumerate(zip(texts, found, strict=True)):
        if n in bad:
            assert isinstance(rows, BadRequest)
        else:
            assert np.array_equal(cast(Vectors, rows), alone([text]))
    assert (await bench.ask("next")).shape == (1, 64)


async def test_an_engine_that_refuses_everything_is_not_asked_for_ever() -> None:
    bench = Bench()
    bench.let_go()
    found = await asyncio.gather(
        *(bench.ask(f"poison {n}") for n in range(200)), return_exceptions=True
    )
    assert all(isinstance(one, BadRequest) for one in found)
    assert len({id(one) for one in found}) == 200  # each has an exception of its own
    assert len(bench.sizes()) <= 3 * MOST_FAILURES  # 200 texts are at most three batches


async def test_one_request_fails_as_a_whole_and_at_once() -> None:
    bench = Bench()
    bench.let_go()
    with pytest.raises(BadRequest):
        await bench.ask(*(["sound"] * 30 + ["poison"]))
    assert len(bench.sizes()) == 1


async def test_a_full_upstream_is_not_asked_again() -> None:
    bench = Bench()
    bench.let_go()
    found = await asyncio.gather(bench.ask("full"), bench.ask("sound"), return_exceptions=True)
    assert [cast(Any, one).retry_after for one in found] == [7.0, 7.0]
    assert bench.sizes() == [2]


async def test_a_dead_worker_fails_what_it_had_once_and_the_rest_unsent() -> None:
    bench = Bench()
    sent = [bench.ask("a"), bench.ask("b", kind="passage")]
    await turns()
    waiting = bench.ask("c")
    await turns()
    bench.clients[0].alive = False
    bench.let_go()
    bench.batcher.fail(ModelFailed("the worker was killed"))
    for task, unsent in ((sent[0], False), (sent[1], False), (waiting, True)):
        with pytest.raises(ModelFailed, match="killed") as caught:
            await task
        assert caught.value.unsent is unsent
    assert bench.sizes() == [1, 1]


async def test_closing_ends_what_is_in_flight() -> None:
    bench = Bench()
    task = bench.ask("never computed")
    await turns()
    await bench.batcher.close()
    with pytest.raises(ModelFailed):
        await task
    assert bench.replicas[0].tokens == 0


async def test_the_backlog_and_the_speed_are_known() -> None:
    bench = Bench()
    assert (bench.batcher.backlog, bench.batcher.speed) == (0, 0.0)
    tasks = [bench.ask("some words"), bench.ask("other words", kind="passage")]
    await turns()
    tasks.append(bench.ask("more words"))
    await turns()
    assert bench.batcher.backlog == 3 * 4
    bench.let_go()
    await asyncio.gather(*tasks)
    assert bench.batcher.backlog == 0
    assert bench.batcher.speed > 0


async def test_pairs_of_several_users_go_together_and_a_poisoned_one_fails_alone() -> None:
    bench = Bench()
    bench.let_go()
    batcher = Batcher("vector", _score, bench.replicas, 4096)
    passages = ["wheel", "mill and water", "a channel"]
    asked = [
        asyncio.create_task(batcher.run("pair", pairs(f"question {n}", passages), USER))
        for n in range(6)
    ]
    await asyncio.gather(*asked)
    assert bench.sizes() == [18]
    for task in asked:
        assert task.result().tolist() == [10 - len(passage) for passage in passages]
    sound = pairs("who", passages)
    bad = [*sound, Pair("who", "poison")]
    runs = [batcher.run("pair", given, USER) for given in (sound, bad, sound)]
    found = await asyncio.gather(*runs, return_exceptions=True)
    assert [isinstance(one, BadRequest) for one in found] == [False, True, False]


async def test_a_long_query_counts_with_every_passage() -> None:
    bench = Bench(most_tokens=256)
    bench.let_go()
    batcher = Batcher("vector", _score, bench.replicas, 256)
    await batcher.run("pair", pairs("long " * 80, ["text"] * 6), USER)  # 102 + 3 tokens a pair
    assert bench.sizes() == [2, 2, 2]
    await batcher.run("pair", pairs("long " * 80, [b"codes"] * 6), USER)
    assert bench.sizes()[3:] == [6]


async def test_an_engine_that_gathers_gets_no_next_batch_that_is_not_worth_it() -> None:
    bench = Bench()
    for client in bench.clients:
        client.info = msgspec.structs.replace(client.info, gathers=True)
    tasks = []
    for n in range(4):
        tasks.append(bench.ask(f"question {n}"))
        await turns()
    assert bench.sizes() == [1]  # three texts wait for more
    tasks.append(bench.ask("background " * 3, call=BULK))
    await turns()
    assert bench.sizes() == [1, 1]  # nothing of their lane is there
    tasks.append(bench.ask("a text as long as a quarter of a batch " * 30))
    await turns()
    assert bench.sizes()[2:] == [3]  # now they are prefetched, by length
    bench.let_go()
    await asyncio.gather(*tasks)
    assert sum(bench.sizes()) == len(tasks)
