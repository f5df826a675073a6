"""Real worker processes with the echo engine: replies, streams, cancellation, death."""

from __future__ import annotations

import asyncio
import contextlib
import os
import signal
import sys
import time
from collections.abc import AsyncIterator
from pathlib import Path

import numpy as np
import psutil
import pytest
from bench.sim import traces
from bench.sim.machine import laptop
from tests.engines import tiny_encoder

from headrace.config.model_options import ModelOptions
from headrace.config.options import Config, DeviceOptions, ServerOptions
from headrace.errors import (
    ConfigError,
    DeadlineExceeded,
    ModelFailed,
    Overloaded,
    PromptTooLong,
    UnknownModel,
)
from headrace.serving.arbiter_types import Place
from headrace.serving.catalogue import model_specs
from headrace.serving.local import LocalModels
from headrace.serving.pool import Pool
from headrace.types import BULK, Call, GenerateParams, Message, Role


def model(role: Role, source: str = "", **options: object) -> ModelOptions:
    return ModelOptions(role=role, engine="echo", source=source, **options)  # type: ignore[arg-type]


def configured(folder: Path, **models: ModelOptions) -> Config:
    """Nothing but those models, which Headrace's own need not be."""
    base = Config(data_dir=folder / "data", cache_dir=folder / "cache")
    return base.model_copy(update={"models": models})


@pytest.fixture
async def pool(tmp_path: Path) -> AsyncIterator[Pool]:
    config = configured(
        tmp_path,
        talk=model(Role.GENERATOR, context=300),
        slow=model(Role.GENERATOR, "delay=0.05"),
        vector=model(Role.EMBEDDER),
        tight=model(Role.EMBEDDER, "delay=0.3", max_pending=1),
        hung=model(Role.EMBEDDER, "delay=30", timeout_seconds=0.3),
        wrong=model(Role.EMBEDDER, "nonsense"),
    )
    async with Pool(config) as made:
        yield made


async def say(pool: Pool, name: str, text: str) -> str:
    messages = [Message("user", text)]
    return "".join([d.text async for d in pool.generate(name, messages, GenerateParams())])


async def test_replies_equal_those_of_the_same_engine_in_process(
    pool: Pool, tmp_path: Path
) -> None:
    local = LocalModels(model_specs(configured(tmp_path, vector=model(Role.EMBEDDER))))
    texts = [f"text number {n} 第{n}条" for n in range(70)]  # more than one step
    far = await pool.embed("vector", texts, "passage")
    assert far.dtype == np.float32
    assert np.array_equal(far, await local.embed("vector", texts, "passage"))
    assert await pool.count("vector", texts) == await local.count("vector", texts)
    assert np.array_equal(
        await pool.score("vector", "text", texts), await local.score("vector", "text", texts)
    )


async def test_empty_input_gives_empty_output(pool: Pool) -> None:
    assert (await pool.embed("vector", [], "query")).shape == (0, 64)
    assert (await pool.score("vector", "x", [])).shape == (0,)
    assert await pool.count("vector", []) == []


async def test_streams_run_side_by_side(pool: Pool) -> None:
    texts = [f"word{n} and some more words" for n in range(8)]
    assert await asyncio.gather(*(say(pool, "talk", text) for text in texts)) == texts


async def test_a_closed_stream_stops_and_the_next_request_works(pool: Pool) -> None:
    stream = pool.generate("slow", [Message("user", "one two three four " * 50)], GenerateParams())
    async with contextlib.aclosing(stream) as deltas:
        async for _ in deltas:
            break
    assert await say(pool, "slow", "again") == "again"
    assert pool.pending()["slow"] == 0


async def test_errors_of_the_engine_keep_their_type(pool: Pool) -> None:
    with pytest.raises(PromptTooLong):
        await say(pool, "talk", "word " * 400)
    assert await say(pool, "talk", "short") == "short"


async def test_a_model_that_cannot_be_loaded_says_why(pool: Pool) -> None:
    with pytest.raises(ConfigError, match="nonsense"):
        await pool.embed("wrong", ["x"], "query")


async def test_an_unknown_model_names_the_known_ones(pool: Pool) -> None:
    with pytest.raises(UnknownModel, match="talk"):
        await pool.info("nobody")


async def test_a_full_queue_refuses_at_once(pool: Pool) -> None:
    await pool.info("tight")
    first = asyncio.create_task(pool.embed("tight", ["x"], "query"))
    await asyncio.sleep(0.05)
    with pytest.raises(Overloaded):
        await pool.embed("tight", ["y"], "query")
    assert (await first).shape == (1, 64)


async def test_a_killed_worker_fails_its_requests_and_is_replaced(pool: Pool) -> None:
    await pool.info("slow")
    (pid,) = pool.processes()["slow"]
    task = asyncio.create_task(say(pool, "slow", "word " * 100))
    await asyncio.sleep(0.2)
    os.kill(pid, signal.SIGKILL)
    with pytest.raises(ModelFailed, match="signal 9"):
        await task
    assert await say(pool, "slow", "alive") == "alive"
    assert pool.processes()["slow"] != (pid,)


async def test_a_worker_without_progress_is_killed(pool: Pool) -> None:
    with pytest.raises(ModelFailed, match="no progress"):
        await pool.embed("hung", ["x"], "query")
    assert "hung" not in pool.processes()


async def test_no_process_is_left(tmp_path: Path) -> None:
    async with Pool(configured(tmp_path, talk=model(Role.GENERATOR))) as pool:
        await pool.info("talk")
        (pid,) = pool.processes()["talk"]
        assert psutil.pid_exists(pid)
    assert not psutil.pid_exists(pid)


async def test_a_worker_ends_when_its_server_is_killed(tmp_path: Path) -> None:
    code = (
        "import asyncio, sys\n"
        "from headrace.config.options import Config, ModelOptions\n"
        "from headrace.serving.pool import Pool\n"
        "async def main():\n"
        "    e = ModelOptions(role='embedder', engine='echo', source='delay=60')\n"
        "    config = Config(cache_dir=sys.argv[1]).model_copy(update={'models': {'e': e}})\n"
        "    async with Pool(config) as pool:\n"
        "        await pool.info('e')\n"
        "        print(pool.processes()['e'][0], flush=True)\n"
        "        await pool.embed('e', ['x'], 'query')\n"
        "asyncio.run(main())\n"
    )
    script = tmp_path / "server.py"
    script.write_text(code)
    server = await asyncio.create_subprocess_exec(
        sys.executable, str(script), str(tmp_path), stdout=asyncio.subprocess.PIPE
    )
    assert server.stdout is not None
    worker = psutil.Process(int(await server.stdout.readline()))
    await asyncio.sleep(0.2)  # the engine computes by now
    server.kill()
    await server.wait()
    await asyncio.to_thread(worker.wait, 10)


async def test_a_replaced_model_that_cannot_be_loaded_leaves_the_old_one(
    pool: Pool, tmp_path: Path
) -> None:
    assert await say(pool, "talk", "before") == "before"
    worker = pool.processes()["talk"]
    with pytest.raises(ConfigError, match="nonsense"):
        await pool.configure(configured(tmp_path, talk=model(Role.GENERATOR, "nonsense")))
    assert await say(pool, "talk", "after") == "after"
    assert pool.processes()["talk"] == worker
    assert "slow" in pool.names()


async def test_a_stream_outlives_the_replacement_and_the_removal_of_its_model(
    pool: Pool, tmp_path: Path
) -> None:
    text = "one two three four five six seven eight nine ten"
    stream = pool.generate("slow", [Message("user", text)], GenerateParams())
    first = await anext(stream)
    old = pool.processes()["slow"]
    await pool.configure(configured(tmp_path, slow=model(Role.GENERATOR, "delay=0.001")))
    assert pool.names() == ["slow"]
    assert await say(pool, "slow", "new") == "new"
    assert pool.processes()["slow"] != old
    rest = [delta.text async for delta in stream]
    assert first.text + "".join(rest) == text


async def test_a_change_of_settings_keeps_the_worker(pool: Pool, tmp_path: Path) -> None:
    await pool.info("vector")
    worker = pool.processes()["vector"]
    await pool.configure(configured(tmp_path, vector=model(Role.EMBEDDER, pin=True, max_pending=3)))
    assert (await pool.embed("vector", ["x"], "query")).shape == (1, 64)
    assert pool.processes()["vector"] == worker


async def test_an_operator_moves_a_model_and_the_next_request_brings_it_back(pool: Pool) -> None:
    await pool.order("vector", Place.SERVING)
    (worker,) = pool.processes()["vector"]
    await pool.order("vector", Place.PARKED)
    assert pool.processes()["vector"] == (worker,)
    assert (await pool.embed("vector", ["x"], "query")).shape == (1, 64)
    await pool.order("vector", Place.GONE)
    assert not psutil.pid_exists(worker)
    assert (await pool.embed("vector", ["x"], "query")).shape == (1, 64)
    whats = [one.what for one in pool.decisions() if one.model == "vector"]
    assert whats == ["load", "park", "load", "exit", "load"]


async def test_a_model_larger_than_its_device_is_refused_with_the_arithmetic(
    tmp_path: Path,
) -> None:
    config = configured(tmp_path, big=model(Role.EMBEDDER, size_hint="3GiB")).model_copy(
        update={"devices": {"host": DeviceOptions(limit="1GiB")}}
    )
    async with Pool(config) as pool:
        with pytest.raises(ConfigError, match=r"3072 MiB.*1024 MiB"):
            await pool.embed("big", ["x"], "query")
        assert pool.processes() == {}


async def test_a_reset_fails_what_runs_and_serves_what_comes(pool: Pool) -> None:
    stream = pool.generate("slow", [Message("user", "word " * 100)], GenerateParams())
    await anext(stream)
    await pool.reset("slow")
    with pytest.raises(ModelFailed, match="reset"):
        async for _ in stream:
            pass
    assert await say(pool, "slow", "alive") == "alive"


async def test_a_deadline_that_passes_at_the_door_is_told(pool: Pool) -> None:
    for work in (
        lambda call: pool.embed("vector", ["x"], "query", call=call),
        lambda call: pool.info("vector", call=call),
        lambda call: pool.count("vector", ["x"], call=call),
        lambda call: pool.count("vector", [], call=call),
    ):
        with pytest.raises(DeadlineExceeded):
            await work(Call(deadline=time.monotonic() + 0.001))
    assert (await pool.embed("vector", ["x"], "query")).shape == (1, 64)


async def test_bulk_work_of_an_encoder_has_a_worker_of_the_lowest_priority(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = tiny_encoder.write(tmp_path / "model")
    encoder = ModelOptions(
        role=Role.EMBEDDER, engine="onnx", source=f"file:{folder}", precision="float32"
    )
    async with Pool(configured(tmp_path, tiny=encoder), twins=True) as pool:
        people = await pool.embed("tiny", ["a b"], "passage")
        (main,) = pool.processes()["tiny"]
        assert np.array_equal(await pool.embed("tiny", ["a b"], "passage", call=BULK), people)
        twin = next(pid for pid in pool.processes()["tiny"] if pid != main)
        assert psutil.Process(main).nice() == 0
        assert psutil.Process(twin).nice() == 19
        # One that gets no time at all: its work ages, and goes to the model's own worker.
        monkeypatch.setattr("headrace.serving.pool.TWIN_SECONDS", 0.2)
        os.kill(twin, signal.SIGSTOP)
        async with asyncio.timeout(20):
            assert np.array_equal(await pool.embed("tiny", ["a b"], "passage", call=BULK), people)
        os.kill(twin, signal.SIGCONT)


async def test_a_recording_can_be_replayed(tmp_path: Path) -> None:
    file = tmp_path / "trace.jsonl"
    config = configured(
        tmp_path, vector=model(Role.EMBEDDER), talk=model(Role.GENERATOR)
    ).model_copy(update={"server": ServerOptions(trace_file=file)})
    async with Pool(config) as pool:
        await pool.embed("vector", ["a", "b"], "query", call=Call(cycle="c", then=("talk",)))
        stream = pool.generate(
            "talk", [Message("user", "secret")], GenerateParams(), call=Call(cycle="c")
        )
        assert [delta async for delta in stream]
    assert "secret" not in file.read_text()
    first, second = traces.read(file, laptop()).jobs
    assert (first.model, first.size, first.then) == ("embedder", 2, ("llm",))
    assert (second.model, second.after) == ("llm", 0)
    assert first.work > 0
