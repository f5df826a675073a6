"""`headrace eval tune-retrieval`: search fitted to the questions of its users."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from headrace.cli import terminal
from headrace.cli.common import ConfigOption, JsonOption, fetch_for_question, load_config, run
from headrace.errors import BadRequest

if TYPE_CHECKING:
    from headrace.config.options import Config
    from headrace.evaluation.suite import Suite
    from headrace.evaluation.tuning import Tuned


def tune_retrieval(
    suite: Annotated[
        Path | None, typer.Argument(metavar="SUITE.yaml", help="Questions with gold passages.")
    ] = None,
    collection: Annotated[
        str | None,
        typer.Option("--collection", "-C", metavar="NAME", help="Instead of the suite's."),
    ] = None,
    data: Annotated[
        Path | None,
        typer.Option("--data", metavar="DIR", help="What $DATA/ means in the suite."),
    ] = None,
    dry_run: Annotated[
        bool, typer.Option("--dry-run", help="Only show what would be gained.")
    ] = False,
    reset: Annotated[
        bool, typer.Option("--reset", help="Remove what was fitted for the collection (-C).")
    ] = False,
    json: JsonOption = False,
    config: ConfigOption = None,
) -> None:
    """Fit fusion weights, depth and a ranker to your questions, and keep what pays.

    Judged by cross-validation: the gain of a question is that of numbers fitted without it. What is
    kept stands in the collection's folder and is used from the next search on; `--reset` undoes
    it."""
    from headrace.evaluation.suite import load_suite

    loaded = load_config(config)
    if reset:
        if collection is None or suite is not None:
            raise BadRequest("--reset needs a collection (-C NAME) and no suite")
        there = run(_reset(loaded, collection))
        if json:
            terminal.emit_json({"collection": collection, "removed": there})
        else:
            terminal.out().print(
                f"removed what was fitted for {collection}"
                if there
                else f"nothing was fitted for {collection}"
            )
        return
    if suite is None:
        raise BadRequest("a suite with questions is needed (or --reset)")
    asked = load_suite(suite, data)
    if collection is not None:
        import msgspec

        asked = msgspec.structs.replace(asked, collection=collection)
    options = loaded.collection(asked.collection)
    fetch_for_question(loaded, asked.collection, [options.embedder, options.reranker])
    tuned = run(_tune(loaded, asked, write=not dry_run))
    if json:
        terminal.emit_json(_record(tuned))
    else:
        _print(tuned, asked, written=not dry_run)


async def _reset(config: Config, collection: str) -> bool:
    import asyncio

    from headrace.app import application

    async with application(config) as services:
        index = await asyncio.to_thread(services.collections.open, collection)
        return await asyncio.to_thread(index.ranker.remove)


async def _tune(config: Config, suite: Suite, *, write: bool) -> Tuned:
    """With a progress bar on standard error, if that is a terminal."""
    import asyncio

    from headrace.app import application
    from headrace.evaluation.collecting import collect
    from headrace.evaluation.tuning import tune

    options = config.collection(suite.collection)
    async with application(config) as services:
        with terminal.counting("questions") as progress:
            asked, fingerprint = await collect(services, suite, progress)
        index = await asyncio.to_thread(services.collections.open, suite.collection)
        retrieval = options.retrieval or config.retrieval
        tuned = await asyncio.to_thread(
            tune, index, asked, retrieval, fingerprint, options.reranker
        )
        if write and tuned.fitted is not None:
            await asyncio.to_thread(index.ranker.write, tuned.fitted)
    return tuned


def _record(tuned: Tuned) -> dict[str, object]:
    from headrace.evaluation.tuning import MEASURES

    rows = [
        {**row._asdict(), "means": dict(zip(MEASURES, row.means, strict=True))}
        for row in tuned.rows
    ]
    return {"rows": rows, "chosen": tuned.chosen, "kept": tuned.fitted is not None}


def _print(tuned: Tuned, suite: Suite, *, written: bool) -> None:
    from headrace.evaluation.tuning import MEASURES

    folds = [f"fold {i + 1}" for i in range(len(tuned.rows[0].folds))]
    head = ("order", *MEASURES, *folds, "gain", "95 % interval")
    rows = [
        (
            row.name,
            *(f"{value:.3f}" for value in row.means),
            *(f"{value:.3f}" for value in row.folds),
            f"{row.gain:+.4f}",
            f"{row.low:+.4f} to {row.high:+.4f}",
        )
        for row in tuned.rows
    ]
    console = terminal.out()
    console.print(terminal.columns(head, rows))
    console.print(
        "folds and gain: mean of nDCG@10 and R@100, each question judged by what was fitted "
        "without its fold"
    )
    if tuned.fitted is None:
        console.print("nothing pays beyond chance; the configuration stays as it is")
    elif not written:
        console.print(f"{tuned.chosen} pays; without --dry-run it would be kept")
    else:
        console.print(
            f"{tuned.chosen} pays and is used from now on; "
            f"`headrace eval tune-retrieval --reset -C {suite.collection}` undoes it"
        )
