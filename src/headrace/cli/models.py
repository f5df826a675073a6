"""`headrace models`: what is configured, and whether its weights are here."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated, Any

import typer

from headrace.cli import terminal
from headrace.cli.common import ConfigOption, JsonOption, load_config

if TYPE_CHECKING:
    from headrace.config.options import Config

app = typer.Typer(
    no_args_is_help=True, rich_markup_mode=None, help="List models, and fetch their weights."
)


def describe(config: Config, name: str) -> dict[str, Any]:
    """What people and programs are told about a model."""
    from headrace.cli.fetch import cached, is_remote, weight

    model = config.models[name]
    path = None if is_remote(model) else cached(config, name)
    return {
        "name": name,
        "role": model.role.value,
        "engine": model.engine,
        "source": model.source,
        "default": name == getattr(config.defaults, model.role.value),
        "needs_weights": not is_remote(model),
        "path": str(path) if path else None,
        "bytes": weight(path) if path else None,
    }


@app.command("list")
def list_models(config: ConfigOption = None, json: JsonOption = False) -> None:
    """List the configured models."""
    loaded = load_config(config)
    found = [describe(loaded, name) for name in sorted(loaded.models)]
    if json:
        terminal.emit_json(found)
        return
    rows = [
        (
            f"{model['name']} (default)" if model["default"] else model["name"],
            model["role"],
            model["engine"],
            _state(model),
            model["source"],
        )
        for model in found
    ]
    head = ("name", "role", "engine", "weights", "source")
    terminal.out().print(terminal.columns(head, rows))


def _state(model: dict[str, Any]) -> str:
    if not model["needs_weights"]:
        return "none"
    return terminal.size(model["bytes"]) if model["path"] else "to fetch"


@app.command()
def pull(
    names: Annotated[
        list[str] | None, typer.Argument(metavar="[NAME]...", help="Models; all if none is named.")
    ] = None,
    config: ConfigOption = None,
) -> None:
    """Fetch weights into the cache; what is there already is left alone."""
    from headrace.cli.fetch import fetch_missing

    loaded = load_config(config)
    wanted = _known(loaded, names or sorted(loaded.models))
    fetched = fetch_missing(loaded, wanted)
    console = terminal.out()
    for path in fetched:
        console.print(f"fetched {path}")
    console.print(f"{len(wanted)} models are ready")


@app.command()
def show(
    name: Annotated[str, typer.Argument(help="The model's name.")],
    config: ConfigOption = None,
    json: JsonOption = False,
) -> None:
    """Show one model: every option, and where its weights are."""
    loaded = load_config(config)
    _known(loaded, [name])
    record = describe(loaded, name) | loaded.models[name].model_dump(mode="json")
    if json:
        terminal.emit_json(record)
        return
    console = terminal.out()
    for key, value in record.items():
        console.print(terminal.styled((f"{key}: ", "bold"), "" if value is None else str(value)))


def _known(config: Config, names: list[str]) -> list[str]:
    from headrace.errors import UnknownModel

    for name in names:
        if name not in config.models:
            raise UnknownModel(name, config.models)
    return names
