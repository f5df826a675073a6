"""`headrace search`: hits with their scores per stage."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from headrace.cli import terminal
from headrace.cli.common import (
    DEFAULT_COLLECTION,
    AccessOption,
    CollectionOption,
    ConfigOption,
    JsonOption,
    WhereOption,
    fetch_for_question,
    load_config,
    make_filter,
    run,
)
from headrace.errors import BadRequest

if TYPE_CHECKING:
    from rich.text import Text

    from headrace.config.options import Config
    from headrace.types import Filter, Hit, SearchResult

EPILOG = """\b
Examples:
  headrace search "parking permit" -k 3
  headrace search 第十九条 --collection laws --json
"""
SNIPPET = 200


def search(
    query: Annotated[str, typer.Argument(help="What to look for.")],
    collection: CollectionOption = DEFAULT_COLLECTION,
    k: Annotated[int, typer.Option("-k", min=1, max=1000, help="Hits at most.")] = 10,
    where: WhereOption = None,
    access: AccessOption = None,
    json: JsonOption = False,
    config: ConfigOption = None,
) -> None:
    """Show the passages that fit a query, with their scores per stage."""
    query = terminal.given(query)
    if not query.strip():
        raise BadRequest("the query is empty", field="query")
    loaded = load_config(config)
    options = loaded.collection(collection)
    fetch_for_question(loaded, collection, [options.embedder, *loaded.rerankers(collection)])
    result = run(_search(loaded, collection, query, k, make_filter(where, access)))
    if json:
        terminal.emit_json({"query": query, "collection": collection, "result": result})
        return
    console = terminal.out()
    for rank, hit in enumerate(result.hits, 1):
        console.print(hit_text(rank, hit))
    if not result.hits:
        console.print("no hits")


async def _search(
    config: Config, collection: str, query: str, k: int, where: Filter
) -> SearchResult:
    import asyncio

    from headrace.app import application
    from headrace.retrieval.search import search as find

    async with application(config) as services:
        index = await asyncio.to_thread(services.collections.open, collection)
        options = config.collection(collection)
        assert options.embedder is not None
        assert options.retrieval is not None
        return await find(
            index,
            services.models,
            options.embedder,
            query,
            options=options.retrieval,
            where=where,
            k=k,
            reranker=options.reranker,
        )


def hit_text(rank: int, hit: Hit) -> Text:
    """One hit: where it stands, its score per stage, how it begins."""
    scores = " · ".join(f"{stage} {score:.3f}" for stage, score in hit.scores.items())
    return terminal.styled(
        (f"{rank:>2}. ", "bold"),
        (place(hit.source, hit.path, hit.page), "cyan"),
        f"\n    {scores}\n    ",
        (terminal.shorten(hit.text, SNIPPET), "dim"),
    )


def place(source: str, path: tuple[str, ...], page: int | None) -> str:
    """Where a passage stands: source, title path, page."""
    parts = [_near(source), " › ".join(path), f"page {page}" if page is not None else ""]
    return " · ".join(part for part in parts if part)


def _near(source: str) -> str:
    """A file below the current folder by its path from there."""
    try:
        return Path(source).relative_to(Path.cwd()).as_posix()
    except ValueError:
        return source
