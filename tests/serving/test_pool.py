"""Real worker processes with the echo engine: replies, streams, cancellation, death."""

from __future__ import annotations

import asyncio
import contextlib
import os
import signal
import sys
from collections.abc import AsyncIterator
from pathlib import Path

import numpy as np
import psutil
import pytest

from headrace.engines.base import ModelSpec
from headrace.errors import ConfigError, ModelFailed, Overloaded, PromptTooLong, UnknownModel
from headrace.serving.local import LocalModels
from headrace.serving.pool import Pool
from headrace.types import GenerateParams, Message, Role


def spec(name: str, role: Role, cache: Path, source: str = "", **options: object) -> ModelSpec:
    return ModelSpec(name, role, "echo", source, str(cache), dict(options))


@pytest.fixture
async def pool(tmp_path: Path) -> AsyncIterator[Pool]:
    specs = [
        spec("talk", Role.GENERATOR, tmp_path, context=300),
        spec("slow", Role.GENERATOR, tmp_path, "delay=0.05"),
        spec("vector", Role.EMBEDDER, tmp_path),
        spec("tight", Role.EMBEDDER, tmp_path, "delay=0.3", max_pending=1),
        spec("hung", Role.EMBEDDER, tmp_path, "delay=30", timeout_seconds=0.3),
        spec("wrong", Role.EMBEDDER, tmp_path, "nonsense"),
    ]
    async with Pool({s.name: s for s in specs}) as made:
        yield made


async def say(pool: Pool, model: str, text: str) -> str:
    messages = [Message("user", text)]
    return "".join([d.text async for d in pool.generate(model, messages, GenerateParams())])


async def test_replies_equal_those_of_the_same_engine_in_process(
    pool: Pool, tmp_path: Path
) -> None:
    local = LocalModels({"vector": spec("vector", Role.EMBEDDER, tmp_path)})
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
    pid = pool.processes()["slow"]
    task = asyncio.create_task(say(pool, "slow", "word " * 100))
    await asyncio.sleep(0.2)
    os.kill(pid, signal.SIGKILL)
    with pytest.raises(ModelFailed, match="signal 9"):
        await task
    assert await say(pool, "slow", "alive") == "alive"
    assert pool.processes()["slow"] != pid


async def test_a_worker_without_progress_is_killed(pool: Pool) -> None:
    with pytest.raises(ModelFailed, match="no progress"):
        await pool.embed("hung", ["x"], "query")
    assert "hung" not in pool.processes()


async def test_no_process_is_left(tmp_path: Path) -> None:
    async with Pool({"talk": spec("talk", Role.GENERATOR, tmp_path)}) as pool:
        await pool.info("talk")
        pid = pool.processes()["talk"]
        assert psutil.pid_exists(pid)
    assert not psutil.pid_exists(pid)


async def test_a_worker_ends_when_its_server_is_killed(tmp_path: Path) -> None:
    code = (
        "import asyncio, sys\n"
        "from headrace.engines.base import ModelSpec\n"
        "from headrace.serving.pool import Pool\n"
        "async def main():\n"
        "    async with Pool({'e': ModelSpec('e', 'embedder', 'echo', 'delay=60', '.')}) as pool:\n"
        "        await pool.info('e')\n"
        "        print(pool.processes()['e'], flush=True)\n"
        "        await pool.embed('e', ['x'], 'query')\n"
        "asyncio.run(main())\n"
    )
    script = tmp_path / "server.py"
    script.write_text(code)
    server = await asyncio.create_subprocess_exec(
        sys.executable, str(script), stdout=asyncio.subprocess.PIPE
    )
    assert server.stdout is not None
    worker = psutil.Process(int(await server.stdout.readline()))
    await asyncio.sleep(0.2)  # the engine computes by now
    server.kill()
    await server.wait()
    await asyncio.to_thread(worker.wait, 10)
