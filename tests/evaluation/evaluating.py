"""A small collection and suite over it, answered by the `echo` engine."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

from headrace.app import application
from headrace.config.options import Config
from headrace.evaluation.format import Gold, Question, Suite
from headrace.pipeline.services import Services

HANDBOOK = """# Handbook

## Keys

The race keeper keeps the keys of the gates.

## Leave

Annual leave is 24 days a year.

## 犬只

第二条 饲养人应当在十四日内到市政厅为犬只登记。
"""


@asynccontextmanager
async def handbook(config: Config, folder: Path) -> AsyncIterator[Services]:
    """The services, with the handbook in collection `book`."""
    docs = folder / "docs"
    docs.mkdir(exist_ok=True)
    (docs / "handbook.md").write_text(HANDBOOK, encoding="utf-8")
    async with application(config) as services:
        await services.jobs.run("book", [docs])
        yield services


def question(number: int, text: str, **more: Any) -> Question:
    return Question(id=f"q{number}", text=text, **more)


def suite(*questions: Question, **more: Any) -> Suite:
    given = questions or (
        question(1, "Who keeps the keys of the gates?", gold=((Gold(place="Keys"),),)),
        question(2, "How long is annual leave?", gold=((Gold(place="Leave"),),)),
        question(3, "饲养人应当在几日内登记？", gold=((Gold(contains=("十四日内",)),),)),
    )
    return Suite(name="book", collection="book", questions=given, **more)
