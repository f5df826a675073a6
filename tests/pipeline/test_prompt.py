"""Passages, conversation and question within a token budget."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Literal, cast

import pytest

from headrace.engines.base import ModelSpec
from headrace.pipeline.prompt import Prompt, build_prompt
from headrace.serving.local import LocalModels
from headrace.serving.models import Models
from headrace.types import Call, Hit, Message, Role, Span

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
    turns = (
        *(Message("user", "old " * 400), Message("assistant", "It is two.")),
        *(Message("user", "Why two?"), Message("assistant", "So it is.")),
    )
    prompt, _ = await build(models, [hit(1, 30)], 300, turns)
    assert [message.content for message in prompt.messages[1:-1]] == ["Why two?", "So it is."]


@pytest.mark.parametrize(
    "roles",
    [
        *(
            "",
            "u",
            "uu",
            "a",
            "ua",
            "aua",
            "uaa",
            "s",
            "su",
            "us",
            "sua",
            "uas",
            "susasua",
            "uauaua",
        ),
    ],
)
async def test_any_conversation_becomes_turns_that_every_template_takes(
    models: LocalModels, roles: str
) -> None:
    names: dict[str, Literal["system", "user", "assistant"]] = {
        "s": "system",
        "u": "user",
        "a": "assistant",
    }
    turns = tuple(Message(names[role], f"say {n}") for n, role in enumerate(roles))
    prompt, _ = await build(models, [hit(1, 30)], 1000, turns)
    first, *others = prompt.messages
    assert first.role == "system"
    assert first.content.startswith(SYSTEM)
    assert [m.role for m in others] == ["user", "assistant"] * (len(others) // 2) + ["user"]
    whole = "\n".join(message.content for message in prompt.messages)
    kept = [n for n, role in enumerate(roles) if role in "su" or "u" in roles[:n]]
    assert [n for n in range(len(roles)) if f"say {n}" in whole] == kept
    assert others[-1].content.endswith("Question: Which?")


@pytest.mark.parametrize("words", [1, 10, 100])
async def test_a_long_conversation_leaves_half_to_the_passages(
    models: LocalModels, words: int
) -> None:
    turns = tuple(Message("user", "so " * words) for _ in range(200))
    prompt, _ = await build(models, [hit(n, 60) for n in range(1, 30)], 1000, turns)
    size = (await models.count("talk", [prompt.messages[-1].content.split("[1] ")[1]]))[0]
    assert size > 400


async def test_what_cannot_fit_is_not_counted(models: LocalModels) -> None:
    class Counting:
        texts = characters = 0

        async def count(self, model: str, texts: Sequence[str], *, call: Call) -> list[int]:
            self.texts += len(texts)
            self.characters += sum(map(len, texts))
            return await models.count(model, texts, call=call)

    counting = Counting()
    turns = (Message("user", "x " * 500_000), *(Message("user", f"say {n}") for n in range(5_000)))
    prompt = await build_prompt(
        cast(Models, counting),
        *("talk",),
        system=SYSTEM,
        hits=[hit(n, 120) for n in range(1, 101)],
        history=turns,
        question="Which?",
        budget=1000,
    )
    assert counting.texts < 1_000
    assert counting.characters < 40_000
    assert prompt.used >= 1
    assert "say 4999" in prompt.messages[1].content
    long = await build(models, [hit(1, 30)], 300, (Message("user", "x " * 500_000),))
    assert len(long[0].messages) == 2


async def test_no_hits(models: LocalModels) -> None:
    prompt, _ = await build(models, [], 300)
    assert prompt.used == 0
    assert prompt.messages[-1].content == "Question: Which?"
