"""What the classes of options are made of."""

from __future__ import annotations

from typing import Annotated, Any

from pydantic import BaseModel, ConfigDict, Field

NAME_PATTERN = r"^[\w][\w.-]{0,63}$"
Name = Annotated[str, Field(pattern=NAME_PATTERN)]
Label = Annotated[str, Field(pattern=r"^[\w][\w.:-]{0,63}$")]


Device = Annotated[str, Field(pattern=r"^(cpu|cuda(:\d{1,2})?)$")]
Cores = Annotated[str, Field(pattern=r"^\d+(-\d+)?(,\d+(-\d+)?)*$")]
Size = Annotated[str, Field(pattern=r"^[1-9]\d*(\.\d+)?(KiB|MiB|GiB|TiB)$")]


def size_bytes(size: str) -> int:
    """Bytes of a `Size`."""
    number, unit = float(size[:-3]), size[-3:]
    return int(number * 1024 ** (1 + ("KiB", "MiB", "GiB", "TiB").index(unit)))


RESTART: Any = {"restart": True}
"""Marks an option whose change takes effect when the server is next started; all others are live.
It stands in the JSON schema."""


class Options(BaseModel):
    """Base of all sections: unknown options are refused, values are not coerced silently."""

    model_config = ConfigDict(extra="forbid", frozen=True, validate_default=True)
