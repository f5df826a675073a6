"""`headrace config`: write, check and show the configuration."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Annotated

import typer

from headrace.cli import terminal
from headrace.cli.common import ConfigOption, JsonOption, load_config

app = typer.Typer(
    no_args_is_help=True, rich_markup_mode=None, help="Write, check and show the configuration."
)


@app.command()
def init(
    path: Annotated[
        Path, typer.Argument(metavar="[FILE]", help="Where to write; `-` prints it.")
    ] = Path("headrace.yaml"),
    force: Annotated[bool, typer.Option("--force", help="Overwrite the file.")] = False,
) -> None:
    """Write a file with every option, explained, at its default."""
    from headrace.config.reference import commented_file

    if _write(path, commented_file(), force=force):
        terminal.out().print(f"wrote {path}; edit it, then: headrace config check")


def _write(path: Path, text: str, *, force: bool) -> bool:
    """False if it was printed, since `path` is `-`."""
    from headrace.errors import BadRequest, StorageError

    if str(path) == "-":
        sys.stdout.write(text)
        return False
    try:
        with path.open("w" if force else "x", encoding="utf-8") as file:
            file.write(text)
    except FileExistsError as error:
        raise BadRequest(f"{path} exists; --force overwrites it") from error
    except OSError as error:
        raise StorageError(f"{path} cannot be written: {error.strerror}") from error
    return True


@app.command("import")
def import_file(
    source: Annotated[
        Path, typer.Argument(metavar="FILE", help="A liveconfigs.json of Agile Rag Server.")
    ],
    path: Annotated[
        Path, typer.Option("--output", "-o", metavar="FILE", help="Where to write; `-` prints it.")
    ] = Path("headrace.yaml"),
    force: Annotated[bool, typer.Option("--force", help="Overwrite the file.")] = False,
) -> None:
    """Translate another server's configuration, and say what has no equivalent here."""
    from headrace.config.importing import translate
    from headrace.errors import BadRequest

    try:
        text = source.read_text(encoding="utf-8-sig")
    except (OSError, UnicodeDecodeError) as error:
        raise BadRequest(f"{source} cannot be read: {error}") from error
    found = translate(text, str(source))
    for note in found.notes:
        terminal.err().print(f"note: {note}")
    if _write(path, found.text, force=force):
        terminal.out().print(f"wrote {path} ({len(found.notes)} notes, also at its top)")


@app.command()
def check(
    config: ConfigOption = None,
    path: Annotated[
        Path | None, typer.Argument(metavar="[FILE]", help="The file, as with --config.")
    ] = None,
) -> None:
    """Say whether the file is right, and if not, which line is wrong and what was expected."""
    from headrace.config.load import config_version, find_file

    file = find_file(path or config)
    version = config_version(load_config(file))
    where = str(file) if file else "no file; the defaults"
    terminal.out().print(f"ok: {where} (version {version})")


@app.command()
def show(config: ConfigOption = None, json: JsonOption = False) -> None:
    """Show the values in force and where they come from."""
    from headrace.config.load import config_version, find_file

    file = find_file(config)
    loaded = load_config(file)
    values = loaded.model_dump(mode="json")
    if json:
        terminal.emit_json(values)
        return
    from ruamel.yaml import YAML

    terminal.out().print(f"# from: {file or 'defaults'}; version: {config_version(loaded)}")
    yaml = YAML(typ="safe", pure=True)
    yaml.default_flow_style = False
    yaml.allow_unicode = True
    yaml.sort_base_mapping_type_on_output = False  # type: ignore[assignment]
    yaml.dump(values, sys.stdout)


@app.command()
def schema() -> None:
    """Print the JSON schema of the file, for editors."""
    from headrace.config.reference import json_schema

    terminal.emit_json(json_schema())
