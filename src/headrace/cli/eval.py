"""`headrace eval`: how good the answers are, whether a change made them better, and whether they
became worse."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from headrace.cli import terminal, tune_retrieval
from headrace.cli.common import ConfigOption, JsonOption, fetch_for_question, load_config, run

if TYPE_CHECKING:
    from headrace.config.options import Config
    from headrace.evaluation.report import Report
    from headrace.evaluation.suite import Suite

app = typer.Typer(
    no_args_is_help=True,
    rich_markup_mode=None,
    help="Measure how good the answers are.",
)

SuiteArgument = Annotated[Path, typer.Argument(metavar="SUITE.yaml", help="The suite.")]
DataOption = Annotated[
    Path | None,
    typer.Option(
        "--data",
        metavar="DIR",
        help="What $DATA/ means in a suite; by default the folder that HEADRACE_EVAL_DATA names.",
    ),
]


@app.command("run")
def run_suite(
    suite: SuiteArgument,
    out: Annotated[
        Path | None,
        typer.Option(
            "--out",
            "-o",
            metavar="DIR",
            help="Folder for the report; by default eval/NAME. A run that was stopped, by Ctrl-C "
            "or worse, goes on where it was when it is started again.",
        ),
    ] = None,
    data: DataOption = None,
    limit: Annotated[
        int | None,
        typer.Option(min=1, metavar="N", help="Ask only N questions, spread evenly."),
    ] = None,
    collection: Annotated[
        str | None,
        typer.Option("--collection", "-C", metavar="NAME", help="Instead of the suite's."),
    ] = None,
    concurrency: Annotated[int, typer.Option(min=1, max=64, help="Questions at once.")] = 4,
    fresh: Annotated[
        bool, typer.Option("--fresh", help="Forget what an earlier run in this folder answered.")
    ] = False,
    json: JsonOption = False,
    config: ConfigOption = None,
) -> None:
    """Ask the questions of a suite, and write a report with metrics, times and plots."""
    import msgspec

    from headrace.evaluation.metrics import require
    from headrace.evaluation.suite import load_suite

    require()
    loaded = load_config(config)
    asked = load_suite(suite, data)
    if collection is not None:
        asked = msgspec.structs.replace(asked, collection=collection)
    if limit is not None:
        asked = asked.some(limit)
    options = loaded.collection(asked.collection)
    models = [options.embedder, options.reranker]
    if asked.kinds != ("retrieval",) and asked.answer.get("generate") != "none":
        models.append(options.generator)
    fetch_for_question(loaded, asked.collection, models)
    folder = out or Path("eval") / asked.name
    report = run(_run(loaded, asked, folder, concurrency, fresh=fresh))
    if json:
        terminal.emit_json(msgspec.structs.replace(report, rows=()))
    else:
        _print(report, folder)


async def _run(
    config: Config, suite: Suite, folder: Path, concurrency: int, *, fresh: bool
) -> Report:
    """With progress on standard error: a bar on a terminal, else a line every 10 s."""
    import asyncio

    from headrace.app import application
    from headrace.cli.ingest import Lines
    from headrace.evaluation.output import write_all
    from headrace.evaluation.running import run_suite

    console = terminal.err()
    lines, answered = Lines(console), 0

    def progress(done: int, total: int) -> None:
        nonlocal answered
        answered = done
        show(done, total)
        if not console.is_terminal and lines.due():
            console.print(f"{done} of {total} questions answered so far")

    try:
        async with application(config) as services:
            with terminal.counting("questions") as show:
                report = await run_suite(
                    services, suite, folder, concurrency=concurrency, fresh=fresh, progress=progress
                )
    except BaseException:
        if answered:
            again = "the same command" + (" without --fresh" if fresh else "")
            console.print(
                f"stopped: {answered} of {len(suite.questions)} questions are answered and kept in "
                f"{folder}; {again} goes on"
            )
        raise
    await asyncio.to_thread(write_all, report, folder)
    return report


def _print(report: Report, folder: Path) -> None:
    rows = [(name, f"{metric.value:.3f}", str(metric.n)) for name, metric in report.metrics.items()]
    console = terminal.out()
    console.print(terminal.columns(("metric", "value", "questions"), rows))
    total = report.times.get("total") or report.times.get("search.total")
    if total is not None:
        console.print(
            f"{report.questions} questions, {report.concurrency} at once: "
            f"p50 {total.p50:.0f} ms, p95 {total.p95:.0f} ms"
        )
    for note in report.notes:
        terminal.err().print(terminal.styled(("note: ", "bold"), note))
    console.print(f"report: {folder / 'report.md'}")


@app.command()
def compare(
    a: Annotated[Path, typer.Argument(metavar="A", help="Folder of the first run.")],
    b: Annotated[Path, typer.Argument(metavar="B", help="Folder of the second run.")],
    json: JsonOption = False,
) -> None:
    """Show what differs between two runs of one suite, and whether it may be chance."""
    from headrace.evaluation.compare import LEVEL, compare
    from headrace.evaluation.report import read

    found = compare(read(a), read(b))
    if json:
        terminal.emit_json(
            {
                "shared": found.shared,
                "only": found.only,
                "same_suite": found.same_suite,
                "differences": [
                    one._asdict() | {"verdict": one.verdict} for one in found.differences
                ],
            }
        )
        return
    head = ("metric", "n", "A", "B", "B - A", "95 % interval", "p", "p (Holm)", "B is")
    rows = [
        (
            one.metric,
            one.n,
            f"{one.a:.3f}",
            f"{one.b:.3f}",
            f"{one.difference:+.3f}",
            f"{one.low:+.3f} to {one.high:+.3f}",
            f"{one.p:.4f}",
            f"{one.holm:.4f}",
            one.verdict,
        )
        for one in found.differences
    ]
    console = terminal.out()
    console.print(terminal.columns(head, rows))
    console.print(
        f"{found.shared} questions in both, {found.only[0]} only in A, {found.only[1]} only in B; "
        f"paired randomisation test at {LEVEL:.0%}, corrected for the metrics that differ"
    )
    if not found.same_suite:
        terminal.err().print(
            "the suite was another one in B: differences may come from other gold passages or "
            "settings of the answers"
        )


@app.command()
def gate(
    report: Annotated[Path, typer.Argument(metavar="REPORT", help="Folder or report.json.")],
    baseline: Annotated[
        Path | None,
        typer.Option("--baseline", "-b", metavar="FILE", help="Folder or report.json before."),
    ] = None,
    tolerance: Annotated[
        float, typer.Option(min=0, help="How much worse than the baseline a mean may be.")
    ] = 0.01,
    json: JsonOption = False,
) -> None:
    """Fail (exit status 1) if quality dropped below the baseline or the suite's thresholds."""
    from headrace.evaluation.gate import gate
    from headrace.evaluation.report import read

    before = None if baseline is None else read(baseline, rows=False)
    checks = gate(read(report, rows=False), before, tolerance)
    failed = [check for check in checks if not check.ok]
    if json:
        terminal.emit_json({"ok": not failed, "checks": [check._asdict() for check in checks]})
    else:
        rows = [
            (
                check.metric,
                check.wanted,
                "absent" if check.value is None else f"{check.value:.3f}",
                "ok" if check.ok else "FAILED",
            )
            for check in checks
        ]
        console = terminal.out()
        console.print(terminal.columns(("metric", "wanted", "is", ""), rows))
        console.print(f"{len(checks) - len(failed)} of {len(checks)} hold")
    if failed:
        raise typer.Exit(1)


app.command("tune-retrieval")(tune_retrieval.tune_retrieval)
