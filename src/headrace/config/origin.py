"""Where a running program's configuration comes from: to read it again, and to write it."""

from __future__ import annotations

import contextlib
import os
import stat
import tempfile
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from platformdirs import user_config_path

from headrace.config.load import FILE_NAME, adjusted, read_bytes, read_file
from headrace.config.options import ApiKey, Config
from headrace.errors import ConfigError, StorageError


@dataclass(frozen=True)
class Origin:
    """`file` is the one found at the start; None where there was none, and the defaults are in
    force. `server` holds the options of that section that the command line gave: they win over the
    file, today and whenever it is read again."""

    file: Path | None
    environment: Mapping[str, str] = field(default_factory=lambda: dict(os.environ))
    server: Mapping[str, Any] = field(default_factory=dict)

    @property
    def target(self) -> Path:
        """The file, or where the next start looks for one last."""
        return self.file or user_config_path("headrace") / FILE_NAME

    def load(self) -> Config:
        """Raises `ConfigError`."""
        return self._adjusted(read_file(self.file) if self.file else Config())

    def parse(self, raw: bytes, name: str) -> Config:
        """The configuration that `raw` would be as this origin's file; `name` stands in messages.
        Raises `ConfigError`."""
        return self._adjusted(read_bytes(raw, name, self.target.absolute().parent))

    def _adjusted(self, config: Config) -> Config:
        config = adjusted(config, self.environment)
        if not self.server:
            return config
        return config.model_copy(update={"server": config.server.model_copy(update=self.server)})


def key_text(key: ApiKey, environment: Mapping[str, str]) -> str:
    """The API key itself. Raises `ConfigError` if its variable is not set."""
    text = environment.get(key.env, "").strip()
    if not text:
        raise ConfigError(
            f"server.keys: the environment variable {key.env} is not set; put the key into it",
            field="server.keys",
        )
    return text


def stage(path: Path, raw: bytes) -> Path:
    """Writes `raw` beside `path`, for `put`; a symbolic link is followed. Blocks. Raises
    `StorageError`."""
    target = path.resolve()
    try:
        target.parent.mkdir(parents=True, exist_ok=True)
        number, name = tempfile.mkstemp(prefix=f".{target.name}.", dir=target.parent)
    except OSError as error:
        raise _unwritable(path, error) from error
    beside = Path(name)
    try:
        with os.fdopen(number, "wb") as file:
            file.write(raw)
            file.flush()
            with contextlib.suppress(FileNotFoundError):
                os.fchmod(file.fileno(), stat.S_IMODE(target.stat().st_mode))
            os.fsync(file.fileno())
    except OSError as error:
        beside.unlink(missing_ok=True)
        raise _unwritable(path, error) from error
    return beside


def put(beside: Path, path: Path) -> None:
    """Gives what was staged its place, in one step: nobody reads half a file, and a power cut
    leaves the old one or the new one. Blocks. Raises `StorageError`."""
    target = path.resolve()
    try:
        beside.replace(target)
        sync_folder(target.parent)
    except OSError as error:
        raise _unwritable(path, error) from error


def sync_folder(folder: Path) -> None:
    """Makes the names in `folder` survive a power cut. Raises `OSError`."""
    number = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(number)
    finally:
        os.close(number)


def _unwritable(path: Path, error: OSError) -> StorageError:
    return StorageError(
        f"{path} cannot be written: {error.strerror}; the configuration was not changed"
    )
