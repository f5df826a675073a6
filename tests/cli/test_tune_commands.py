"""`headrace measure` and `headrace tune` as people start them."""

from __future__ import annotations

import json
import subprocess
from collections.abc import Callable
from pathlib import Path

import pytest

Headrace = Callable[..., subprocess.CompletedProcess[str]]

SUITE = """\
name: book
collection: default
kinds: [answers]
questions:
  - {id: keys, text: Who keeps the keys of the gates?, gold: [{place: Keys}]}
  - {id: leave, text: How long is annual leave?, gold: [{place: Leave}]}
"""


@pytest.fixture
def suite(filled_folder: Path) -> str:
    (filled_folder / "suite.yaml").write_text(SUITE, encoding="utf-8")
    return "suite.yaml"


def test_measure_shows_where_the_time_goes(filled: Headrace, filled_folder: Path) -> None:
    questions = filled_folder / "questions.txt"
    questions.write_text("Who keeps the keys of the gates?\n\nHow long is annual leave?\n")
    done = filled("measure", "questions.txt", "-n", "4", "--users", "2", "--json")
    assert done.returncode == 0, done.stderr
    found = json.loads(done.stdout)
    assert found["questions"] == 4
    assert found["stages"]["total"]["n"] == 4
    assert found["models"]["talk"]["worked"] > 0
    shown = filled("measure", "questions.txt", "--deadline-ms", "60000")
    assert "first_token" in shown.stdout
    assert "tokens out" in shown.stdout
    assert "2 answers, 1 at once" in shown.stdout


def test_measure_takes_the_questions_of_a_suite(filled: Headrace, suite: str) -> None:
    done = filled("measure", "--suite", suite, "--json")
    assert json.loads(done.stdout)["questions"] == 2


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (("measure",), "a file of questions or --suite"),
        (("measure", "none.txt"), "cannot be read"),
        (("measure", "headrace.yaml", "--suite", "suite.yaml"), "one of the two"),
        (("tune", "--p95", "soon", "--suite", "suite.yaml"), "1000ms"),
        (("tune", "--p95", "1s", "--suite", "suite.yaml", "--models", "none"), "'none'"),
    ],
)
def test_wrong_usage_says_what_is_right(
    filled: Headrace, suite: str, arguments: tuple[str, ...], said: str
) -> None:
    done = filled(*arguments)
    assert done.returncode == 2
    assert said in done.stderr


@pytest.mark.slow
def test_tune_writes_a_configuration_that_can_be_used(
    filled: Headrace, filled_folder: Path, suite: str
) -> None:
    before = (filled_folder / "headrace.yaml").read_bytes()
    command = ("tune", "--suite", suite, "--minutes", "1", "-o", "out", "--p95")
    assert filled(*command, "1h").returncode == 2
    easy = filled(*command, "60s")
    assert easy.returncode == 0, easy.stderr
    assert "the target is reached" in easy.stdout
    hard = filled(*command, "0.001ms")
    assert hard.returncode == 4
    assert "as configured, 2 questions" in hard.stderr
    assert (filled_folder / "headrace.yaml").read_bytes() == before
    checked = filled("config", "check", "--config", "out/headrace.yaml")
    assert checked.returncode == 0, checked.stderr
    assert "| token cap |" in (filled_folder / "out" / "evidence.md").read_text()
