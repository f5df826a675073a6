"""Run one benchmark by name and report it (the program behind `scripts/bench`)."""

from __future__ import annotations

import argparse
import ast
import importlib
import json
import os
import shlex
import subprocess
import sys
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.table import Table as RichTable

from bench.harness import RESULTS, ROOT, Result, machine


def names() -> dict[str, str]:
    """Benchmark name to what it measures, found without importing the modules."""
    found = {}
    for path in sorted((ROOT / "bench").glob("*.py")):
        tree = ast.parse(path.read_text(encoding="utf-8"))
        functions = {node.name for node in tree.body if isinstance(node, ast.FunctionDef)}
        doc = ast.get_docstring(tree) or ""
        if "run" in functions:
            found[path.stem] = doc.partition("\n")[0]
    return found


def commit() -> str:
    """The commit that was measured, with `+` if the tree has other changes than results."""

    def git(*arguments: str) -> str:
        done = subprocess.run(
            ["git", *arguments], cwd=ROOT, capture_output=True, text=True, check=False
        )
        return done.stdout.strip()

    head = git("rev-parse", "--short=12", "HEAD")
    if not head:
        return "unknown"
    changed = git("status", "--porcelain", "--", ".", ":!bench/results")
    return head + ("+" if changed else "")


def record(name: str, quick: bool, result: Result) -> dict[str, Any]:
    """The JSON line of a result."""
    return {
        "name": name,
        "date": datetime.now(UTC).isoformat(timespec="seconds"),
        "machine": machine(),
        "command": shlex.join(["scripts/bench", name, *(["--quick"] if quick else [])]),
        "commit": commit(),
        "metrics": {key: float(f"{value:.6g}") for key, value in result.metrics.items()},
        "targets": {
            key: {"op": target.op, "value": target.value} for key, target in result.targets.items()
        },
    }


def show(result: Result, console: Console) -> None:
    """Tables, notes, and each target with what was measured."""
    for table in result.tables:
        shown = RichTable(*table.columns, title=table.title, title_justify="left")
        for row in table.rows:
            shown.add_row(*[_cell(value) for value in row])
        console.print(shown)
    if result.targets:
        shown = RichTable(
            "target", "measured", "must be", "", title="Targets", title_justify="left"
        )
        for key, target in result.targets.items():
            measured = result.metrics.get(key)
            reached = measured is not None and target.met(measured)
            shown.add_row(
                key,
                "absent" if measured is None else _cell(measured),
                f"{target.op} {_cell(target.value)}",
                "reached" if reached else "MISSED",
            )
        console.print(shown)
    for note in result.notes:
        console.print(f"- {note}", markup=False, highlight=False)


def _cell(value: object) -> str:
    return f"{value:.4g}" if isinstance(value, float) and abs(value) < 1000 else str(value)


def write(line: dict[str, Any], folder: Path = RESULTS) -> Path:
    """Keep the line as `NAME.json`, whole or not at all."""
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / f"{line['name']}.json"
    part = path.with_suffix(f".{os.getpid()}.part")
    part.write_text(json.dumps(line, indent=1, ensure_ascii=False) + "\n", encoding="utf-8")
    part.replace(path)
    return path


def main(arguments: list[str] | None = None) -> int:
    """Exit status: 0 all targets reached, 1 one missed, 2 no such benchmark."""
    parser = argparse.ArgumentParser(prog="scripts/bench", description=__doc__)
    parser.add_argument("name", nargs="?", help="which benchmark")
    parser.add_argument("--list", action="store_true", help="name them and end")
    parser.add_argument("--quick", action="store_true", help="a smaller run, within 50 seconds")
    given = parser.parse_args(arguments)
    known = names()
    if given.list:
        width = max(map(len, known), default=0)
        for name, what in known.items():
            print(f"{name:{width}}  {what}")
        return 0
    if given.name not in known:
        parser.error(f"which benchmark? known: {', '.join(known) or 'none'}")
    result: Result = importlib.import_module(f"bench.{given.name}").run(given.quick)
    console = Console(width=None if sys.stdout.isatty() else 110)
    show(result, console)
    line = record(given.name, given.quick, result)
    write(line)
    print(json.dumps(line, ensure_ascii=False), flush=True)
    return 1 if result.missed() else 0


if __name__ == "__main__":
    sys.exit(main())
