"""Texts to token ids that fit an encoder's window."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TypeAlias

from headrace.engines import unigram
from headrace.errors import SourceError

Ids: TypeAlias = tuple[list[int], list[int]]
"""Token ids and token types of one input."""

_CHARACTERS_PER_TOKEN = 64  # beyond what any token covers; longer texts are cut before tokenizing


class Windows:
    """The tokenizer of one model, and its window in tokens, special tokens included."""

    def __init__(self, path: Path, window: int) -> None:
        small = path.with_name(unigram.FILE_NAME)
        self._tokens = _Unigram(small) if small.is_file() else _Tokenizer(path)
        self._window = window
        self.pad = self._tokens.pad

    def encode(self, texts: Sequence[str] | Sequence[tuple[str, str]]) -> list[Ids]:
        """Each text, or (query, text) pair, with special tokens. What is too long loses its end,
        but not the closing special tokens."""
        found = self._tokens.encode([self._cut(text) for text in texts])
        return [(self._fit(ids), self._fit(types)) for ids, types in found]

    def around(self, prefix: str) -> tuple[int, int]:
        """How many tokens stand before a text with this prefix, and how many special ones after it.
        A space that ends the prefix becomes part of the text's first token."""
        (before,) = self.count([prefix.rstrip()]) if prefix else (0,)
        return self._tokens.head + before, self._tokens.tail

    def count(self, texts: Sequence[str]) -> list[int]:
        """Tokens of each whole text, special tokens left out."""
        return self._tokens.count([_valid(text) for text in texts])

    def _cut(self, text: str | tuple[str, str]) -> str | tuple[str, str]:
        most = self._window * _CHARACTERS_PER_TOKEN
        if isinstance(text, tuple):
            return _valid(text[0][:most]), _valid(text[1][:most])
        return _valid(text[:most])

    def _fit(self, values: list[int]) -> list[int]:
        if len(values) <= self._window:
            return values
        tail = self._tokens.tail
        return values[: self._window - tail] + values[len(values) - tail :]


class _Tokenizer:
    """Of a `tokenizer.json`. `head` and `tail` are how many special tokens are around a text."""

    def __init__(self, path: Path) -> None:
        from tokenizers import Tokenizer  # takes 10 MiB

        try:
            self._tokenizer = Tokenizer.from_file(str(path))
        except Exception as error:  # tokenizers raises nothing narrower
            raise SourceError(f"cannot read the tokenizer {path}: {error}") from error
        self._tokenizer.no_truncation()
        self._tokenizer.no_padding()
        self.pad = next(
            (i for i in map(self._tokenizer.token_to_id, ("<pad>", "[PAD]")) if i is not None), 0
        )
        mask = self._tokenizer.encode("a").special_tokens_mask
        self.tail = len(mask) - len("".join(map(str, mask)).rstrip("1"))
        self.head = len(mask) - len("".join(map(str, mask)).lstrip("1"))

    def encode(self, texts: Sequence[str | tuple[str, str]]) -> list[Ids]:
        return [(e.ids, e.type_ids) for e in self._tokenizer.encode_batch_fast(texts)]

    def count(self, texts: Sequence[str]) -> list[int]:
        encodings = self._tokenizer.encode_batch_fast(texts, add_special_tokens=False)
        return [len(encoding) for encoding in encodings]


class _Unigram:
    """Of a `unigram.model`, with XLM-R's special tokens: `<s> a </s>`, `<s> a </s></s> b </s>`."""

    head = tail = 1

    def __init__(self, path: Path) -> None:
        self._model = unigram.Unigram(path)
        self.pad = self._model.pad

    def encode(self, texts: Sequence[str | tuple[str, str]]) -> list[Ids]:
        bos, eos = self._model.bos, self._model.eos
        found = []
        for parts in ((text,) if isinstance(text, str) else text for text in texts):
            first, *others = self._model.encode(parts)
            ids = [bos, *first, eos]
            for other in others:
                ids += [eos, *other, eos]
            found.append((ids, [0] * len(ids)))
        return found

    def count(self, texts: Sequence[str]) -> list[int]:
        return [len(ids) for ids in self._model.encode(texts)]


def _valid(text: str) -> str:
    """Without lone surrogates, which JSON can carry and UTF-8 cannot."""
    return text if text.isascii() else text.encode("utf-8", "replace").decode()
