"""The grammar of source strings."""

from __future__ import annotations

import re
from pathlib import PurePosixPath
from typing import Literal, NamedTuple, cast

from headrace.errors import ConfigError

Kind = Literal["pypi", "hf", "ms", "file"]

_PYPI = re.compile(r"([A-Za-z0-9][\w.-]*?)(?:==([A-Za-z0-9][\w.!+-]*))?(?:/(.+))?")
_HUB = re.compile(r"([\w][\w.-]*/[\w][\w.-]*)(?:/(.+))?")


class Source(NamedTuple):
    """`name` is the package, the hub's ORG/REPO, or the path; `file` is a path inside it, or
    empty; `version` is a package's, or empty."""

    kind: Kind
    name: str
    version: str = ""
    file: str = ""

    def __str__(self) -> str:
        version = f"=={self.version}" if self.version else ""
        file = f"/{self.file}" if self.file else ""
        return f"{self.kind}:{self.name}{version}{file}"


def parse(source: str) -> Source:
    """The parts of a source string. Raises `ConfigError` for anything else."""
    kind, _, rest = source.partition(":")
    if kind == "file" and rest:
        return Source("file", rest)
    if kind == "pypi" and (match := re.fullmatch(_PYPI, rest)):
        name, version, file = match.groups(default="")
        return Source("pypi", name, version, _inside(source, file))
    if kind in ("hf", "ms") and (match := re.fullmatch(_HUB, rest)):
        name, file = match.groups(default="")
        return Source(cast("Kind", kind), name, "", _inside(source, file))
    raise ConfigError(
        f"{source!r} is not a source; write pypi:NAME[==VERSION][/FILE], hf:ORG/REPO[/FILE],"
        " ms:ORG/REPO[/FILE] or file:PATH",
        field="source",
    )


def _inside(source: str, file: str) -> str:
    """`file`, if it stays inside the archive or repository that it is looked up in."""
    parts = PurePosixPath(file).parts
    if file.startswith("/") or "\\" in file or "\0" in file or ".." in parts:
        raise ConfigError(f"{source!r}: the path {file!r} leads out of its package", field="source")
    return file
