"""What is left out so that an answer comes before its deadline.

In this order, each only if the time does not suffice without it, and each told in `done.skipped`:

1. The rerank depth (`headrace.retrieval.rerank`): as many hits as the reranker usually manages in
   its share of the time left; if it takes longer, the order stays as it was.
2. The rewrite, where a generator makes it, and rounds of searching that usually take longer than
   what is left (`headrace.pipeline.finding`). Made by rules, a rewrite costs nothing.
3. The answer's length: as many tokens as the generator usually writes in the time left.
4. The generator: if its first token usually takes longer than the time left, or hardly any token
   would follow, quotations alone answer.
5. A generator that still runs when only the reserve is left is cut off after the last sentence
   that has been checked.

What is usual is measured (`headrace.serving.paces`); what is not known yet is tried.
"""

from __future__ import annotations

import asyncio
import math
import time
from collections.abc import AsyncGenerator
from contextlib import aclosing
from typing import NamedTuple, TypeVar

import msgspec

from headrace.serving.paces import Paces
from headrace.types import Call

T = TypeVar("T")

RESERVE = 0.15
"""Share of an answer's whole time that is kept for quotations and the end, where it is not known
how long they take; and at most half is."""

FEWEST_TOKENS = 12
"""A generator that has time for less says no sentence."""


class Allowance(NamedTuple):
    """What the generator may do: nothing with 0 `max_tokens`. `skipped` says why it is less than
    was planned; empty if it is not."""

    max_tokens: int
    skipped: str = ""


class Budget:
    """The time of one answer, from now to the deadline of its call."""

    def __init__(self, call: Call, paces: Paces) -> None:
        self.call = call
        self._paces = paces
        self._deadline = math.inf if call.deadline is None else call.deadline
        self._whole = self._deadline - time.monotonic()

    def writing(self, embedder: str) -> Call:
        """The call of a generator: it ends when only the reserve is left."""
        if self.call.deadline is None:
            return self.call
        usual = self._paces.usual(f"quote {embedder}")
        reserve = min(self._whole * (0.5 if usual else RESERVE), usual or math.inf)
        return msgspec.structs.replace(self.call, deadline=self._deadline - max(0.0, reserve))

    def allow(self, generator: str, max_tokens: int, writing: Call) -> Allowance:
        """Rules 3 and 4."""
        if writing.deadline is None:
            return Allowance(max_tokens)
        left = writing.deadline - time.monotonic()
        first = self._paces.usual(f"first_token {generator}") or 0.0
        if left <= first:
            return Allowance(0, f"generate: {_ms(left)} left, its first token takes {_ms(first)}")
        each = self._paces.usual(f"token {generator}")
        if not each or (left - first) / each >= max_tokens:
            return Allowance(max_tokens)
        fits = int((left - first) / each)
        if fits < FEWEST_TOKENS:
            return Allowance(0, f"generate: {_ms(left)} left, enough for {fits} tokens")
        return Allowance(fits, f"generate: at most {fits} of {max_tokens} tokens in {_ms(left)}")


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
