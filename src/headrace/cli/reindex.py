"""`headrace collections reindex`: another index for a collection, beside the one in use."""

from __future__ import annotations

from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from headrace.cli import terminal
from headrace.cli.common import ConfigOption, JsonOption, fetch_for_question, load_config, run
from headrace.errors import BadRequest

if TYPE_CHECKING:
    from headrace.config.options import Config
    from headrace.evaluation.suite import Suite
    from headrace.ingest.reindex import Compare, Reindexed
    from headrace.ingest.stamps import Cut
    from headrace.pipeline.services import Services
    from headrace.retrieval.sides import IndexSettings

EPILOG = """\b
Examples:
  headrace collections reindex laws                        as the configuration says now
  headrace collections reindex laws --embedder bge --chunk-tokens 300
  headrace collections reindex laws --chunker statute --suite laws.yaml
  headrace collections reindex laws --back
  headrace collections reindex laws --forget

\b
Searches and ingestion go on. A run that was stopped, by Ctrl-C or worse, goes on where it was when
it is started again. With a suite, the new index is taken unless it is significantly worse; exit
status 1 says that it was not.
"""


class Chunker(StrEnum):
    """How documents are cut."""

    AUTO = "auto"
    STATUTE = "statute"
    HEADINGS = "headings"
    ROWS = "rows"
    PLAIN = "plain"


def reindex(
    name: Annotated[str, typer.Argument(metavar="NAME", help="The collection.")],
    embedder: Annotated[
        str | None,
        typer.Option("--embedder", metavar="MODEL", help="Embedder, if not the configured one."),
    ] = None,
    chunker: Annotated[
        Chunker | None, typer.Option("--chunker", help="Chunker, if not the configured one.")
    ] = None,
    chunk_tokens: Annotated[
        int | None,
        typer.Option("--chunk-tokens", min=32, max=8192, help="Token budget of one chunk."),
    ] = None,
    suite: Annotated[
        Path | None,
        typer.Option("--suite", metavar="FILE", help="Compare both on its questions first."),
    ] = None,
    anyway: Annotated[
        bool,
        typer.Option(
            "--anyway",
            help="Switch even if the suite says that it is worse, and make it anew even if it is "
            "like this already.",
        ),
    ] = False,
    back: Annotated[
        bool, typer.Option("--back", help="Switch to the index that was in use before.")
    ] = False,
    forget: Annotated[
        bool,
        typer.Option("--forget", help="Drop the earlier index, and one that is not complete."),
    ] = False,
    json: JsonOption = False,
    config: ConfigOption = None,
) -> None:
    """Make another index beside the one in use, and switch to it."""
    made = [name for name in (embedder, chunker, chunk_tokens, suite) if name is not None]
    if back + forget + bool(made) > 1:
        raise BadRequest("--back and --forget go with no other option of what to make")
    loaded = load_config(config)
    if forget:
        _forget(loaded, name, json)
        return
    if embedder is not None:
        _check_embedder(loaded, embedder)
    wanted = embedder or loaded.collection(name).embedder
    if not back:
        fetch_for_question(loaded, name, [wanted])
    cut = _configured(loaded, name)
    if chunker is not None:
        cut = cut._replace(chunker=chunker.value)
    cut = cut._replace(chunk_tokens=chunk_tokens or cut.chunk_tokens)
    questions = None if suite is None else _suite(suite, name)
    done, measured = run(_reindex(loaded, name, wanted, cut, back, questions, anyway))
    if json:
        terminal.emit_json({"reindexed": done, "compared": measured})
    else:
        _print(done, measured)
    if not done.switched and done.before != done.after:
        raise typer.Exit(1)


def _check_embedder(config: Config, name: str) -> None:
    from headrace.types import Role

    known = [key for key, model in config.models.items() if model.role is Role.EMBEDDER]
    if name not in known:
        raise BadRequest(f"--embedder: {name!r} is no embedder; known: {', '.join(known)}")


def _configured(config: Config, name: str) -> Cut:
    from headrace.ingest.stamps import Cut

    return Cut(config.collection(name).chunker, config.ingest.chunk_tokens)


def _suite(path: Path, name: str) -> Suite:
    from headrace.errors import ConfigError
    from headrace.evaluation.metrics import require
    from headrace.evaluation.suite import load_suite

    require()
    found = load_suite(path)
    if found.collection != name:
        raise ConfigError(f"{path}: is a suite for collection {found.collection!r}, not {name!r}")
    return found


async def _reindex(
    config: Config,
    name: str,
    embedder: str | None,
    cut: Cut,
    back: bool,
    suite: Suite | None,
    anyway: bool,
) -> tuple[Reindexed, list[dict[str, Any]]]:
    from headrace.app import application
    from headrace.cli.ingest import progress_to_terminal
    from headrace.ingest.reindex import Places, Wanted, go_back, reindex

    assert embedder is not None
    measured: list[dict[str, Any]] = []
    async with application(config) as services:
        places = Places(services.collections, services.models, config.ingest.batch_texts)
        with progress_to_terminal("documents") as show:
            configured = _configured(config, name)
            if back:
                return await go_back(places, name, configured, progress=show), measured
            wanted = Wanted(embedder, cut, configured)
            hook = None if suite is None else _comparing(services, suite, anyway, measured)
            done = await reindex(places, name, wanted, progress=show, compare=hook, anew=anyway)
            return done, measured


def _comparing(
    services: Services, suite: Suite, anyway: bool, measured: list[dict[str, Any]]
) -> Compare:
    """Fills `measured`."""
    from headrace.evaluation.two_indexes import compare_indexes
    from headrace.retrieval.embedded import EmbeddedIndex

    async def compare(before: EmbeddedIndex, after: EmbeddedIndex) -> bool:
        found = await compare_indexes(services, suite, before, after)
        measured.extend(one._asdict() | {"worse": one.worse} for one in found)
        return anyway or not any(one.worse for one in found)

    return compare


def _forget(config: Config, name: str, json: bool) -> None:
    from headrace.app import application
    from headrace.ingest.reindex import forget

    async def work() -> dict[str, int]:
        async with application(config) as services:
            return await forget(services.collections, name)

    dropped = run(work())
    if json:
        terminal.emit_json({"collection": name, "dropped": dropped})
    else:
        terminal.out().print(
            f"{name}: dropped {dropped['previous']} passages of the earlier index and "
            f"{dropped['next']} of one that was being made"
        )


def _print(done: Reindexed, measured: list[dict[str, Any]]) -> None:
    console = terminal.out()
    if measured:
        head = ("metric", "questions", "before", "after", "p", "")
        rows = [
            (
                one["metric"],
                one["n"],
                f"{one['before']:.3f}",
                f"{one['after']:.3f}",
                f"{one['p']:.3f}",
                "worse" if one["worse"] else "",
            )
            for one in measured
        ]
        console.print(terminal.columns(head, rows))
    if done.before == done.after and not done.switched:
        console.print(
            f"{done.collection} is {_describe(done.after)} already; nothing was done (--anyway "
            "makes it anew)"
        )
        return
    console.print(f"{done.collection}: {_describe(done.before)} -> {_describe(done.after)}")
    console.print(
        f"{done.documents} documents, {done.chunks} passages, {done.embedded} embedded, "
        f"{done.seconds:.1f} s"
    )
    if done.switched:
        console.print("switched; --back goes back, --forget drops the earlier index")
    else:
        console.print(
            "not switched, since it is worse; --anyway switches, --forget drops the new index"
        )


def _describe(settings: IndexSettings) -> str:
    return f"{settings.embedder}, {settings.chunker} {settings.chunk_tokens}"
