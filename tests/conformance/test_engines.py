"""Every engine in a real worker behind the pool, under the faults that any of them can have. The
models are tiny; `openai` asks a server in another thread."""

from __future__ import annotations

import asyncio
import contextlib
import os
import signal
from collections.abc import AsyncIterator, Iterator
from pathlib import Path

import gguf
import numpy as np
import psutil
import pytest
import pytest_asyncio
from tests.conformance.harness import (
    CANCELLED,
    RESULT,
    leaving_nothing,
    outcome,
    outcomes,
    until,
)
from tests.conformance.subjects import configured
from tests.engines import tiny_encoder, tiny_gguf
from tests.engines.upstream import Upstream, serving

from headrace.config.model_options import ModelOptions
from headrace.serving.pool import Pool
from headrace.types import Call, GenerateParams, Message, Role

pytestmark = [pytest.mark.slow, pytest.mark.asyncio(loop_scope="module")]

ENGINES = ("echo", "onnx", "llamacpp", "openai")
FAILED, LATE = "model_failed", "deadline_exceeded"
TEXTS = ["dog", "cat on the leash", "tax due in the city " * 3, "", "第44条 \x00", "water " * 500]
NO_TEXT = "half a character: \ud800"


@pytest.fixture(scope="module")
def upstream() -> Iterator[Upstream]:
    with serving() as found:
        yield found


@pytest_asyncio.fixture(scope="module", loop_scope="module", params=ENGINES)
async def pool(
    request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory, upstream: Upstream
) -> AsyncIterator[Pool]:
    """`vectors` on the engine; its bulk work is not apart, so that there is one worker."""
    folder = tmp_path_factory.mktemp(request.param)
    options = {
        "echo": lambda: {},
        "onnx": lambda: {
            "source": f"file:{tiny_encoder.write(folder / 'model')}",
            "precision": "float32",
        },
        "llamacpp": lambda: {"source": f"file:{_gguf(folder / 'tiny.gguf')}", "max_tokens": 64},
        "openai": lambda: {"source": f"{upstream.url}/v1", "upstream_model": "plain"},
    }[request.param]()
    model = ModelOptions(
        role=Role.EMBEDDER, engine=request.param, timeout_seconds=1.5, threads=1, **options
    )
    config = configured(folder).model_copy(update={"models": {"vectors": model}})
    async with leaving_nothing(), Pool(config) as made:
        yield made


def _gguf(path: Path) -> Path:
    return tiny_gguf.write(path, tiny_gguf.weights(), gguf.PoolingType.MEAN)


@pytest_asyncio.fixture(loop_scope="module")
async def rested(pool: Pool) -> AsyncIterator[Pool]:
    """Loaded before and after: the next request succeeds, and nothing more is held."""
    assert await outcome(embed(pool, "dog")) == RESULT
    async with leaving_nothing(files=False):
        yield pool
        assert await outcome(embed(pool, "dog")) == RESULT


async def embed(pool: Pool, *texts: str, call: Call = Call()) -> np.ndarray:  # noqa: B008
    return await pool.embed("vectors", texts, "passage", call=call)


def worker(pool: Pool) -> psutil.Process:
    (pid,) = pool.processes()["vectors"]
    return psutil.Process(pid)


async def test_together_and_alone_give_the_same(rested: Pool) -> None:
    """ollama#6262: parallel embeddings corrupted. Whatever the text, neither it nor its
    neighbours fail."""
    texts = TEXTS if rested.states()[0].engine != "openai" else TEXTS[:3]
    alone = [await embed(rested, text) for text in texts]
    at_once = await asyncio.gather(*(embed(rested, text) for text in texts))
    together = await embed(rested, *texts)
    assert together.shape[0] == len(texts)
    if rested.states()[0].engine == "openai":  # whose vectors tell their place in the request
        return
    np.testing.assert_allclose(np.concatenate(alone), together, atol=2e-3)
    np.testing.assert_allclose(np.concatenate(at_once), together, atol=2e-3)


async def test_what_is_no_text_fails_alone(rested: Pool) -> None:
    found = await outcomes(embed(rested, text) for text in ("dog", NO_TEXT, "cat", "tax"))
    assert found == [RESULT, "bad_request", RESULT, RESULT]


async def test_a_killed_worker(rested: Pool) -> None:
    before = worker(rested)
    works = [asyncio.create_task(outcome(embed(rested, *["dog"] * 400))) for _ in range(4)]
    await asyncio.sleep(0.01)
    before.kill()
    assert set(await asyncio.gather(*works)) <= {RESULT, FAILED}
    assert await outcome(embed(rested, "dog")) == RESULT
    assert worker(rested).pid != before.pid


async def test_a_stopped_worker(rested: Pool) -> None:
    """vllm#39863: engine dead but health OK."""
    before = worker(rested)
    before.suspend()
    assert set(await outcomes(embed(rested, f"dog {n}") for n in range(4))) <= {RESULT, FAILED}
    await until(lambda: not before.is_running(), "the stopped worker ended")


async def test_clients_that_go_and_times_that_pass(rested: Pool) -> None:
    before = worker(rested)
    before.suspend()  # so that nobody is served at once
    try:
        tasks = [asyncio.create_task(embed(rested, f"cat {n}")) for n in range(3)]
        late = Call(deadline=asyncio.get_running_loop().time() + 0.1)
        waiting = asyncio.create_task(outcome(embed(rested, "tax", call=late)))
        await asyncio.sleep(0.05)
        for task in tasks:
            task.cancel()
        assert await outcomes(tasks) == [CANCELLED] * 3
        assert await waiting == LATE
    finally:
        before.resume()
    assert await outcome(embed(rested, "dog")) == RESULT


async def test_a_change_while_it_computes(rested: Pool) -> None:
    """What is under way ends where it began, and the settings of the pool hold at once."""
    config = rested._roster._config
    running = [asyncio.create_task(outcome(embed(rested, *["dog"] * 50))) for _ in range(4)]
    await asyncio.sleep(0)
    pid = worker(rested).pid
    tight = config.models["vectors"].model_copy(update={"max_pending": 7})
    await rested.configure(config.model_copy(update={"models": {"vectors": tight}}))
    await rested.configure(config)
    assert await asyncio.gather(*running) == [RESULT] * 4
    assert worker(rested).pid == pid


async def test_a_client_gone_mid_stream_stops_the_upstream(
    tmp_path: Path, upstream: Upstream
) -> None:
    """litellm#30244, #37140: a disconnect does not reach the server that computes."""
    model = ModelOptions(
        role=Role.GENERATOR, engine="openai", source=f"{upstream.url}/v1", upstream_model="slow"
    )
    config = configured(tmp_path).model_copy(update={"models": {"talk": model}})
    async with leaving_nothing(), Pool(config) as pool:
        before = upstream.left
        stream = pool.generate("talk", [Message("user", "x")], GenerateParams())
        async with contextlib.aclosing(stream) as deltas:
            await anext(deltas)
        await until(lambda: upstream.left == before + 1, "the upstream stopped")
        (pid,) = pool.processes()["talk"]
        stream = pool.generate("talk", [Message("user", "x")], GenerateParams())
        await anext(stream)
        os.kill(pid, signal.SIGKILL)
        assert await outcome(anext(stream)) == FAILED
        await until(lambda: upstream.left == before + 2, "the upstream stopped again")
