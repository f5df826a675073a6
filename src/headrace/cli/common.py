"""Options that several commands share, and how a command gets its configuration."""

from __future__ import annotations

import asyncio
from collections.abc import Coroutine, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, TypeVar

import typer

from headrace.errors import BadRequest

if TYPE_CHECKING:
    from headrace.config.options import Config
    from headrace.types import Filter

T = TypeVar("T")

DEFAULT_COLLECTION = "default"

ConfigOption = Annotated[
    Path | None,
    typer.Option("--config", "-c", metavar="FILE", help="Configuration file to use."),
]
CollectionOption = Annotated[
    str, typer.Option("--collection", "-C", metavar="NAME", help="Collection to use.")
]
JsonOption = Annotated[bool, typer.Option("--json", help="Print JSON for programs.")]
WhereOption = Annotated[
    list[str] | None,
    typer.Option(
        "--where", metavar="KEY=VALUE", help="Only documents with this metadata; repeatable."
    ),
]
AccessOption = Annotated[
    list[str] | None,
    typer.Option(
        "--access",
        metavar="LABEL",
        help="Only documents with this label, as a caller with it would see; repeatable. "
        "Without it, all.",
    ),
]


def load_config(path: Path | None) -> Config:
    """The configuration in force (see `headrace.config.load`)."""
    from headrace.config.load import load

    return load(path)


def run(work: Coroutine[Any, Any, T]) -> T:
    """Run to the end. Ctrl-C cancels the work, waits for its clean-up, and ends with 130."""
    return asyncio.run(work)


def pairs(texts: Sequence[str] | None, option: str) -> dict[str, tuple[str, ...]]:
    """`KEY=VALUE` arguments, values collected by key."""
    found: dict[str, tuple[str, ...]] = {}
    for text in texts or ():
        key, separator, value = text.partition("=")
        if not separator or not key.strip():
            raise BadRequest(f"{option} {text!r} is not KEY=VALUE", field=option)
        found[key.strip()] = (*found.get(key.strip(), ()), value.strip())
    return found


def make_filter(where: Sequence[str] | None, access: Sequence[str] | None) -> Filter:
    """What a search may return; the owner at the command line may read everything."""
    from headrace.types import ALL_ACCESS, Filter

    labels = frozenset(access) if access else ALL_ACCESS
    return Filter(access=labels, metadata=pairs(where, "--where"))


def fetch_for_question(config: Config, collection: str, models: Sequence[str | None]) -> None:
    """Fetch the models that a question needs, but only if there is a collection to ask."""
    from headrace.cli.fetch import fetch_missing, missing

    if missing(config, models):
        run(_must_exist(config, collection))
        fetch_missing(config, models)


async def _must_exist(config: Config, collection: str) -> None:
    from headrace.app import application
    from headrace.errors import UnknownCollection

    async with application(config) as services:
        names = services.collections.names()
    if collection not in names:
        raise UnknownCollection(collection, names)
