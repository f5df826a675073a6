"""The configuration in force, as all processes share it: one owner in the host, and followers.

Every server process, the host's own included, asks `NEXT` over and over: it is answered when
another configuration is in force than the one it has. The owner (`settings_owner`) is told of
changes by its file and by the other topics.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import uuid
from collections.abc import AsyncGenerator, Callable

import msgspec

from headrace.config.options import Config
from headrace.errors import HeadraceError
from headrace.serving.control import Control, Topic
from headrace.serving.survey import Nothing

log = logging.getLogger(__name__)

RETRY_SECONDS = 1.0


class Have(msgspec.Struct, frozen=True):
    """`follower` is one process's name for itself."""

    follower: str
    version: str


class Settings(msgspec.Struct, frozen=True):
    """All values in force, as JSON."""

    version: str
    config: bytes


class Shown(msgspec.Struct, frozen=True):
    """`version` is that of the values in force, `file_version` that of the values of the file,
    which differ in the options of `restart_needed`. `text` is what was last accepted; where there
    is no file, one of the defaults. `problem` says why the file as it is now is not in force."""

    version: str
    file_version: str
    file: str
    text: str
    config: bytes
    restart_needed: tuple[str, ...]
    problem: str


class Replace(msgspec.Struct, frozen=True):
    """`expected` is the `file_version` that the sender saw, or `*`."""

    text: bytes
    expected: str


class Edit(msgspec.Struct, frozen=True):
    """One model's options as JSON; None removes its entry."""

    model: str
    options: bytes | None


class Changed(msgspec.Struct, frozen=True):
    """What a change did: the options that took effect at once, and all that wait for the next
    start. `created` says that there was no file before."""

    version: str
    file_version: str
    file: str
    created: bool
    changed: tuple[str, ...]
    restart_needed: tuple[str, ...]


NEXT = Topic("config.next", Have, Settings)
"""Answered when the version in force is another, or after a while."""
SHOW = Topic("config.show", Nothing, Shown)
REPLACE = Topic("config.replace", Replace, Changed)
"""Raises `ConfigError`, `StaleVersion`, `StorageError`; nothing has changed then."""
EDIT = Topic("config.edit", Edit, Changed)
"""Raises as `REPLACE` does; `InUse` and `UnknownModel` where an entry cannot be removed."""


@contextlib.asynccontextmanager
async def following(
    control: Control, version: str, configure: Callable[[Config, str], None]
) -> AsyncGenerator[None, None]:
    """While inside, `configure(config, version)` is called in this loop whenever another
    configuration than `version` comes into force. What it refuses is logged, and tried again."""
    task = asyncio.create_task(_follow(control, version, configure))
    try:
        yield
    finally:
        task.cancel()
        await asyncio.wait([task])
        if not task.cancelled():
            task.result()


async def _follow(control: Control, version: str, configure: Callable[[Config, str], None]) -> None:
    name = uuid.uuid4().hex
    while True:
        try:
            told = await control.ask(NEXT, Have(name, version))
            if told.version != version:
                configure(Config.model_validate_json(told.config), told.version)
                version = told.version
        except HeadraceError as error:
            log.warning("this process keeps configuration %s: %s", version, error.message)
            await asyncio.sleep(RETRY_SECONDS)
