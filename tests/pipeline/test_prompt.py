"""Passages, conversation and question within a token budget."""

from __future__ import annotations

from pathlib import Path

import pytest

from headrace.engines.base import ModelSpec
from headrace.pipeline.prompt import Prompt, build_prompt
from headrace.serving.local import LocalModels
from headrace.types import Hit, Message, Role, Span

SYSTEM = "Answer from the passages."


@pytest.fixture
def models(tmp_path: Path) -> LocalModels:
    return LocalModels({"talk": ModelSpec("talk", Role.GENERATOR, "echo", "", str(tmp_path))})


def hit(number: int, words: int) -> Hit:
    text = " ".join(f"Sentence {number} has exactly five words." for _ in range(words // 6))
    return Hit(number, "d", "/d.md", "Code", ("Code", f"Article {number}"), Span(0, len(text)),
               text, 1.0, {})  # fmt: skip


async def build(
    models: LocalModels, hits: list[Hit], budget: int, history: tuple[Message, ...] = ()
) -> tuple[Prompt, int]:
    """The prompt, and how many tokens its messages have."""
    prompt = await build_prompt(
        models, "talk", system=SYSTEM, hits=hits, history=history, question="Which?", budget=budget
    )
    counted = await models.count("talk", [message.content for message in prompt.messages])
    return prompt, sum(counted)


async def test_all_passages_where_there_is_room(models: LocalModels) -> None:
    prompt, _ = await build(models, [hit(1, 30), hit(2, 30)], 1000)
    assert prompt.used == 2
    assert prompt.messages[0] == Message("system", SYSTEM)
    last = prompt.messages[-1].content
    assert last.startswith("[1] (Code › Article 1)\nSentence 1 ")
    assert "[2] (Code › Article 2)\n" in last
    assert last.endswith("Question: Which?")


@pytest.mark.parametrize("budget", [80, 128, 300, 600])
async def test_the_budget_holds(models: LocalModels, budget: int) -> None:
    turns = tuple(Message("user", "and what about it " * 10) for _ in range(5))
    prompt, size = await build(models, [hit(n, 120) for n in range(1, 6)], budget, turns)
    assert size <= budget
    assert prompt.used >= 1


async def test_a_passage_that_is_too_long_alone_is_cut_after_a_sentence(
    models: LocalModels,
) -> None:
    prompt, size = await build(models, [hit(1, 600)], 200)
    assert prompt.used == 1
    assert size <= 200
    passage = prompt.messages[-1].content.split("\n\n")[0]
    assert passage.endswith("words.")


async def test_the_latest_turns_are_kept(models: LocalModels) -> None:
    turns = (Message("user", "old " * 400), Message("assistant", "It is two."))
    prompt, _ = await build(models, [hit(1, 30)], 300, turns)
    assert [message.role for message in prompt.messages] == ["system", "assistant", "user"]


async def test_no_hits(models: LocalModels) -> None:
    prompt, _ = await build(models, [], 300)
    assert prompt.used == 0
    assert prompt.messages[-1].content == "Question: Which?"
