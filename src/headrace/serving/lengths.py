"""How long a text is, in tokens, for planning: an estimate without a tokenizer.

Tokenizers live in the workers; what plans batches only needs lengths that are right on average
and cost nothing. A token is about four bytes of UTF-8 in most scripts: four letters of English,
one and a third characters of Chinese.
"""

from __future__ import annotations

BYTES_PER_TOKEN = 4
SPECIAL_TOKENS = 2
"""What a tokenizer puts around a text."""


def estimate(text: str) -> int:
    """Tokens of one text, special ones included; at least 2."""
    size = len(text) if text.isascii() else len(text.encode("utf-8", "replace"))
    return size // BYTES_PER_TOKEN + SPECIAL_TOKENS
