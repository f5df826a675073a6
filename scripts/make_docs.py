"""Write the generated documents, or with --check say which are out of date."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import typer.main

from headrace.cli.program import app
from headrace.config.reference import markdown

DOCS = Path(__file__).resolve().parent.parent / "docs"


def generated() -> dict[Path, str]:
    """Every generated document with its text."""
    return {DOCS / "configuration.md": markdown(), DOCS / "commands.md": commands()}


def commands() -> str:
    """Every command with its help, as the program itself prints it."""
    return (
        "\n\n".join([_COMMANDS_HEAD, *_help(typer.main.get_command(app), "headrace", None)]) + "\n"
    )


_COMMANDS_HEAD = """\
# Commands

<!-- Made by scripts/make_docs.py from the program's own help; do not edit. -->

`--json` prints one JSON value on standard output, in UTF-8; progress, notes and errors go to
standard error. Colours and progress bars appear on terminals only, and `NO_COLOR` takes the colours
away. Every command reads the [configuration](configuration.md)."""


def _help(command: Any, name: str, parent: Any) -> Iterator[str]:
    settings = {"terminal_width": 90, **command.context_settings}
    context = command.context_class(command, info_name=name, parent=parent, **settings)
    path = context.command_path
    text = "\n".join(line.rstrip() for line in command.get_help(context).strip().splitlines())
    yield f"## `{path}`\n\n```text\n{text}\n```"
    for inner in getattr(command, "commands", {}):
        yield from _help(command.commands[inner], inner, context)


def outdated() -> list[Path]:
    return [
        path
        for path, text in generated().items()
        if not path.is_file() or path.read_text(encoding="utf-8") != text
    ]


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--check", action="store_true")
    if parser.parse_args().check:
        for path in outdated():
            print(f"{path.name} is out of date; run scripts/make_docs.py")
        return 1 if outdated() else 0
    for path, text in generated().items():
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text, encoding="utf-8")
        print(f"wrote {path}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
