"""`headrace eval calibrate`, and what `headrace ask` shows of a refusal."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from conftest import Headrace, make_folder, runner

OFF = "How many moons circle Jupiter nowadays?"


def test_a_refusal_shows_the_nearest_passages(filled: Headrace) -> None:
    done = filled("ask", OFF)
    assert done.returncode == 3
    assert "refused: " in done.stdout
    assert "nearest: " in done.stdout
    assert "handbook.md" in done.stdout
    record = json.loads(filled("ask", OFF, "--json").stdout)
    assert record["refusal"] is True
    assert record["refused"]["support"] < record["refused"]["threshold"]
    assert record["refused"]["nearest"][0]["source"].endswith("handbook.md")
    assert record["conflicts"] == []


def test_questions_without_a_word_are_wrong_usage(filled: Headrace) -> None:
    for question in ("", "  ", "?!"):
        done = filled("ask", question)
        assert done.returncode == 2
        assert "the question" in done.stderr


def suite(path: Path, questions: int) -> str:
    asked = [
        {"id": f"q{n}", "text": f"Who keeps the keys of gate {n}?", "gold": [{"place": "Keys"}]}
        for n in range(questions)
    ]
    given = {"name": "keys", "collection": "default", "questions": asked}
    (path / "keys.yaml").write_text(json.dumps(given), encoding="utf-8")  # YAML holds JSON
    return "keys.yaml"


@pytest.mark.slow
def test_calibrate_keeps_what_it_found_with_the_collection(tmp_path: Path) -> None:
    headrace = runner(make_folder(tmp_path))
    assert headrace("ingest", "docs").returncode == 0
    few = headrace("eval", "calibrate", suite(tmp_path, 3))
    assert few.returncode == 2
    assert "too few" in few.stderr
    done = headrace("eval", "calibrate", suite(tmp_path, 40))
    assert done.returncode == 0, done.stderr
    assert "area under the curve" in done.stdout
    record = json.loads(headrace("eval", "calibrate", "keys.yaml", "--json").stdout)
    assert record["quality"]["answerable"] == 40
    (file,) = tmp_path.rglob("calibration.json")
    assert json.loads(file.read_bytes()) == {
        **record,
        "made": json.loads(file.read_bytes())["made"],
    }
    answered = json.loads(headrace("ask", "Who keeps the keys of gate 5?", "--json").stdout)
    assert answered["refusal"] is False
    refused = json.loads(headrace("ask", OFF, "--json").stdout)
    assert refused["refused"]["threshold"] == record["threshold"]


def test_a_suite_of_another_collection(filled: Headrace, filled_folder: Path) -> None:
    done = filled("eval", "calibrate", suite(filled_folder, 20), "-C", "nowhere")
    assert done.returncode == 1
    assert "known: default" in done.stderr
