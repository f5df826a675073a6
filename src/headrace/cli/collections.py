"""`headrace collections`: what is there, and its care."""

from __future__ import annotations

import sys
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, TypeVar

import typer

from headrace.cli import reindex, terminal
from headrace.cli.common import ConfigOption, JsonOption, load_config, run
from headrace.errors import BadRequest, StorageError

if TYPE_CHECKING:
    from headrace.config.options import Config
    from headrace.ingest.compressing import Compressed
    from headrace.pipeline.services import Services

app = typer.Typer(
    no_args_is_help=True,
    rich_markup_mode=None,
    help="List, show, delete, rebuild, reindex and verify collections, and remove documents.",
)

T = TypeVar("T")
NameArgument = Annotated[str, typer.Argument(metavar="NAME", help="The collection.")]


def _with_services(config: Path | None, work: Callable[[Services], T]) -> T:
    """What `work` makes of the running parts, in a thread, since it blocks."""

    async def opened() -> T:
        import asyncio

        from headrace.app import application

        async with application(load_config(config)) as services:
            return await asyncio.to_thread(work, services)

    return run(opened())


def _record(value: Any) -> dict[str, Any]:
    import msgspec

    record: dict[str, Any] = msgspec.to_builtins(value)
    return record


@app.command("list")
def list_collections(config: ConfigOption = None, json: JsonOption = False) -> None:
    """List the collections."""

    def read(services: Services) -> list[dict[str, Any]]:
        return [_record(info) for info in services.collections.overview()]

    found = _with_services(config, read)
    if json:
        terminal.emit_json(found)
    elif not found:
        terminal.out().print("no collections yet; headrace ingest PATH... makes one")
    else:
        rows = [[record[key] for key in _COLUMNS] for record in found]
        terminal.out().print(terminal.columns(_COLUMNS, rows))
        for problem in filter(None, (record["problem"] for record in found)):
            terminal.err().print(terminal.styled(("problem: ", "yellow"), problem))


_COLUMNS = ("name", "documents", "chunks", "embedder", "generation")


@app.command()
def show(name: NameArgument, config: ConfigOption = None, json: JsonOption = False) -> None:
    """Show one collection and its documents."""
    from headrace.ingest.reindex import kept

    def read(services: Services) -> tuple[Any, Any]:
        index = services.collections.open(name)
        beside = {side: _record(found) for side, found in kept(index).items()}
        return _record(index.info()) | {"beside": beside}, [d._asdict() for d in index.documents()]

    info, documents = _with_services(config, read)
    if json:
        terminal.emit_json(info | {"document_list": documents})
        return
    console = terminal.out()
    for key, value in info.items():
        if key != "problem" and (key != "beside" or value):
            console.print(terminal.styled((f"{key}: ", "bold"), str(value)))
    if documents:
        head = ("source", "title", "chunker", "chunks", "characters", "labels")
        rows = [
            [", ".join(d[key]) if key == "labels" else d[key] for key in head] for d in documents
        ]
        console.print()
        console.print(terminal.columns(head, rows))


@app.command()
def delete(
    name: NameArgument,
    yes: Annotated[bool, typer.Option("--yes", "-y", help="Do not ask.")] = False,
    config: ConfigOption = None,
) -> None:
    """Delete a collection for ever (not the files that it was made from)."""

    def count(services: Services) -> str:
        try:
            return str(len(services.collections.open(name).documents()))
        except StorageError:  # damaged, which is a reason to delete it
            return "an unknown number of"

    documents = _with_services(config, count)
    if not yes:
        if not sys.stdin.isatty():
            raise BadRequest(f"deleting {name} needs --yes where nobody can be asked")
        question = f"delete collection {name} with {documents} documents for ever?"
        if not typer.confirm(question, err=True):
            raise typer.Exit(1)
    _with_services(config, lambda services: services.collections.delete(name))
    terminal.out().print(f"deleted {name} ({documents} documents)")


@app.command()
def remove(
    name: NameArgument,
    documents: Annotated[
        list[str], typer.Argument(metavar="DOCUMENT...", help="Ids, or sources by their ends.")
    ],
    json: JsonOption = False,
    config: ConfigOption = None,
) -> None:
    """Remove documents for ever (not the files that they were made from), with a receipt."""
    from headrace.ingest.removal import named
    from headrace.ingest.removal import remove as take_out

    def work(services: Services) -> dict[str, Any]:
        held = services.collections.open(name).documents()
        ids = [named(held, text).id for text in documents]
        return _record(take_out(services.collections, name, ids))

    receipt = _with_services(config, work)
    if json:
        terminal.emit_json(receipt)
        return
    console = terminal.out()
    for gone in receipt["documents"]:
        beside = "".join(f", {count} of the {side} index" for side, count in gone["sides"].items())
        console.print(f"removed {gone['source']} ({gone['id']}): {gone['chunks']} passages{beside}")
    console.print(
        f"{receipt['vectors']} vectors dropped; generation {receipt['generation_before']} -> "
        f"{receipt['generation']}"
    )


@app.command()
def rebuild(
    name: NameArgument,
    compress: Annotated[
        bool,
        typer.Option(
            "--compress",
            help="Only compress the passages that are not yet, for the collection's reranker with "
            "`scoring: late_interaction`. A run that was stopped goes on where it was.",
        ),
    ] = False,
    json: JsonOption = False,
    config: ConfigOption = None,
) -> None:
    """Make the search indexes anew from the stored passages and vectors."""
    if compress:
        _compress(name, load_config(config), json)
        return
    _with_services(config, lambda services: services.collections.rebuild(name))
    if json:
        terminal.emit_json({"collection": name})
    else:
        terminal.out().print(f"rebuilt {name}")


def _compress(name: str, config: Config, json: bool) -> None:
    from headrace.cli.common import fetch_for_question

    fetch_for_question(config, name, config.rerankers(name))
    done = run(_compressed(config, name))
    if json:
        terminal.emit_json(done)
        return
    each = done.size / max(done.passages, 1)
    terminal.out().print(
        f"compressed {name} for {done.reranker}: {done.passages} passages, {done.added} of them "
        f"new, {done.size / 2**20:.1f} MiB ({each:.0f} bytes each), {done.seconds:.1f} s"
    )


async def _compressed(config: Config, name: str) -> Compressed:
    from headrace.app import application
    from headrace.ingest.compressing import compress

    async with application(config) as services:
        with terminal.counting("passages") as progress:
            return await compress(
                services.collections,
                services.models,
                name,
                config.rerankers(name),
                progress=lambda added: progress(added, None),
            )


app.command("reindex", epilog=reindex.EPILOG)(reindex.reindex)


@app.command()
def verify(name: NameArgument, config: ConfigOption = None, json: JsonOption = False) -> None:
    """Compare the stored documents with the search indexes; exit status 1 if they differ."""
    report = _with_services(config, lambda services: services.collections.verify(name))
    if json:
        terminal.emit_json(_record(report) | {"ok": report.ok})
    else:
        console = terminal.out()
        for difference in report.differences:
            console.print(terminal.styled(("differs: ", "bold red"), difference))
        state = "ok" if report.ok else f"headrace collections rebuild {name} mends it"
        console.print(
            f"{name}: {report.documents} documents, {report.chunks} passages, "
            f"generation {report.generation}: {state}"
        )
    if not report.ok:
        raise typer.Exit(1)
