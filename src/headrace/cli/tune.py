"""`headrace tune`: a configuration that answers faster, and as well."""

from __future__ import annotations

import re
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from headrace.cli import terminal
from headrace.cli.common import CollectionOption, ConfigOption, fetch_for_question, run

if TYPE_CHECKING:
    from headrace.config.options import Config
    from headrace.evaluation.journal import Identity
    from headrace.evaluation.suite import Suite
    from headrace.evaluation.tuner import Tuned
    from headrace.pipeline.services import Services

EPILOG = """\b
Examples:
  headrace tune --p95 1000ms --suite examples/eval/written.yaml
  headrace tune --p95 2s --suite mine.yaml --models smollm2,bigger --minutes 30 --write

\b
Exit status: 0 the target is reached, 4 it is not (what was found is written all the same).
"""
NOT_REACHED = 4


def tune(
    p95: Annotated[
        str, typer.Option("--p95", metavar="TIME", help="Target, such as 1000ms or 1.5s.")
    ],
    suite: Annotated[
        Path, typer.Option(metavar="SUITE.yaml", help="Questions and what good answers hold.")
    ],
    collection: CollectionOption = "",
    minutes: Annotated[float, typer.Option(min=0.1, help="Time for all of it.")] = 15.0,
    models: Annotated[
        str,
        typer.Option(metavar="NAME,...", help="Configured models to try; by default all of them."),
    ] = "",
    out: Annotated[
        Path, typer.Option("--out", "-o", metavar="DIR", help="Folder for what is found.")
    ] = Path("tuned"),
    fresh: Annotated[
        bool, typer.Option("--fresh", help="Forget what an earlier run in this folder tried.")
    ] = False,
    write: Annotated[
        bool, typer.Option("--write", help="Put what is found into the configuration file too.")
    ] = False,
    config: ConfigOption = None,
) -> None:
    """Try what makes answers faster, and keep what leaves them as good as they are.

    The configuration in use is not changed: the one that is found, and the evidence for it, are
    written to a folder after every step; a run that was stopped, by Ctrl-C or worse, goes on after
    the last step when it is started again."""
    import msgspec

    from headrace.config.load import file_text, find_file
    from headrace.errors import BadRequest
    from headrace.evaluation.metrics import require
    from headrace.evaluation.suite import load_suite

    require()
    target = milliseconds(p95)
    file = find_file(config)
    if write and file is None:
        raise BadRequest("--write: there is no configuration file; `headrace config init` makes it")
    text = file_text(file) if file is not None else ""
    asked = load_suite(suite)
    if collection:
        asked = msgspec.structs.replace(asked, collection=collection)
    start = Start(text, file)
    loaded = start.apply({})
    names = _names(models, loaded)
    fetch_for_question(loaded, asked.collection, _needed(loaded, asked, names))
    tuned = run(_tune(loaded, start, asked, target, minutes, names, out, fresh=fresh))
    _print(tuned, out)
    if write and tuned.values and file is not None:
        _write(tuned, start, file)
    if not tuned.reached:
        raise typer.Exit(NOT_REACHED)


def _names(given: str, config: Config) -> tuple[str, ...]:
    """The models to try. Raises `BadRequest`."""
    from headrace.errors import BadRequest

    names = [name.strip() for name in given.split(",") if name.strip()]
    if unknown := [name for name in names if name not in config.models]:
        raise BadRequest(
            f"--models: there is no model {unknown[0]!r} in the configuration; known: "
            f"{', '.join(config.models)}"
        )
    return tuple(names) or tuple(config.models)


def _needed(config: Config, suite: Suite, names: tuple[str, ...]) -> list[str | None]:
    """The models in use, and those that may take their place."""
    from headrace.evaluation.levers import others, scene

    at = scene(config, suite.collection, names, suite.answer)
    in_use = [at.options.embedder, *config.rerankers(suite.collection)]
    generator = [at.options.generator] if at.writes else []
    return [*in_use, *generator, *(name for _, name in others(at))]


class Start:
    """The configuration file that a run begins with."""

    def __init__(self, text: str, file: Path | None) -> None:
        self.text = text
        self._name = str(file) if file is not None else "the configuration"
        self._base = file.absolute().parent if file is not None else Path.cwd()

    def elsewhere(self) -> str:
        """The text for a file in another folder."""
        from headrace.config.edit import moved

        return moved(self.text, self._base)

    def apply(self, values: dict[tuple[str, ...], object]) -> Config:
        """With these values, as it would be loaded. Raises `ConfigError`."""
        import os

        from headrace.config.edit import with_values
        from headrace.config.load import adjusted, read_text

        text = with_values(self.text, values) if values else self.text
        return adjusted(read_text(text, self._name, self._base), os.environ)


def milliseconds(text: str) -> float:
    """Of `1000ms`, `1.5s` or `800`. Raises `BadRequest`."""
    from headrace.errors import BadRequest

    found = re.fullmatch(r"\s*(\d+(?:\.\d+)?)\s*(ms|s)?\s*", text)
    if found is None or not float(found[1]):
        raise BadRequest(f"--p95 {text!r} is not a time such as 1000ms or 1.5s", field="p95")
    return float(found[1]) * (1000 if found[2] == "s" else 1)


async def _tune(
    config: Config,
    start: Start,
    suite: Suite,
    target: float,
    minutes: float,
    models: tuple[str, ...],
    out: Path,
    *,
    fresh: bool,
) -> Tuned:
    import asyncio

    from headrace.app import application
    from headrace.evaluation.journal import alone
    from headrace.evaluation.trial import Laboratory
    from headrace.evaluation.tuned_files import earlier, write_tuned
    from headrace.evaluation.tuner import Tuner
    from headrace.serving.hosting import model_host
    from headrace.serving.pool import Pool

    console = terminal.err()
    told, text = False, start.elsewhere()

    def tell(tuned: Tuned) -> None:
        nonlocal told
        write_tuned(tuned, text, out)
        told = True
        console.print(_progress(tuned))

    async with model_host(config) as host, application(config, host) as services:
        assert isinstance(host.models, Pool)
        identity = await _identity(services, suite)
        with alone(out):
            before = None if fresh else await asyncio.to_thread(earlier, out, identity)
            if before is not None:
                console.print(f"{len(before.evidence)} trials in {out} are not made again")
            tuner = Tuner(
                Laboratory(services, host.models.configure, suite),
                start.apply,
                target_ms=target,
                seconds=60 * minutes,
                models=models,
                identity=identity,
                earlier=before,
                tell=tell,
            )
            try:
                tuned = await tuner.run()
            except asyncio.CancelledError:
                if told:
                    again = "the same command" + (" without --fresh" if fresh else "")
                    console.print(f"stopped; what was found is in {out}; {again} goes on")
                raise
            await asyncio.to_thread(write_tuned, tuned, text, out)
            return tuned


async def _identity(services: Services, suite: Suite) -> Identity:
    """Of what is measured; times are those of one machine."""
    import platform

    from msgspec.structs import replace

    from headrace.engines.machine import cores
    from headrace.evaluation.running import identity_of

    machine = f"{platform.node()} {platform.machine()}, {cores()} cores"
    return replace(await identity_of(services, suite), machine=machine)


def _progress(tuned: Tuned) -> str:
    head = f"{tuned.seconds:5.0f} s  p95 {tuned.after.total.p95:.0f} ms"
    if not tuned.evidence:
        return f"{head}  as configured, {tuned.questions} questions"
    last = tuned.evidence[-1]
    ratio = "" if last.ratio is None else f", {last.ratio:.2f} of the time"
    return f"{head}  {last.lever}: {last.change}{ratio}: {last.verdict}"


def _print(tuned: Tuned, out: Path) -> None:
    from headrace.evaluation.tuned_files import CONFIG, EVIDENCE

    before, after = tuned.before.total, tuned.after.total
    console = terminal.out()
    console.print(
        f"p95 {before.p95:.0f} ms → {after.p95:.0f} ms ({after.p95 / before.p95:.2f}), p50 "
        f"{before.p50:.0f} ms → {after.p50:.0f} ms; target {tuned.target_ms:.0f} ms "
        f"{'reached' if tuned.reached else 'not reached'}: {tuned.ended}"
    )
    for path, value in tuned.values:
        console.print(f"  {'.'.join(path)}: {value}")
    console.print(f"configuration: {out / CONFIG}\nevidence: {out / EVIDENCE}")


def _write(tuned: Tuned, start: Start, file: Path) -> None:
    """Raises `BadRequest` if somebody has changed the file meanwhile."""
    from headrace.config.edit import with_values
    from headrace.config.load import file_text
    from headrace.config.origin import put, stage
    from headrace.errors import BadRequest

    if file_text(file) != start.text:
        raise BadRequest(f"--write: {file} was changed meanwhile; it was left as it is")
    put(stage(file, with_values(start.text, dict(tuned.values)).encode()), file)
    terminal.out().print(f"written: {file}")
