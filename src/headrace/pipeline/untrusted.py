"""Text that nobody vouches for: documents and questions are data, never instructions.

What keeps an instruction in a document harmless is not that a model ignores it, which none does
surely, but what it could reach: every citation is a span of a hit that the caller may read, a
sentence must be proved by such a span, and nothing that the generator says is acted upon. Two gaps
are closed here:

1. Tokens by which chat templates mark roles (`<|im_start|>`, `[INST]`, `</s>`) are parsed as such
   wherever they stand in a prompt. In a passage or question they are broken apart, and so is a
   bracketed number at the beginning of a line, which would begin another passage.
2. A sentence that repeats the instruction to the generator is withheld, unless the sources say it.
"""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Sequence
from functools import lru_cache

ROLE = re.compile(
    r"<(?=[|｜][^<>\n]{1,40}[|｜]>)"
    r"|<(?=/?(?:s|bos|eos|pad|unk|start_of_turn|end_of_turn|system|user|assistant|human|think|tool_call|"
    r"im_start|im_end|endoftext)>)"
    r"|<(?=</?SYS>>)|\[(?=/?(?:INST|SYSTEM_PROMPT|AVAILABLE_TOOLS|TOOL_CALLS|TOOL_RESULTS)\])",
    re.IGNORECASE,
)
PASSAGE = re.compile(r"^([ \t]*)\[(?=\d{1,3}\])", re.M)

RUN = 24
"""Letters and digits in a row that a sentence may share with the instruction, Chinese characters
counting as three."""

_LETTERS = re.compile(r"\w+")


def defused(text: str) -> str:
    """The text without tokens that a chat template would take for its own: `< |im_start|>`."""
    return ROLE.sub(lambda match: f"{match.group()} ", text)


def as_passage(text: str) -> str:
    """The same, and no line of it begins like a numbered passage: `[ 2] ...`."""
    return PASSAGE.sub(r"\1[ ", defused(text))


class Instructions:
    """What the generator was told, and must not tell."""

    def __init__(self, text: str, sources: Sequence[str]) -> None:
        known = "\n".join(map(_squeezed, sources))
        told = _squeezed(text)
        pieces = {told[i : i + RUN] for i in range(max(1, len(told) - RUN + 1))} - {""}
        self._pieces = frozenset(piece for piece in pieces if piece not in known)

    def told_by(self, sentence: str) -> bool:
        """Whether the sentence shares a run of `RUN` letters with the instruction that no source
        has. Linear in its length."""
        said = _squeezed(sentence)
        sizes = {len(piece) for piece in self._pieces}
        return any(
            said[i : i + size] in self._pieces
            for size in sizes
            for i in range(len(said) - size + 1)
        )


@lru_cache(maxsize=64)
def _squeezed(text: str) -> str:
    """Letters and digits alone, lower case; a Han character three times, as it says as much."""
    plain = unicodedata.normalize("NFKC", text.encode("utf-8", "replace").decode()).casefold()
    letters = "".join(_LETTERS.findall(plain))
    if letters.isascii():
        return letters
    return re.sub(r"[\u3400-\u9fff]", lambda match: match.group() * 3, letters)
