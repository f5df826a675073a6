"""`headrace eval tune-retrieval` as people use it."""

from __future__ import annotations

import json
from pathlib import Path

from tests.cli.conftest import Headrace


def write_suite(folder: Path, count: int) -> str:
    """Questions of which each names the one text that answers it."""
    (folder / "many").mkdir(exist_ok=True)
    lines = ["name: many", "collection: many", "kinds: [retrieval]", "questions:"]
    for n in range(count):
        (folder / "many" / f"{n}.md").write_text(f"# Part {n}\n\nThe part {n} weighs {n} grams.\n")
        lines.append(f"- {{id: q{n}, text: what does part {n} weigh, gold: [{{title: Part {n}}}]}}")
    (folder / "suite.yaml").write_text("\n".join(lines), encoding="utf-8")
    return str(folder / "suite.yaml")


def test_what_is_fitted_can_be_seen_kept_and_undone(headrace: Headrace, tmp_path: Path) -> None:
    suite = write_suite(tmp_path, 60)
    assert headrace("ingest", "many", "-C", "many").returncode == 0
    done = headrace("eval", "tune-retrieval", suite, "--json")
    assert done.returncode == 0, done.stderr
    found = json.loads(done.stdout)
    ways = ["linear", "trees", "linear+past", "trees+past"]
    assert [row["name"] for row in found["rows"]] == ["configured", "weights", *ways]
    file = tmp_path / "data" / "collections" / "many" / "ranker.json"
    assert file.exists() == found["kept"] == (found["chosen"] != "configured")
    for removed in (found["kept"], False):
        reset = headrace("eval", "tune-retrieval", "--reset", "-C", "many", "--json")
        assert json.loads(reset.stdout) == {"collection": "many", "removed": removed}
    assert not file.exists()


def test_what_cannot_be_tuned(headrace: Headrace, tmp_path: Path) -> None:
    few = write_suite(tmp_path, 3)
    assert headrace("ingest", "many", "-C", "many").returncode == 0
    for arguments, why in (
        ([few], "3 questions"),
        ([], "a suite with questions is needed"),
        (["--reset"], "--reset needs a collection"),
    ):
        done = headrace("eval", "tune-retrieval", *arguments)
        assert done.returncode == 2
        assert why in done.stderr
