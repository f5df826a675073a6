"""Models and questions over the link between a server process and the host, both ends here."""

from __future__ import annotations

import asyncio
import contextlib
import socket
import time
from collections.abc import AsyncGenerator, AsyncIterator, Callable, Sequence
from pathlib import Path

import msgspec
import numpy as np
import pytest

from headrace.engines.base import ModelInfo, ModelSpec
from headrace.errors import (
    Busy,
    HeadraceError,
    InvalidField,
    ModelFailed,
    Overloaded,
    PromptTooLong,
    UnknownModel,
)
from headrace.serving import hostwire
from headrace.serving.control import LocalControl, Topic
from headrace.serving.host import HostServer
from headrace.serving.local import LocalModels
from headrace.serving.models import Models
from headrace.serving.remote import RemoteHost
from headrace.types import BULK, USER, Call, Delta, GenerateParams, Message, Role, Usage

PATIENCE = 20.0
PARAMS = GenerateParams(max_tokens=100_000)


class Say(msgspec.Struct, frozen=True):
    text: str


class Said(msgspec.Struct, frozen=True):
    text: str


ECHO = Topic("test.echo", Say, Said)


class Scripted(LocalModels):
    """Echo models, and generators that do what a test needs: `endless` streams for ever,
    `hangs` waits for ever, `fails` raises `error`."""

    def __init__(self, cache: Path) -> None:
        roles = {"talk": Role.GENERATOR, "vector": Role.EMBEDDER, "endless": Role.GENERATOR}
        super().__init__(
            {name: ModelSpec(name, role, "echo", "", str(cache)) for name, role in roles.items()}
        )
        self.error: HeadraceError = ModelFailed("nothing")
        self.began = asyncio.Event()
        self.ended = asyncio.Event()
        self.made = 0
        self.calls: list[Call] = []

    async def info(self, model: str, *, call: Call = USER) -> ModelInfo:
        self.calls.append(call)
        return await super().info(model)

    async def count(self, model: str, texts: Sequence[str], *, call: Call = USER) -> list[int]:
        self.calls.append(call)
        return await super().count(model, texts)

    async def generate(
        self,
        model: str,
        messages: Sequence[Message],
        params: GenerateParams,
        *,
        call: Call = USER,
    ) -> AsyncGenerator[Delta, None]:
        self.calls.append(call)
        if model == "fails":
            yield Delta("one")
            raise self.error
        if model == "defect":
            raise ZeroDivisionError("a secret detail")
        if model != "endless":
            async for delta in super().generate(model, messages, params):
                yield delta
            return
        self.began.set()
        try:
            while True:
                self.made += 1
                yield Delta(f"{self.made} ")
                await asyncio.sleep(0)
        finally:
            self.ended.set()


@contextlib.asynccontextmanager
async def linked(models: Models) -> AsyncIterator[RemoteHost]:
    """A host with one server process, which are both in this loop."""
    async with HostServer(models, LocalControl()) as server, connected(server) as remote:
        yield remote


@contextlib.asynccontextmanager
async def connected(server: HostServer, name: str = "1") -> AsyncIterator[RemoteHost]:
    ours, theirs = socket.socketpair()
    await server.attach(ours, name)
    remote = RemoteHost(lambda: None)
    await remote.connect(theirs)
    try:
        yield remote
    finally:
        await remote.close()


async def text_of(models: Models, model: str, text: str) -> str:
    return "".join([d.text async for d in models.generate(model, [Message("user", text)], PARAMS)])


async def until(condition: Callable[[], bool], what: str) -> None:
    last = time.monotonic() + PATIENCE
    while not condition():
        assert time.monotonic() < last, f"never: {what}"
        await asyncio.sleep(0.005)


async def test_replies_are_those_of_the_hosts_models(tmp_path: Path) -> None:
    local = Scripted(tmp_path)
    async with linked(local) as remote:
        far = remote.models
        assert list(far.names()) == list(local.names())
        assert await far.info("vector") == await local.info("vector")
        texts = [f"text {n} 第{n}条" for n in range(50)]
        vectors = await far.embed("vector", texts, "passage", call=BULK)
        assert vectors.dtype == np.float32
        assert np.array_equal(vectors, await local.embed("vector", texts, "passage"))
        assert np.array_equal(
            await far.score("vector", "text", texts), await local.score("vector", "text", texts)
        )
        codes = await far.compress("vector", texts)
        assert codes == await local.compress("vector", texts)
        assert np.array_equal(
            await far.score("vector", "text", [*codes[:25], *texts[25:]]),
            await local.score("vector", "text", texts),
        )
        assert await far.count("vector", texts) == await local.count("vector", texts)
        assert (await far.embed("vector", [], "query")).shape == (0, 64)


async def test_a_stream_arrives_delta_by_delta_with_its_end(tmp_path: Path) -> None:
    call = Call(deadline=5.0, cycle="c", then=("vector",))
    local = Scripted(tmp_path)
    async with linked(local) as remote:
        stream = remote.models.generate("talk", [Message("user", "a b c")], PARAMS, call=call)
        found = [delta async for delta in stream]
    assert found == [Delta("a"), Delta(" b"), Delta(" c"), Delta("", "stop", Usage(3, 3))]
    assert local.calls == [call]


async def test_what_a_model_is_and_the_count_of_tokens_are_asked_for_a_call_too(
    tmp_path: Path,
) -> None:
    call = Call(deadline=5.0, cycle="c", then=("vector",))
    local = Scripted(tmp_path)
    async with linked(local) as remote:
        await remote.models.info("talk", call=call)
        assert await remote.models.count("talk", ["a b"], call=call) == [2]
    assert local.calls == [call, call]


async def test_long_streams_run_side_by_side(tmp_path: Path) -> None:
    texts = [" ".join(f"w{n}" for _ in range(5 * hostwire.WINDOW)) for n in range(8)]
    async with linked(Scripted(tmp_path)) as remote:
        found = await asyncio.gather(*(text_of(remote.models, "talk", text) for text in texts))
    assert found == texts


async def test_a_reader_that_does_not_read_stops_its_own_stream_only(tmp_path: Path) -> None:
    local = Scripted(tmp_path)
    async with linked(local) as remote:
        stream = remote.models.generate("endless", [], PARAMS)
        async with contextlib.aclosing(stream):
            await anext(stream)
            await until(lambda: local.made >= hostwire.WINDOW, "the window fills")
            for _ in range(20):  # many times what another delta would need
                assert await text_of(remote.models, "talk", "a b c") == "a b c"
            assert local.made <= hostwire.WINDOW + 1
            for _ in range(3 * hostwire.WINDOW):
                await anext(stream)
        async with asyncio.timeout(PATIENCE):
            await local.ended.wait()


@pytest.mark.parametrize(
    "error",
    [
        InvalidField("wrong", field="messages.0"),
        PromptTooLong("too long", field="messages"),
        Overloaded("full", retry_after=7.5),
        UnknownModel("x", ["y"]),
        Busy("taken", pid=77),
        ModelFailed("the worker ended (signal 9)"),
    ],
    ids=lambda error: type(error).__name__,
)
async def test_errors_cross_with_all_that_they_say(tmp_path: Path, error: HeadraceError) -> None:
    local = Scripted(tmp_path)
    local.error = error
    async with linked(local) as remote:
        stream = remote.models.generate("fails", [], PARAMS)
        assert await anext(stream) == Delta("one")
        with pytest.raises(type(error)) as caught:
            await anext(stream)
        assert await text_of(remote.models, "talk", "next") == "next"
    assert type(caught.value) is type(error)
    assert vars(caught.value) == vars(error)


async def test_a_defect_in_the_host_fails_that_request_only(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    async with linked(Scripted(tmp_path)) as remote:
        with pytest.raises(HeadraceError, match="internal error") as caught:
            await text_of(remote.models, "defect", "x")
        assert await text_of(remote.models, "talk", "next") == "next"
    assert "secret" not in caught.value.message
    assert "ZeroDivisionError" in caplog.text


async def test_closing_a_stream_cancels_the_work_in_the_host(tmp_path: Path) -> None:
    local = Scripted(tmp_path)
    async with HostServer(local, LocalControl()) as server, connected(server) as remote:
        stream = remote.models.generate("endless", [], PARAMS)
        await anext(stream)
        await stream.aclose()
        async with asyncio.timeout(PATIENCE):
            await local.ended.wait()
        await until(lambda: server.work == 0, "no work is left")


async def test_a_process_that_ends_takes_its_work_with_it_and_nobody_elses(tmp_path: Path) -> None:
    local = Scripted(tmp_path)
    async with HostServer(local, LocalControl()) as server, connected(server, "stays") as other:
        async with connected(server, "leaves") as remote:
            stream = remote.models.generate("endless", [], PARAMS)
            await anext(stream)
            assert sorted(server.links().values()) == ["leaves", "stays"]
        async with asyncio.timeout(PATIENCE):
            await local.ended.wait()
        await until(lambda: server.work == 0, "no work is left")
        assert list(server.links().values()) == ["stays"]
        assert await text_of(other.models, "talk", "still here") == "still here"
        with pytest.raises(ModelFailed, match="gone"):
            async for _ in stream:
                pass


async def test_when_the_host_ends_every_request_fails(tmp_path: Path) -> None:
    local, gone = Scripted(tmp_path), asyncio.Event()
    ours, theirs = socket.socketpair()
    remote = RemoteHost(gone.set)
    async with HostServer(local, LocalControl()) as server:
        await server.attach(ours, "1")
        await remote.connect(theirs)
        stream = remote.models.generate("endless", [], PARAMS)
        await anext(stream)
    assert local.ended.is_set()
    with pytest.raises(ModelFailed, match="gone"):
        async for _ in stream:
            pass
    async with asyncio.timeout(PATIENCE):
        await gone.wait()
    with pytest.raises(ModelFailed, match="gone"):
        await remote.models.embed("vector", ["x"], "query")
    await remote.close()


async def test_questions_go_both_ways_and_new_names_go_before_the_reply(tmp_path: Path) -> None:
    local, control = Scripted(tmp_path), LocalControl()

    async def add(question: Say) -> Said:
        local._specs[question.text] = local._specs["talk"]
        return Said("added")

    async def echo(question: Say) -> Said:
        if question.text == "busy":
            raise Overloaded("later", retry_after=3)
        return Said(question.text)

    async def never(question: Say) -> Said:
        await asyncio.Event().wait()
        raise AssertionError

    control.answer(ECHO, add)
    async with (
        HostServer(local, control) as server,
        connected(server, "a") as one,
        connected(server, "b") as two,
    ):
        assert await one.control.ask(ECHO, Say("new")) == Said("added")
        assert "new" in one.models.names()
        one.answers.answer(ECHO, echo)
        two.answers.answer(ECHO, never)
        names = server.links()
        replies = await server.ask_all(ECHO, Say("hello"), 0.2)
        assert {names[number]: reply for number, reply in replies.items()} == {"a": Said("hello")}
        assert await server.ask_all(ECHO, Say("busy"), 0.2) == {}


async def test_a_damaged_message_ends_the_link_and_not_the_host(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    ours, theirs = socket.socketpair()
    async with HostServer(Scripted(tmp_path), LocalControl()) as server:
        await server.attach(ours, "1")
        with theirs:
            theirs.setblocking(False)
            await asyncio.get_running_loop().sock_sendall(theirs, b"\0\0\0\3abc")
            await until(lambda: not server.links(), "the link is ended")
        async with connected(server) as remote:
            assert await text_of(remote.models, "talk", "fine") == "fine"
    assert "damaged" in caplog.text
