"""`headrace measure` and `headrace tune` as people start them."""

from __future__ import annotations

import json
import signal
import subprocess
from collections.abc import Callable
from pathlib import Path

import pytest
from test_interrupted import started, wait_for

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
    asked = filled("ask", "Who keeps the keys of the gates?", "--config", "out/headrace.yaml")
    assert asked.returncode == 0, asked.stderr  # its relative paths are those of the first file
    assert "| token cap |" in (filled_folder / "out" / "evidence.md").read_text()

    found = json.loads((filled_folder / "out" / "tuned.json").read_bytes())
    again = filled(*command, "0.001ms")
    assert f"{len(found['evidence'])} trials in out are not made again" in again.stderr
    (filled_folder / suite).write_text(SUITE.replace("How long", "How much"), encoding="utf-8")
    other = filled(*command, "60s")
    assert other.returncode == 2
    assert "before the suite or its --limit changed" in other.stderr
    assert filled(*command, "60s", "--fresh").returncode == 0


@pytest.mark.parametrize(
    ("content", "said"), [(b"\xff\xfe", "is not UTF-8"), (None, "cannot be read: Is a directory")]
)
def test_a_configuration_that_cannot_be_read(
    filled: Headrace, suite: str, tmp_path: Path, content: bytes | None, said: str
) -> None:
    path = tmp_path / "other.yaml"
    if content is None:
        path.mkdir()
    else:
        path.write_bytes(content)
    done = filled("tune", "--p95", "1s", "--suite", suite, "--config", str(path))
    assert done.returncode == 2
    assert said in done.stderr
    assert "Traceback" not in done.stderr


@pytest.mark.slow
def test_ctrl_c_says_how_to_go_on(filled: Headrace, filled_folder: Path, suite: str) -> None:
    command = ("tune", "--suite", suite, "--p95", "0.001ms", "-o", "stopped")
    evidence = filled_folder / "stopped" / "tuned.json"
    with started(filled_folder, *command) as process:
        wait_for(lambda: evidence.exists() and json.loads(evidence.read_bytes())["evidence"])
        second = filled(*command)
        assert second.returncode == 1
        assert f"(process {process.pid}) is running in stopped" in second.stderr
        process.send_signal(signal.SIGINT)
        _, errors = process.communicate(timeout=120)
    assert process.returncode == 130
    assert "stopped; what was found is in stopped; the same command goes on" in errors
    assert "Traceback" not in errors
    assert "trials in stopped are not made again" in filled(*command).stderr
