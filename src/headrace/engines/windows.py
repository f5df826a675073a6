"""Texts to token ids that fit an encoder's window."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TypeAlias

from tokenizers import Tokenizer

from headrace.errors import SourceError

Ids: TypeAlias = tuple[list[int], list[int]]
"""Token ids and token types of one input."""

_CHARACTERS_PER_TOKEN = 64  # beyond what any token covers; longer texts are cut before tokenizing


class Windows:
    """The tokenizer of one model, and its window in tokens, special tokens included."""

    def __init__(self, path: Path, window: int) -> None:
        try:
            self._tokenizer = Tokenizer.from_file(str(path))
        except Exception as error:  # tokenizers raises nothing narrower
            raise SourceError(f"cannot read the tokenizer {path}: {error}") from error
        self._tokenizer.no_truncation()
        self._tokenizer.no_padding()
        self._window = window
        self.pad = next(
            (i for i in map(self._tokenizer.token_to_id, ("<pad>", "[PAD]")) if i is not None), 0
        )
        mask = self._tokenizer.encode("a").special_tokens_mask
        self._tail = len(mask) - len("".join(map(str, mask)).rstrip("1"))

    def encode(self, texts: Sequence[str] | Sequence[tuple[str, str]]) -> list[Ids]:
        """Each text, or (query, text) pair, with special tokens. What is too long loses its end,
        but not the closing special tokens."""
        encodings = self._tokenizer.encode_batch_fast([self._cut(text) for text in texts])
        return [(self._fit(e.ids), self._fit(e.type_ids)) for e in encodings]

    def count(self, texts: Sequence[str]) -> list[int]:
        """Tokens of each whole text, special tokens left out."""
        whole = [_valid(text) for text in texts]
        encodings = self._tokenizer.encode_batch_fast(whole, add_special_tokens=False)
        return [len(encoding) for encoding in encodings]

    def _cut(self, text: str | tuple[str, str]) -> str | tuple[str, str]:
        most = self._window * _CHARACTERS_PER_TOKEN
        if isinstance(text, tuple):
            return _valid(text[0][:most]), _valid(text[1][:most])
        return _valid(text[:most])

    def _fit(self, values: list[int]) -> list[int]:
        if len(values) <= self._window:
            return values
        return values[: self._window - self._tail] + values[len(values) - self._tail :]


def _valid(text: str) -> str:
    """Without lone surrogates, which JSON can carry and UTF-8 cannot."""
    return text if text.isascii() else text.encode("utf-8", "replace").decode()
