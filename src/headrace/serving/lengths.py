"""How long a text is, in tokens, for planning: an estimate without a tokenizer.

Tokenizers live in the workers; what plans batches only needs lengths that are right on average
and cost nothing. A token is about four bytes of UTF-8 in most scripts: four letters of English,
one and a third characters of Chinese.
"""

from __future__ import annotations

from headrace.engines.base import Pair

BYTES_PER_TOKEN = 4
SPECIAL_TOKENS = 2
"""What a tokenizer puts around a text."""


COMPRESSED_SHARE = 8
"""Of its query's tokens, what a pair with a compressed passage counts for. The query is read once
for all its passages: scoring fifty of them takes about as long as reading a text of 200 tokens."""


def estimate(item: str | Pair) -> int:
    """Tokens of one text, or of a pair's two, special ones included; at least 2."""
    if isinstance(item, Pair):
        query = estimate(item.query)
        if isinstance(item.passage, bytes):
            return SPECIAL_TOKENS + query // COMPRESSED_SHARE
        return query + estimate(item.passage)
    text = item
    size = len(text) if text.isascii() else len(text.encode("utf-8", "replace"))
    return size // BYTES_PER_TOKEN + SPECIAL_TOKENS
