"""Fixtures of the HTTP tests."""

from __future__ import annotations

import asyncio
import shutil
from collections.abc import AsyncIterator
from dataclasses import replace
from pathlib import Path

import httpx
import pytest
from http_app import connect, fill, running

from headrace.config.model_options import DefaultModels, ModelOptions
from headrace.config.options import ApiKey, Config, ServerOptions
from headrace.pipeline.services import Services
from headrace.types import Role


def echo_models() -> dict[str, ModelOptions]:
    return {f"echo-{role}": ModelOptions(role=role, engine="echo") for role in Role}


@pytest.fixture(scope="session")
def filled(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A data folder with the collection `town`; tests work on copies."""
    folder = tmp_path_factory.mktemp("http")
    defaults = DefaultModels(generator="echo-generator", embedder="echo-embedder")
    config = Config(data_dir=folder / "data", models=echo_models(), defaults=defaults)
    asyncio.run(fill(config))
    return config.data_dir


@pytest.fixture(scope="session")
def echo() -> dict[str, ModelOptions]:
    return echo_models()


@pytest.fixture(scope="module")
def filled_copy(filled: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A copy for tests of one module that only read."""
    return shutil.copytree(filled, tmp_path_factory.mktemp("copy") / "data")


@pytest.fixture
def town(fast: Config, filled: Path) -> Config:
    shutil.copytree(filled, fast.data_dir)
    return fast


@pytest.fixture
async def services(town: Config) -> AsyncIterator[Services]:
    async with running(town) as made:
        yield made


@pytest.fixture
async def client(services: Services) -> AsyncIterator[httpx.AsyncClient]:
    async with connect(services) as made:
        yield made


@pytest.fixture
def keyed(services: Services) -> Services:
    """The same services behind two keys: a reader of `public`, and the owner."""
    keys = (ApiKey(env="READER_KEY"), ApiKey(env="OWNER_KEY", access=("*",), admin=True))
    server = ServerOptions(keys=keys)
    return replace(services, config=services.config.model_copy(update={"server": server}))
