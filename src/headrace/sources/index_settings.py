"""The machine's own settings for package indexes, as pip sees them."""

from __future__ import annotations

import ast
import os
import subprocess
import sys
from collections.abc import Mapping
from typing import NamedTuple

from unearth import PackageFinder

from headrace.errors import SourceError

_SECTIONS = ("global", "download", ":env:")  # later ones win, as in `pip download`


class IndexSettings(NamedTuple):
    """Where packages are looked for. Times in seconds; URLs may hold credentials."""

    index_urls: tuple[str, ...]
    find_links: tuple[str, ...]
    trusted_hosts: tuple[str, ...]
    cert: str | None
    client_cert: str | None
    proxy: str | None
    timeout: float


def read() -> IndexSettings:
    """From pip's configuration files, `PIP_*`, and uv's variables where pip's say nothing."""
    command = [sys.executable, "-m", "pip", "config", "list"]
    try:
        done = subprocess.run(command, capture_output=True, text=True, timeout=60, check=True)
    except (OSError, subprocess.SubprocessError) as error:
        detail = getattr(error, "stderr", None) or error
        raise SourceError(f"cannot read pip's configuration: {detail}") from error
    return from_pip(done.stdout, os.environ)


def from_pip(listing: str, environment: Mapping[str, str]) -> IndexSettings:
    """The settings in the output of `pip config list`."""
    values: dict[str, str] = {}
    rows = [_row(line) for line in listing.splitlines() if "=" in line]
    for wanted in _SECTIONS:
        values.update({key: value for section, key, value in rows if section == wanted})
    uv = environment.get("UV_DEFAULT_INDEX") or environment.get("UV_INDEX_URL")
    main = values.get("index-url") or uv or _default_index()
    extra = values.get("extra-index-url") or environment.get("UV_EXTRA_INDEX_URL", "")
    no_index = values.get("no-index", "").lower() in ("1", "true", "yes", "on")
    return IndexSettings(
        index_urls=() if no_index else (main, *extra.split()),
        find_links=tuple(values.get("find-links", "").split()),
        trusted_hosts=tuple(values.get("trusted-host", "").split()),
        cert=values.get("cert"),
        client_cert=values.get("client-cert"),
        proxy=values.get("proxy"),
        timeout=float(values.get("timeout") or values.get("default-timeout") or 30.0),
    )


def _default_index() -> str:
    """The index that packages come from where nobody said anything."""
    url: str = PackageFinder().sources[0]["url"]
    return url


def _row(line: str) -> tuple[str, str, str]:
    """(section, key, value) of a line like `global.index-url='https://...'`."""
    name, _, value = line.partition("=")
    section, _, key = name.strip().rpartition(".")
    try:
        text = str(ast.literal_eval(value))
    except (ValueError, SyntaxError):
        text = value
    return section, key, text
