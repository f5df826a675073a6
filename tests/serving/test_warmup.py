"""Models are loaded in the background, and failures are kept and tried again."""

from __future__ import annotations

import asyncio

import pytest

from headrace.config.model_options import ModelOptions
from headrace.config.options import Config
from headrace.errors import ModelFailed
from headrace.serving.catalogue import model_specs
from headrace.serving.local import LocalModels
from headrace.serving.pool import Pool
from headrace.serving.warmup import Warmup
from headrace.types import Role


async def test_models_are_loaded_before_they_are_used(fast: Config) -> None:
    async with Pool(fast) as pool:
        warmup = Warmup(pool, ["echo-embedder", "echo-generator", "echo-embedder"])
        await warmup.run()
        assert set(pool.processes()) == {"echo-embedder", "echo-generator"}
        assert warmup.failures == {}


async def test_a_failure_is_told_and_does_not_keep_the_others_from_loading(
    fast: Config, caplog: pytest.LogCaptureFixture
) -> None:
    broken = ModelOptions(role=Role.GENERATOR, engine="echo", source="no such setting")
    config = fast.model_copy(update={"models": {**fast.models, "broken": broken}})
    async with Pool(config) as pool:
        loaded = asyncio.Event()

        class Watched:
            async def info(self, model: str) -> object:
                found = await pool.info(model)
                loaded.set()
                return found

        warmup = Warmup(Watched(), ["broken", "echo-embedder"])  # type: ignore[arg-type]
        async with warmup.in_background():
            await loaded.wait()
            assert "no such setting" in warmup.failures["broken"]
            assert "'broken' could not be loaded" in caplog.text
        assert list(pool.processes()) == ["echo-embedder"]


async def test_what_failed_is_tried_again_until_it_loads(fast: Config) -> None:
    models = LocalModels(model_specs(fast))
    attempts: list[str] = []

    class DownAtFirst:
        def __getattr__(self, name: str) -> object:
            return getattr(models, name)

        async def info(self, model: str) -> object:
            attempts.append(model)
            if len(attempts) < 4:
                raise ModelFailed("the upstream is down")
            return await models.info(model)

    warmup = Warmup(DownAtFirst(), ["echo-embedder"], first_retry=0.0)  # type: ignore[arg-type]
    await warmup.run()
    assert attempts == ["echo-embedder"] * 4
    assert warmup.failures == {}
