"""`headrace up`: the server."""

from __future__ import annotations

from collections.abc import Coroutine
from typing import TYPE_CHECKING, Annotated, Any

import typer

from headrace.cli.common import ConfigOption, run

if TYPE_CHECKING:
    from headrace.config.options import Config
    from headrace.config.origin import Origin

EPILOG = """\b
Examples:
  headrace up
  headrace up --config headrace.yaml --port 9000
  curl http://127.0.0.1:8017/readyz

\b
Ctrl-C ends it after the running answers; a second Ctrl-C ends it at once.
"""


def up(
    host: Annotated[
        str | None, typer.Option(metavar="ADDRESS", help="Address to listen on.")
    ] = None,
    port: Annotated[
        int | None, typer.Option(min=0, max=65535, help="Port; 0 takes a free one.")
    ] = None,
    config: ConfigOption = None,
) -> None:
    """Start the server: OpenAI's API, typed events, collections and documents."""
    from headrace.cli.fetch import fetch_missing
    from headrace.config.load import find_file
    from headrace.config.origin import Origin

    changes = {key: value for key, value in (("host", host), ("port", port)) if value is not None}
    origin = Origin(find_file(config), server=changes)
    loaded = origin.load()
    defaults = loaded.defaults
    fetch_missing(loaded, [defaults.embedder, defaults.generator, defaults.reranker])
    status = run(_server(loaded, origin))
    if status:
        raise typer.Exit(status)


def _server(config: Config, origin: Origin) -> Coroutine[Any, Any, int]:
    """One process that does all, or the host of several, which needs less of the program."""
    if config.server.processes == 1:
        from headrace.cli.server import serve

        return serve(config, origin)
    from headrace.cli.supervise import supervise

    return supervise(config, origin)
