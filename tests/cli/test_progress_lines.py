"""Progress of ingestion where there is no terminal to draw bars on."""

from __future__ import annotations

import io

from rich.console import Console

from headrace.cli.ingest import Lines
from headrace.ingest.outcomes import Progress


def test_a_line_now_and_then() -> None:
    out = io.StringIO()
    now = [0.0]
    lines = Lines(Console(file=out, markup=False, soft_wrap=True), every=10.0, clock=lambda: now[0])
    for second in range(25):
        now[0] = float(second)
        lines.show(Progress(second, 25, 10 * second, 300, f"/docs/{second} [b]\x1b[31m.md"))
    assert out.getvalue().splitlines() == [
        "10 of 25 files, 100 of 300 passages so far: 10 [b]\N{REPLACEMENT CHARACTER}[31m.md",
        "20 of 25 files, 200 of 300 passages so far: 20 [b]\N{REPLACEMENT CHARACTER}[31m.md",
    ]


def test_a_short_run_says_nothing_on_the_way() -> None:
    out = io.StringIO()
    lines = Lines(Console(file=out), every=10.0, clock=lambda: 1.0)
    lines.show(Progress(1, 1, 1, 1, "a.md"))
    assert out.getvalue() == ""
