"""`headrace measure`: where the time of answers goes."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from headrace.cli import terminal
from headrace.cli.common import (
    CollectionOption,
    ConfigOption,
    JsonOption,
    fetch_for_question,
    load_config,
    run,
)

if TYPE_CHECKING:
    from headrace.config.options import Config
    from headrace.evaluation.measuring import Measurement
    from headrace.evaluation.report import Times
    from headrace.pipeline.plan import AnswerRequest

EPILOG = """\b
Examples:
  headrace measure questions.txt -C laws
  headrace measure --suite examples/eval/examples.yaml -n 100 --users 8
  headrace measure questions.txt --deadline-ms 1500 --json

\b
The questions are one a line. The first one is asked once before, so that no load of a model is
measured.
"""


def measure(
    questions: Annotated[
        Path | None, typer.Argument(metavar="[FILE]", help="Questions, one a line.")
    ] = None,
    suite: Annotated[
        Path | None, typer.Option(metavar="SUITE.yaml", help="The questions of a suite instead.")
    ] = None,
    collection: CollectionOption = "",
    count: Annotated[
        int | None, typer.Option("-n", min=1, help="Answers to measure; by default every question.")
    ] = None,
    users: Annotated[int, typer.Option(min=1, max=256, help="Users who ask at once.")] = 1,
    deadline_ms: Annotated[
        int | None, typer.Option(min=1, help="Give every answer so long, and count what it skips.")
    ] = None,
    json: JsonOption = False,
    config: ConfigOption = None,
) -> None:
    """Ask questions as people would, and show the time of each stage, tokens and waiting."""
    loaded = load_config(config)
    asked = _requests(questions, suite, collection)
    name = asked[0].collection
    options = loaded.collection(name)
    models = [options.embedder, options.reranker]
    if any(request.generate != "none" for request in asked):
        models.append(options.generator)
    fetch_for_question(loaded, name, models)
    found = run(_measure(loaded, asked, count or len(asked), users, deadline_ms))
    if json:
        terminal.emit_json(found)
    else:
        _print(found)


def _requests(questions: Path | None, suite: Path | None, collection: str) -> list[AnswerRequest]:
    from headrace.cli.common import DEFAULT_COLLECTION
    from headrace.errors import BadRequest
    from headrace.evaluation.suite import load_suite
    from headrace.pipeline.plan import AnswerRequest
    from headrace.types import ALL_ACCESS, USER, Filter

    if (questions is None) == (suite is None):
        raise BadRequest("give a file of questions or --suite, one of the two")
    if suite is not None:
        import msgspec

        loaded = load_suite(suite)
        if collection:
            loaded = msgspec.structs.replace(loaded, collection=collection)
        return [loaded.request(question, question.text, USER) for question in loaded.questions]
    assert questions is not None
    where = Filter(access=ALL_ACCESS)
    name = collection or DEFAULT_COLLECTION
    found = [AnswerRequest(name, line, where) for line in _lines(questions)]
    if not found:
        raise BadRequest(f"{questions} holds no question")
    return found


def _lines(path: Path) -> list[str]:
    from headrace.errors import BadRequest

    try:
        text = path.read_bytes().decode("utf-8-sig")
    except OSError as error:
        raise BadRequest(f"{path}: cannot be read: {error.strerror}") from error
    except UnicodeDecodeError as error:
        raise BadRequest(f"{path}: is not UTF-8; save the file as UTF-8") from error
    return [line.strip() for line in text.splitlines() if line.strip()]


async def _measure(
    config: Config,
    requests: list[AnswerRequest],
    count: int,
    users: int,
    deadline_ms: int | None,
) -> Measurement:
    from headrace.app import application
    from headrace.evaluation.measuring import measure

    async with application(config) as services:
        with terminal.counting("answers") as progress:
            return await measure(
                services,
                requests,
                count,
                users=users,
                deadline_ms=deadline_ms,
                progress=lambda done: progress(done, count),
            )


def _print(found: Measurement) -> None:
    console = terminal.out()
    rows = [(stage, *_times(times)) for stage, times in found.stages.items()]
    for name, tokens in (("tokens in", found.tokens_in), ("tokens out", found.tokens_out)):
        if tokens is not None:
            rows.append((name, *_times(tokens)))
    console.print(terminal.columns(("stage, ms", "answers", "p50", "p95", "p99"), rows))
    shares = [
        (name, f"{spent.waited:.2f}", f"{spent.worked:.2f}", _share(spent.waited, spent.worked))
        for name, spent in found.models.items()
    ]
    console.print()
    console.print(terminal.columns(("model, seconds", "waiting", "working", "waiting"), shares))
    failed = ", ".join(f"{times} {code}" for code, times in found.failures.items())
    skipped = ", ".join(f"{stage} {times}" for stage, times in found.skipped.items())
    console.print(
        f"\n{found.questions} answers, {found.users} at once, in {found.seconds:.1f} s: "
        f"{found.refused} refusals, {found.cached} from a cache, failed: {failed or 'none'}; "
        f"left out: {skipped or 'nothing'}"
    )


def _times(times: Times) -> tuple[str, str, str, str]:
    p99 = "-" if times.p99 is None else f"{times.p99:.1f}"
    return str(times.n), f"{times.p50:.1f}", f"{times.p95:.1f}", p99


def _share(waited: float, worked: float) -> str:
    return f"{100 * waited / (waited + worked):.0f} %" if waited + worked else "-"
