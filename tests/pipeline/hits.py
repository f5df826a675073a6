"""Hits made by hand."""

from __future__ import annotations

from typing import Any

from headrace.types import Hit, Span


def hit(text: str, number: int = 1, *path: str, title: str = "Code", **more: Any) -> Hit:
    given = {"scores": {"dense": 0.8, "lexical": 5.0}, "document_id": f"d{number}", **more}
    return Hit(
        chunk_id=number,
        source=given.pop("source", f"{title}-{number}.md"),
        title=title,
        path=path or (title,),
        span=Span(0, len(text)),
        text=text,
        score=0.0,
        **given,
    )
