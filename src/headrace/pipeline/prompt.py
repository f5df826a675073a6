"""The prompt: instruction, numbered passages, conversation, question, within a token budget."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import NamedTuple

from headrace.pipeline.evidence import Passage
from headrace.pipeline.sentences import sentence_spans, unwrapped
from headrace.pipeline.untrusted import as_passage, defused
from headrace.serving.lengths import estimate
from headrace.serving.models import Models
from headrace.types import USER, Call, Hit, Message

TURN_TOKENS = 8
"""What a chat template adds to one message, at most, for the templates in common use."""


class Prompt(NamedTuple):
    """`used` is how many of the hits, from the first on, are in the messages, `tokens` what all of
    them hold at most, without the chat template's own."""

    messages: tuple[Message, ...]
    used: int
    tokens: int


def passage_text(number: int, hit: Hit, text: str) -> str:
    """One numbered passage, with its title path in parentheses."""
    path = " ".join(defused(" › ".join(hit.path) or hit.title).split())
    return f"[{number}] ({path})\n{as_passage(unwrapped(text.strip()))}\n\n"


def prompt_estimate(
    system: str, sources: Sequence[Passage], history: Sequence[Message], question: str
) -> int:
    """About how many tokens the whole prompt has, without asking the tokenizer; at least 1."""
    texts = [system, question, *(turn.content for turn in history)]
    texts += [passage_text(n, source.hit, source.hit.text) for n, source in enumerate(sources, 1)]
    return sum(map(estimate, texts)) or 1


async def build_prompt(
    models: Models,
    generator: str,
    *,
    system: str,
    hits: Sequence[Hit],
    history: Sequence[Message],
    question: str,
    budget: int,
    call: Call = USER,
) -> Prompt:
    """Passages in order of rank while they fit into `budget` tokens, as the generator counts them,
    after the instruction, the question and as much of the latest conversation as half of the rest
    holds. The first passage is shortened at a sentence's end if it alone is too long. The stable
    part (the instruction) comes first, so that prefix caches work. Nothing but the instruction can
    hold a chat template's own tokens. What cannot fit is not counted either: a conversation may be
    as long as its sender likes. Raises what `models` raises."""
    question = defused(question)
    latest = _may_fit((turn.content for turn in reversed(history)), 2 * budget)
    turns = [Message(t.role, defused(t.content)) for t in history[len(history) - latest :]]
    every = [passage_text(n, hit, hit.text) for n, hit in enumerate(hits, 1)]
    parts = every[: max(1, _may_fit(every, 2 * budget))]
    texts = [system, question, *parts, *(turn.content for turn in turns)]
    counts = await models.count(generator, texts, call=call)
    sizes, turn_sizes = counts[2 : 2 + len(parts)], counts[2 + len(parts) :]
    left = budget - counts[0] - counts[1] - 3 * TURN_TOKENS

    kept: list[Message] = []
    for_turns = left // 2
    for message, size in zip(reversed(turns), reversed(turn_sizes), strict=True):
        for_turns -= size + TURN_TOKENS
        if for_turns < 0:
            break
        kept.insert(0, message)
        left -= size + TURN_TOKENS

    taken: list[str] = []
    for part, size in zip(parts, sizes, strict=True):
        if size > left:
            break
        taken.append(part)
        left -= size
    if not taken and hits and left > 0:
        share = max(0.0, left / sizes[0] - 0.05)
        taken.append(passage_text(1, hits[0], _shorten(hits[0].text, share)))
        left = 0
    told = [system, *(turn.content for turn in kept if turn.role == "system")]
    said = [turn for turn in kept if turn.role != "system"]
    asked = Message("user", f"{''.join(taken)}Question: {question}")
    messages = (Message("system", "\n\n".join(told)), *_in_turn([*said, asked]))
    return Prompt(messages, len(taken), budget - left - 3 * TURN_TOKENS)


def _may_fit(texts: Iterable[str], budget: int) -> int:
    """How many of the texts, from the first on, an estimate lets into the budget."""
    count = 0
    for text in texts:
        budget -= estimate(text)
        if budget < 0:
            break
        count += 1
    return count


def _in_turn(turns: Sequence[Message]) -> list[Message]:
    """The user first, then in turns, as the chat templates of some models insist: two of one side
    in a row become one."""
    found: list[Message] = []
    for turn in turns:
        if found and found[-1].role == turn.role:
            found[-1] = Message(turn.role, f"{found[-1].content}\n\n{turn.content}")
        elif found or turn.role == "user":
            found.append(turn)
    return found


def _shorten(text: str, share: float) -> str:
    """The first sentences of `text` that fit into `share` of its length; at least something."""
    limit = int(len(text) * share)
    ends = [span.end for span in sentence_spans(text) if span.end <= limit]
    return text[: ends[-1]] if ends else text[:limit]
