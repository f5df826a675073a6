"""`headrace tune` on the example documents with the default models: how much faster, how soon.

The command itself is run, with nothing but a target that is half of what the default takes (found
by a first pass), the project's own suite of written answers and 15 minutes; the numbers are those
that it measured in turns at its end. `--quick` gives it 35 seconds, which is enough to start.
"""

from __future__ import annotations

import json
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

from bench.harness import ROOT, Result, Table

SUITE = ROOT / "examples" / "eval" / "written.yaml"
COLLECTION = "examples"
MINUTES = 15.0


def run(quick: bool) -> Result:
    with tempfile.TemporaryDirectory(prefix="headrace-bench-") as folder:
        return _measure(Path(folder), 0.6 if quick else MINUTES)


def _measure(folder: Path, minutes: float) -> Result:
    config = folder / "headrace.yaml"
    config.write_text(f"data_dir: {folder / 'data'}\n", encoding="utf-8")
    _headrace("ingest", str(ROOT / "examples" / "docs"), "-C", COLLECTION, "-c", str(config))
    began = time.monotonic()
    out = folder / "tuned"
    # A target that cannot be reached: every lever is tried while there is time.
    command = ("tune", "--p95", "1ms", "--suite", str(SUITE), "--minutes", str(minutes))
    _headrace(*command, "-o", str(out), "-c", str(config), expected=(0, 4))
    seconds = time.monotonic() - began
    found = json.loads((out / "tuned.json").read_text(encoding="utf-8"))
    _headrace("config", "check", "-c", str(out / "headrace.yaml"))
    return _result(found, seconds)


def _headrace(*arguments: str, expected: tuple[int, ...] = (0,)) -> None:
    command = [sys.executable, "-m", "headrace", *arguments]
    done = subprocess.run(command, cwd=ROOT, check=False, stdout=subprocess.PIPE, text=True)
    if done.returncode not in expected:
        raise SystemExit(f"{' '.join(command)} ended with {done.returncode}:\n{done.stdout}")


def _result(found: dict[str, Any], seconds: float) -> Result:
    result = Result()
    before, after = found["before"], found["after"]
    result.add("before_p95_ms", before["total"]["p95"])
    result.add("after_p95_ms", after["total"]["p95"])
    result.add("p95_share", after["total"]["p95"] / before["total"]["p95"], "<=", 0.5)
    result.add("before_p50_ms", before["total"]["p50"])
    result.add("after_p50_ms", after["total"]["p50"])
    result.add("minutes", seconds / 60, "<=", MINUTES)
    result.add("answers", found["asked"])
    worse = {name for trial in found["evidence"] for name in trial["worse"]}
    result.add(
        "refused_by_the_gate", sum(t["verdict"] == "worse answers" for t in found["evidence"])
    )
    names = [name for name in before["metrics"] if name in after["metrics"]]
    drops = [max(0.0, _badness(name, after) - _badness(name, before) - 0.01) for name in names]
    result.add("metrics_worse", sum(drop > 0 for drop in drops), "<=", 0)
    result.tables.append(
        Table(
            "Quality",
            ("metric", "before", "after"),
            [(n, before["metrics"][n]["value"], after["metrics"][n]["value"]) for n in names],
        )
    )
    result.tables.append(
        Table(
            "Trials",
            ("lever", "change", "ratio", "verdict"),
            [
                (t["lever"], t["change"], "-" if t["ratio"] is None else t["ratio"], t["verdict"])
                for t in found["evidence"]
            ],
        )
    )
    kept = ", ".join(f"{'.'.join(path)}: {value}" for path, value in found["values"])
    result.notes.append(
        f"kept: {kept or 'nothing'}; metrics that trials were refused for: "
        f"{', '.join(sorted(worse)) or 'none'}; it ended because {found['ended']}"
    )
    return result


def _badness(name: str, side: dict[str, Any]) -> float:
    from headrace.evaluation.metrics import LOWER_IS_BETTER

    value: float = side["metrics"][name]["value"]
    return value if name in LOWER_IS_BETTER else -value
