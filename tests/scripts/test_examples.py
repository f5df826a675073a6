"""The examples are what their script makes, and the questions over them have answers there."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from ruamel.yaml import YAML

from headrace.ingest.chunkers import chunk, unaccounted
from headrace.ingest.readers import ReadLimits, read

ROOT = Path(__file__).parents[2]
DOCS = ROOT / "examples" / "docs"
QUESTIONS: dict[str, Any] = YAML(typ="safe").load(ROOT / "examples" / "questions.yaml")


def test_the_pdf_and_the_docx_are_up_to_date() -> None:
    done = subprocess.run(
        [sys.executable, "scripts/make_examples.py", "--check"],
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stdout + done.stderr


@pytest.mark.parametrize("path", sorted(DOCS.iterdir()), ids=lambda path: path.name)
def test_every_document_is_read_without_loss(path: Path) -> None:
    parsed = read(path, ReadLimits())
    _, chunking = chunk(parsed, "auto", 400)
    assert chunking.chunks
    assert not unaccounted(parsed, chunking)


@pytest.mark.parametrize(("name", "label"), [("zh", "第三十八条之一"), ("en", "Article 38-1")])
def test_both_codes_have_the_same_articles(name: str, label: str) -> None:
    parsed = read(DOCS / f"municipal-code.{name}.md", ReadLimits())
    chunker, chunking = chunk(parsed, "auto", 400)
    assert chunker == "statute"
    articles = {piece.path[-1] for piece in chunking.chunks if piece.path}
    found = [title for title in articles if title.startswith(("第", "Article"))]
    assert label in found
    assert len(found) == 81


def test_the_demo_asks_three_questions_one_of_them_chinese() -> None:
    by_id = {question["id"]: question for question in QUESTIONS["questions"]}
    assert len(by_id) == len(QUESTIONS["questions"])
    languages = [by_id[name]["language"] for name in QUESTIONS["demo"]]
    assert sorted(languages) == ["en", "en", "zh"]


@pytest.mark.parametrize("question", QUESTIONS["questions"], ids=lambda question: question["id"])
def test_gold_stands_in_the_documents(question: dict[str, Any]) -> None:
    if question.get("answerable") is False:
        assert "gold" not in question
        return
    for gold in question["gold"]:
        text = read(DOCS / gold["document"], ReadLimits()).text
        assert gold["place"] in text
        assert all(words in text.replace("\n", "") for words in gold["contains"])
