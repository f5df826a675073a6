"""What a generator has written so far, and how fast."""

from __future__ import annotations

import time

from headrace.pipeline.sentences import SentenceStream, goes_round
from headrace.serving.paces import Paces
from headrace.types import Delta


class Writer:
    """The text of one generator, sentence by sentence. `deltas` counts those with text,
    `reads` are the tokens of its prompt. Its time begins now: counting them belongs to reading."""

    def __init__(self, generator: str, paces: Paces, reads: int, most: int | None = None) -> None:
        self._generator = generator
        self._paces = paces
        self._sentences = SentenceStream()
        self._written: list[str] = []
        self._began = self._first = time.monotonic()
        self._left = most
        self.reads = reads
        self.deltas = 0

    def take(self, delta: Delta) -> list[str]:
        """The sentences that it completes."""
        if delta.text:
            if not self.deltas:
                self._first = time.monotonic()
                seconds = self._first - self._began
                self._paces.note(f"first_token {self._generator}", seconds, self.reads)
            self.deltas += 1
            self._written.append(delta.text)
        if delta.usage is not None:
            self._note_pace(delta.usage.completion_tokens)
        complete = self._sentences.feed(delta.text)[: self._left]
        if self._left is not None:
            self._left -= sum(1 for sentence in complete if sentence.strip())
        return complete

    @property
    def text(self) -> str:
        return "".join(self._written)

    @property
    def full(self) -> bool:
        """The `most` sentences that were wanted are there."""
        return self._left == 0

    @property
    def goes_round(self) -> bool:
        return goes_round(self._sentences.pending)

    def rest(self) -> str:
        """The last sentence, which nothing has ended."""
        return self._sentences.flush()

    def give_up(self) -> None:
        """There is no time for more."""
        if self.deltas:
            self._note_pace(self.deltas)
        else:
            waited = time.monotonic() - self._began
            self._paces.note_given_up(f"first_token {self._generator}", waited, self.reads)

    def _note_pace(self, tokens: int) -> None:
        if tokens > 1:
            seconds = (time.monotonic() - self._first) / (tokens - 1)
            self._paces.note(f"token {self._generator}", seconds)
