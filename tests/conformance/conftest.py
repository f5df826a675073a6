"""Settings of the suite."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from headrace.serving import arbiter_events


@pytest.fixture(autouse=True, scope="package")
def _short_pauses() -> Iterator[None]:
    """One worker after another is killed here, and the pauses between restarts double each time:
    from a twentieth of a second instead of a whole one."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(arbiter_events, "FIRST_PAUSE", 0.05)
        yield
