"""The commands, and what becomes of errors.

Exit status: 0 done, 1 failed, 2 wrong usage or configuration, 3 the documents hold no answer
(`ask`), 130 stopped with Ctrl-C.
"""

from __future__ import annotations

import errno
import os
import sys
from typing import Annotated

import typer

import headrace
from headrace.cli import (
    ask,
    calibrate,
    collections,
    config,
    eval,
    ingest,
    measure,
    models,
    search,
    terminal,
    tune,
    up,
)
from headrace.errors import (
    BadRequest,
    Busy,
    ConfigError,
    HeadraceError,
    StorageError,
    UnknownCollection,
    UnknownModel,
)

USAGE_ERRORS = (BadRequest, ConfigError, UnknownModel)

EPILOG = """\b
Examples:
  headrace ingest handbook/ laws.pdf        read documents into the collection `default`
  headrace ask "How long is the notice period?"
  headrace search "notice period" -k 3      hits with their scores per stage
  headrace up                               an OpenAI-compatible server on port 8017
  headrace models list                      what runs, and where its weights come from

\b
Exit status: 0 done, 1 failed, 2 wrong usage or configuration,
             3 the documents hold no answer, 130 stopped with Ctrl-C.
"""

app = typer.Typer(
    name="headrace",
    no_args_is_help=True,
    add_completion=False,
    rich_markup_mode=None,
    pretty_exceptions_enable=False,
    epilog=EPILOG,
    context_settings={"help_option_names": ["-h", "--help"]},
)

for _name, _command in (
    ("up", up.up),
    ("ingest", ingest.ingest),
    ("ask", ask.ask),
    ("search", search.search),
    ("measure", measure.measure),
    ("tune", tune.tune),
):
    app.command(_name, epilog=_command.__globals__["EPILOG"])(_command)
app.add_typer(models.app, name="models")
app.add_typer(collections.app, name="collections")
app.add_typer(config.app, name="config")
eval.app.command("calibrate")(calibrate.calibrate)
app.add_typer(eval.app, name="eval")


def _version(wanted: bool) -> None:
    if wanted:
        print(f"headrace {headrace.__version__}")
        raise typer.Exit


@app.callback()
def _program(
    version: Annotated[
        bool, typer.Option("--version", callback=_version, is_eager=True, help="Say the version.")
    ] = False,
) -> None:
    """Answers from your documents, with quotations that stand in them exactly as quoted."""


def run() -> None:
    """Run the program and end the process."""
    terminal.prepare_streams()
    try:
        app(prog_name="headrace")
    except HeadraceError as error:
        _report(error)
        sys.exit(2 if isinstance(error, USAGE_ERRORS) else 1)
    except OSError as error:
        if error.filename is not None or error.errno not in _OUTPUT_ERRORS:
            raise
        os.dup2(os.open(os.devnull, os.O_WRONLY), 1)  # what is left cannot be written either
        _report(StorageError(f"the output cannot be written: {error.strerror}"))
        sys.exit(1)


_OUTPUT_ERRORS = (errno.ENOSPC, errno.EFBIG, errno.EIO, errno.EDQUOT)
"""What writing to standard output raises when its file has no room."""


def _report(error: HeadraceError) -> None:
    console = terminal.err()
    for line in error.message.splitlines():
        console.print(terminal.styled(("error: ", "bold red"), line))
    for kind, hint in _HINTS.items():
        if isinstance(error, kind):
            console.print(terminal.styled(("next: ", "bold"), hint))


_HINTS: dict[type[HeadraceError], str] = {
    UnknownCollection: "headrace ingest PATH... --collection NAME makes it",
    UnknownModel: "headrace models list shows what is configured",
    Busy: "wait for the other process to end, or stop it",
}
