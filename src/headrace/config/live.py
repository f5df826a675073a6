"""What a change of the configuration means for a running server. Nothing here has an effect.

Options marked `RESTART` keep the value that the server was started with; all others take the value
of the file.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

from pydantic import BaseModel

from headrace.config.fields import RESTART
from headrace.config.options import Config


@dataclass(frozen=True)
class Change:
    """`wanted` is what the file says, `config` what shall be in force. Options are named with dots
    (`models.bge.device`; an entry that comes or goes by its name alone): those of `live` take
    effect, those of `restart` wait for the next start."""

    wanted: Config
    config: Config
    live: tuple[str, ...]
    restart: tuple[str, ...]


def change(running: Config, wanted: Config) -> Change:
    """What becomes of a server that runs with `running` when its file says `wanted`."""
    found = list(_differences(running, wanted, "", restart=False))
    return Change(
        wanted=wanted,
        config=_kept(running, wanted),
        live=tuple(path for path, restart in found if not restart),
        restart=tuple(path for path, restart in found if restart),
    )


def _differences(old: Any, new: Any, path: str, *, restart: bool) -> Iterator[tuple[str, bool]]:
    """Each option that differs, and whether it waits for a restart."""
    if isinstance(old, BaseModel) and type(old) is type(new):
        for name, info in type(old).model_fields.items():
            marked = info.json_schema_extra == RESTART
            inner = f"{path}.{name}" if path else name
            values = getattr(old, name), getattr(new, name)
            yield from _differences(*values, inner, restart=marked)
    elif isinstance(old, dict) and isinstance(new, dict):
        for key in sorted({*old, *new}):
            yield from _differences(old.get(key), new.get(key), f"{path}.{key}", restart=restart)
    elif old != new:
        yield path, restart


def _kept(running: BaseModel, wanted: Any) -> Any:
    """`wanted` with the `RESTART` options of `running`. They stand in sections, never in entries by
    name, which need not be there on both sides."""
    update: dict[str, Any] = {}
    for name, info in type(wanted).model_fields.items():
        value = getattr(wanted, name)
        if info.json_schema_extra == RESTART:
            update[name] = getattr(running, name)
        elif isinstance(value, BaseModel):
            update[name] = _kept(getattr(running, name), value)
    return wanted.model_copy(update=update)
