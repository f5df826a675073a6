"""Fixtures of the whole suite, and the order of tests: the core first, slow tests last."""

from __future__ import annotations

import os
from pathlib import Path

import pytest
from hypothesis import settings

from headrace.config.model_options import DefaultModels, ModelOptions
from headrace.config.options import Config
from headrace.types import Role

# Machines are shared: no limit on an example's time. CI runs the same examples every time; a
# contributor's runs look for new ones.
settings.register_profile("ours", deadline=None, derandomize="CI" in os.environ)
settings.load_profile("ours")

ROOT = Path(__file__).resolve().parent.parent


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    for item in items:
        if "shared" in getattr(item, "fixturenames", ()):
            item.add_marker(pytest.mark.shared)
    items.sort(key=lambda item: item.get_closest_marker("slow") is not None)


@pytest.fixture(scope="session")
def shared() -> Path:
    """The folder of benchmark data beside the checkout, or `HEADRACE_SHARED`."""
    folder = Path(os.environ.get("HEADRACE_SHARED") or ROOT.parent / "shared")
    if not (folder / "data").is_dir():
        pytest.skip(f"needs the data folder {folder} (HEADRACE_SHARED names another place)")
    return folder


@pytest.fixture
def fast(tmp_path: Path) -> Config:
    """A configuration whose three models are `echo` engines, in folders of this test."""
    roles = {"generator": Role.GENERATOR, "embedder": Role.EMBEDDER, "reranker": Role.RERANKER}
    return Config(
        data_dir=tmp_path / "data",
        cache_dir=tmp_path / "cache",
        models={
            f"echo-{name}": ModelOptions(role=role, engine="echo") for name, role in roles.items()
        },
        defaults=DefaultModels(generator="echo-generator", embedder="echo-embedder"),
    )
