"""Fixtures for engines with real weights."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from headrace.config.options import Config


@pytest.fixture(scope="session")
def model_cache() -> Path:
    """Where the default models are kept: `HEADRACE_TEST_CACHE`, else the user's own cache, so that
    a second run fetches nothing."""
    given = os.environ.get("HEADRACE_TEST_CACHE")
    return Path(given) if given else Config().cache_dir
