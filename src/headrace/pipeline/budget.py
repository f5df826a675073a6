"""What is left out so that an answer comes before its deadline.

In this order, each only if the time does not suffice without it, and each told in `done.skipped`:

1. The rerank depth (`headrace.retrieval.rerank`): as many hits as the reranker usually manages in
   its share of the time left; if it takes longer, the order stays as it was.
2. The rewrite, where a generator makes it, and rounds of searching that usually take longer than
   what is left (`headrace.pipeline.finding`). Made by rules, a rewrite costs nothing.
3. The answer's length: as many tokens as the generator usually writes in the time left, down to a
   sentence.
4. The passages that it reads: as much of the prompt as it usually reads in the time left.
5. The generator: if hardly any token would follow, quotations alone answer.
6. A generator that still runs when only the reserve is left is cut off after the last sentence
   that has been checked.
7. The pieces of the passages that the embedder compares with the question for a quotation: as many
   as it usually manages. If even a few do not fit, or it takes longer, quotations are chosen by
   their words and the rank of their passage.
8. The question's vector (`headrace.retrieval.hurry`): if the embedder does not give it in its share
   of the time, the search is by words alone. This comes first in time, but is given up last: the
   embedder computes one question in a hundredth of what an answer takes.

What is usual is measured (`headrace.serving.paces`); what is not known yet is tried, and cut off.
What remains is the server's own work, some milliseconds, which waits for no model.
"""

from __future__ import annotations

import asyncio
import math
import time
from collections.abc import AsyncGenerator
from contextlib import aclosing
from typing import NamedTuple, TypeVar

import msgspec

from headrace.serving.paces import CERTAIN, Paces
from headrace.types import Call

T = TypeVar("T")

RESERVE = 0.15
"""Share of an answer's whole time that is kept for quotations and the end, where it is not known
how long they take; and at most half is."""

FEWEST_TOKENS = 12
"""A generator that has time for less says no sentence."""

SENTENCE_TOKENS = 32
"""Of an English sentence that cites its source. Passages are left out before it is cut shorter."""

LEAST_PROMPT = 192
"""Tokens of a prompt with the instruction, the question and a short passage."""

FEWEST_TEXTS = 4
"""Comparing fewer pieces than this with the question chooses nothing."""

FINISH = "finish"
"""The pace of what follows the last model: choosing by words, proving the quotes, the end."""

FINISH_SECONDS = 0.03
"""Of that, until it has been seen; and at most a fifth of the whole time is kept for it."""


class Allowance(NamedTuple):
    """What the generator may do: nothing with 0 `max_tokens`. `skipped` says why it is less than
    was planned; empty if it is not."""

    max_tokens: int
    prompt_tokens: int
    skipped: tuple[str, ...] = ()


class Comparison(NamedTuple):
    """How many texts the embedder may compare with the question, none with 0, and until when."""

    texts: int
    until: float | None
    skipped: str = ""


class Budget:
    """The time of one answer, from now to the deadline of its call."""

    def __init__(self, call: Call, paces: Paces) -> None:
        self.call = call
        self._paces = paces
        self._deadline = math.inf if call.deadline is None else call.deadline
        self._whole = self._deadline - time.monotonic()

    @property
    def _last(self) -> float:
        """When no model may be waited for any more."""
        finish = self._paces.usual(FINISH, part=CERTAIN) or FINISH_SECONDS
        return self._deadline - max(0.0, min(finish, self._whole / 5))

    def writing(self, embedder: str, texts: int) -> Call:
        """The call of a generator: it ends when only the reserve is left, the usual time of
        comparing so many `texts` for quotations."""
        if self.call.deadline is None:
            return self.call
        usual = self._paces.usual(f"quote {embedder}", texts)
        reserve = min(self._whole * (0.5 if usual else RESERVE), usual or math.inf)
        return msgspec.structs.replace(self.call, deadline=self._last - max(0.0, reserve))

    def allow(
        self, generator: str, max_tokens: int, prompt_tokens: int, writing: Call
    ) -> Allowance:
        """Rules 3, 4 and 5. `prompt_tokens` is what the prompt would have without a deadline."""
        if writing.deadline is None:
            return Allowance(max_tokens, prompt_tokens)
        left = writing.deadline - time.monotonic()
        reading = self._paces.foreseen(f"first_token {generator}", prompt_tokens) or 0.0
        each = self._paces.usual(f"token {generator}") or 0.0
        sentence = min(SENTENCE_TOKENS, max_tokens)
        if reading + sentence * each <= left:
            fits = int((left - reading) / each) if each else max_tokens
            if fits >= max_tokens:
                return Allowance(max_tokens, prompt_tokens)
            return Allowance(fits, prompt_tokens, (_shorter(fits, max_tokens, left),))
        read = int(prompt_tokens * (left - sentence * each) / reading) if reading else 0
        if read >= LEAST_PROMPT:
            passages = f"prompt: at most {read} of {prompt_tokens} tokens in {_ms(left)}"
            if sentence == max_tokens:
                return Allowance(sentence, read, (passages,))
            return Allowance(sentence, read, (_shorter(sentence, max_tokens, left), passages))
        if left <= reading:
            why = f"{_ms(left)} left, its first token takes {_ms(reading)}"
            return Allowance(0, prompt_tokens, (f"generate: {why}",))
        fits = int((left - reading) / each)
        if fits < FEWEST_TOKENS:
            why = f"{_ms(left)} left, enough for {fits} tokens"
            return Allowance(0, prompt_tokens, (f"generate: {why}",))
        return Allowance(fits, prompt_tokens, (_shorter(fits, max_tokens, left),))

    def compare(self, embedder: str, texts: int) -> Comparison:
        """Rule 7."""
        if self.call.deadline is None or not texts:
            return Comparison(texts, None)
        until = self._last
        left = until - time.monotonic()
        each = self._paces.foreseen(f"quote {embedder}", texts)
        fits = texts if each is None else min(texts, int(texts * max(0.0, left) / each))
        if left <= 0 or fits < min(FEWEST_TEXTS, texts):
            return Comparison(0, until, f"quote: chosen by words alone, {_ms(left)} left")
        if fits == texts:
            return Comparison(texts, until)
        return Comparison(fits, until, f"quote: {fits} of {texts} pieces compared in {_ms(left)}")


def _shorter(fits: int, wanted: int, left: float) -> str:
    return f"generate: at most {fits} of {wanted} tokens in {_ms(left)}"


def _ms(seconds: float) -> str:
    return f"{max(0.0, seconds) * 1000:.0f} ms"


async def until(deadline: float | None, items: AsyncGenerator[T, None]) -> AsyncGenerator[T, None]:
    """Items that come before a time of `time.monotonic()`. Raises `TimeoutError` then, with what
    makes them stopped."""
    async with aclosing(items):
        while True:
            left = None if deadline is None else deadline - time.monotonic()
            async with asyncio.timeout(left):
                try:
                    item = await anext(items)
                except StopAsyncIteration:
                    return
            yield item
