"""Cutting parsed text into chunks: every character is in a chunk or in a listed exclusion."""

from __future__ import annotations

from collections.abc import Callable, Mapping

from headrace.errors import BadRequest
from headrace.ingest.chunkers.plain import headings, plain, rows
from headrace.ingest.chunkers.sections import unaccounted
from headrace.ingest.chunkers.statute import is_statute, statute
from headrace.ingest.chunkers.tokens import estimate_tokens
from headrace.types import Chunking, Parsed

__all__ = ["CHUNKERS", "chunk", "estimate_tokens", "unaccounted"]

CHUNKERS: Mapping[str, Callable[[Parsed, int], Chunking]] = {
    "statute": statute,
    "headings": headings,
    "rows": rows,
    "plain": plain,
}


def chunk(parsed: Parsed, chunker: str, budget: int) -> tuple[str, Chunking]:
    """Cut `parsed` with the named chunker (`auto` picks one) into chunks of at most `budget`
    estimated tokens, title path included. Returns the name of the chunker used, and the chunks.

    `auto` takes `rows` if the reader found rows, `statute` if most of the text stands in numbered
    articles, `headings` if there are any, else `plain`.
    """
    name = _pick(parsed) if chunker == "auto" else chunker
    if name not in CHUNKERS:
        known = ", ".join(["auto", *CHUNKERS])
        raise BadRequest(f"there is no chunker {name!r}; known: {known}", field="chunker")
    return name, CHUNKERS[name](parsed, budget)


def _pick(parsed: Parsed) -> str:
    if parsed.rows:
        return "rows"
    if is_statute(parsed):
        return "statute"
    return "headings" if parsed.headings else "plain"
