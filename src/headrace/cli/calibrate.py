"""`headrace eval calibrate`: a collection's own threshold for saying that it has no answer."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated

import typer

from headrace.cli import terminal
from headrace.cli.common import ConfigOption, JsonOption, fetch_for_question, load_config, run
from headrace.cli.eval import DataOption, SuiteArgument

if TYPE_CHECKING:
    from headrace.config.options import Config
    from headrace.evaluation.suite import Suite
    from headrace.pipeline.calibration import Calibration


def calibrate(
    suite: SuiteArgument,
    collection: Annotated[
        str | None,
        typer.Option("--collection", "-C", metavar="NAME", help="Instead of the suite's."),
    ] = None,
    data: DataOption = None,
    refuse_at_most: Annotated[
        float,
        typer.Option(
            min=0.001,
            max=0.5,
            metavar="SHARE",
            help="Share of the questions with an answer that may be refused.",
        ),
    ] = 0.05,
    json: JsonOption = False,
    config: ConfigOption = None,
) -> None:
    """Fit when to say that there is no answer, from questions with and without one.

    A question whose gold passages the suite names counts twice: as it is, and with those passages
    taken out. The result is kept with the collection and used from the next question on.
    """
    import msgspec

    from headrace.evaluation.suite import load_suite

    loaded = load_config(config)
    asked = load_suite(suite, data)
    if collection is not None:
        asked = msgspec.structs.replace(asked, collection=collection)
    options = loaded.collection(asked.collection)
    fetch_for_question(loaded, asked.collection, [options.embedder, options.reranker])
    made = run(_calibrate(loaded, asked, refuse_at_most))
    if json:
        terminal.emit_json(made)
        return
    quality = made.quality
    rows = [
        ("questions with an answer", f"{quality.answerable}"),
        ("without", f"{quality.unanswerable}"),
        ("area under the curve", f"{quality.auc:.3f} (by the rule: {quality.auc_rule:.3f})"),
        ("threshold", f"{made.threshold:.3f}"),
        ("refused, with an answer", f"{quality.refused_answerable:.1%}"),
        ("refused, without", f"{quality.refused_unanswerable:.1%}"),
    ]
    console = terminal.out()
    console.print(terminal.columns(("by cross-validation", "value"), rows))
    console.print(f"collection {asked.collection} uses it from now on")


async def _calibrate(config: Config, suite: Suite, refuse_at_most: float) -> Calibration:
    from headrace.app import application
    from headrace.evaluation.calibrating import calibrate as fit

    async with application(config) as services:
        with terminal.counting("questions") as progress:
            return await fit(services, suite, may_be_refused=refuse_at_most, progress=progress)
