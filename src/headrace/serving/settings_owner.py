"""The owner of the configuration: the only one that changes what is in force.

A change, from the file or from a request, goes these steps, one change at a time:
1. It is parsed and checked as a whole. 2. What it may not change while running is kept as it is.
3. The pool takes it, and with it what needs loading. 4. A request's change is written to the file.
5. The followers are told. Whatever fails before step 5 leaves everything as it was.
"""

from __future__ import annotations

import asyncio
import contextlib
import hashlib
import logging
import time
from collections.abc import AsyncGenerator, Awaitable, Callable, Coroutine
from dataclasses import replace
from pathlib import Path
from typing import NamedTuple, TypeVar

import msgspec

from headrace.config.edit import with_model, without_model
from headrace.config.live import Change, change
from headrace.config.load import MAX_BYTES, config_version
from headrace.config.options import Config
from headrace.config.origin import Origin, key_text, put, stage
from headrace.config.reference import commented_file
from headrace.config.watch import ticks
from headrace.errors import (
    BadRequest,
    ConfigError,
    HeadraceError,
    InUse,
    StaleVersion,
    StorageError,
    UnknownModel,
)
from headrace.serving.control import LocalControl
from headrace.serving.settings import (
    EDIT,
    NEXT,
    REPLACE,
    SHOW,
    Changed,
    Edit,
    Have,
    Replace,
    Settings,
    Shown,
)
from headrace.serving.survey import Nothing

log = logging.getLogger(__name__)

T = TypeVar("T")

NEWS_SECONDS = 25.0
"""How long a follower's question waits for another configuration before it is asked again."""
EVERYWHERE_SECONDS = 2.0
"""How long a change waits until every process has it."""
SETTLED_SECONDS = 0.1
"""A file is taken when it read the same twice, that far apart: some editors empty it first."""
_READS = 20


class _Stamp(NamedTuple):
    modified: int
    size: int
    inode: int


class Owner:
    """`config` and `version` are in force. `apply` makes the models what a configuration says, or
    raises and changes nothing."""

    def __init__(
        self, origin: Origin, config: Config, apply: Callable[[Config], Awaitable[None]]
    ) -> None:
        self.config = config
        self.version = config_version(config)
        self._origin = origin
        self._apply = apply
        self._text = commented_file()
        self._file_version = self.version
        self._restart: tuple[str, ...] = ()
        self._problem = ""
        self._stamp: _Stamp | None = None
        self._refused = ""
        self._lock = asyncio.Lock()
        self._news = asyncio.Event()
        self._heard = asyncio.Event()
        self._followers: dict[str, tuple[str, float]] = {}
        self._work: set[asyncio.Task[Changed]] = set()

    # What others ask ----------------------------------------------------------------------------

    def register(self, control: LocalControl) -> None:
        control.answer(NEXT, self._next)
        control.answer(SHOW, self._show)
        control.answer(REPLACE, self._replace)
        control.answer(EDIT, self._edit)

    async def _next(self, have: Have) -> Settings:
        self._followers[have.follower] = (have.version, time.monotonic())
        self._heard.set()
        if have.version == self.version:
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(NEWS_SECONDS):
                    await self._news.wait()
        return Settings(self.version, self.config.model_dump_json().encode())

    async def _show(self, _: Nothing) -> Shown:
        if not self._lock.locked():
            async with self._lock:
                await self._read()
        return Shown(
            version=self.version,
            file_version=self._file_version,
            file=str(self._origin.file or ""),
            text=self._text,
            config=self.config.model_dump_json().encode(),
            restart_needed=self._restart,
            problem=self._problem,
        )

    async def _replace(self, asked: Replace) -> Changed:
        return await self._whole(self._replaced(asked))

    async def _edit(self, asked: Edit) -> Changed:
        return await self._whole(self._edited(asked))

    async def _whole(self, work: Coroutine[None, None, Changed]) -> Changed:
        """Whoever asked may go away; a change that has begun is brought to its end."""
        task = asyncio.create_task(work)
        self._work.add(task)
        task.add_done_callback(self._work.discard)
        return await asyncio.shield(task)

    async def _replaced(self, asked: Replace) -> Changed:
        async with self._lock:
            await self._read()
            if asked.expected not in ("*", self._file_version):
                raise StaleVersion(
                    f"the configuration is at version {self._file_version}, not "
                    f"{asked.expected[:40]}: somebody changed it; read it again",
                    field="If-Match",
                )
            return await self._write(asked.text)

    async def _edited(self, asked: Edit) -> Changed:
        async with self._lock:
            await self._read()
            if self._problem:
                raise ConfigError(f"the file must be put right first: {self._problem}")
            if asked.options is None:
                text = self._without(asked.model)
            else:
                text = with_model(self._text, asked.model, msgspec.json.decode(asked.options))
            return await self._write(text.encode())

    def _without(self, model: str) -> str:
        if model not in self.config.models:
            raise UnknownModel(model, self.config.models)
        named = self.config.model_dump(include={"defaults", "collections"})
        users = [f"defaults.{role}" for role, name in named["defaults"].items() if name == model]
        users += [
            f"collections.{key}.{option}"
            for key, options in named["collections"].items()
            for option, value in options.items()
            if option in ("embedder", "generator", "reranker") and value == model
        ]
        sections = {"retrieval": self.config.retrieval} | {
            f"collections.{key}.retrieval": one.retrieval
            for key, one in self.config.collections.items()
        }
        users += [
            f"{where}.rerank_first"
            for where, options in sections.items()
            if options is not None and options.rerank_first == model
        ]
        if users:
            raise InUse(f"model {model!r} is named by {', '.join(users)}; change that first")
        text = without_model(self._text, model)
        if text is None:
            raise BadRequest(
                f"model {model!r} is built in and has no entry to remove; it takes no memory "
                "unless it is used"
            )
        return text

    # Changes; the lock is held ------------------------------------------------------------------

    async def _write(self, raw: bytes) -> Changed:
        origin = self._origin
        made = self._checked(origin.parse(raw, "the body"))
        beside = await asyncio.to_thread(stage, origin.target, raw)
        stamp = _stamp(beside)
        try:
            await self._take(made)
            try:
                await asyncio.to_thread(put, beside, origin.target)
            except StorageError:
                await self._apply(self.config)
                raise
        finally:
            await asyncio.to_thread(beside.unlink, missing_ok=True)
        self._origin, self._stamp = replace(origin, file=origin.target), stamp
        self._publish(made, raw)
        await self._everywhere()
        return Changed(
            version=self.version,
            file_version=self._file_version,
            file=str(origin.target),
            created=origin.file is None,
            changed=made.live,
            restart_needed=self._restart,
        )

    async def _read(self) -> None:
        """Take the file as it is now, if it is another than when last read."""
        file = self._origin.file
        if file is None:
            return
        stamp = await asyncio.to_thread(_stamp, file)
        if stamp is None:
            self._refuse(f"{file} is not there; the configuration stays as it was", "")
            self._stamp = None
        if stamp == self._stamp:
            return
        raw = await _settled(file)
        if raw is None:
            return  # gone, or still being written: the next tick will tell
        self._stamp = stamp
        try:
            made = self._checked(self._origin.parse(raw, str(file)))
            await self._take(made)
        except HeadraceError as error:
            self._refuse(error.message, hashlib.sha256(raw).hexdigest())
        else:
            self._publish(made, raw)

    def _checked(self, wanted: Config) -> Change:
        for key in wanted.server.keys:
            key_text(key, self._origin.environment)
        return change(self.config, wanted)

    async def _take(self, made: Change) -> None:
        if made.live:
            await self._apply(made.config)

    def _refuse(self, problem: str, content: str) -> None:
        """Logged once for a content of the file, however often it is looked at."""
        if (problem, content) != (self._problem, self._refused):
            log.error("the configuration stays at version %s: %s", self.version, problem)
        self._problem, self._refused = problem, content

    def _publish(self, made: Change, raw: bytes) -> None:
        self._problem = self._refused = ""
        self._text = raw.decode("utf-8-sig")
        if made.restart and made.restart != self._restart:
            log.warning("these wait for the next start: %s", ", ".join(made.restart))
        self._restart = made.restart
        self.config, self.version = made.config, config_version(made.config)
        self._file_version = config_version(made.wanted)
        if made.live:
            log.info("configuration %s is in force: %s", self.version, ", ".join(made.live))
            news, self._news = self._news, asyncio.Event()
            news.set()

    async def _everywhere(self) -> None:
        """Returns when every process that is alive has the version in force, or after a while."""

        def behind() -> bool:
            now = time.monotonic()
            alive = (v for v, heard in self._followers.values() if now - heard < 2 * NEWS_SECONDS)
            return any(version != self.version for version in alive)

        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(EVERYWHERE_SECONDS):
                while behind():
                    self._heard.clear()
                    await self._heard.wait()

    # Its life -----------------------------------------------------------------------------------

    async def watch(self) -> None:
        """For ever: take the file whenever it changed."""
        async with contextlib.aclosing(ticks(lambda: self._origin.file)) as moments:
            async for _ in moments:
                async with self._lock:
                    await self._read()

    async def end(self) -> None:
        """Returns when no change is under way."""
        if self._work:
            await asyncio.wait(self._work)


@contextlib.asynccontextmanager
async def owning(
    origin: Origin,
    config: Config,
    control: LocalControl,
    apply: Callable[[Config], Awaitable[None]],
) -> AsyncGenerator[Owner, None]:
    """Own the configuration `config`, which came from `origin`, until left."""
    owner = Owner(origin, config, apply)
    owner.register(control)
    task = asyncio.create_task(owner.watch())
    try:
        yield owner
    finally:
        task.cancel()
        await asyncio.wait([task])
        await owner.end()
        if not task.cancelled():
            task.result()


def _stamp(file: Path) -> _Stamp | None:
    try:
        found = file.stat()
    except OSError:
        return None
    return _Stamp(found.st_mtime_ns, found.st_size, found.st_ino)


async def _settled(file: Path) -> bytes | None:
    """The file's content when it has come to rest; None if it has not, or is gone."""
    last = None
    for _ in range(_READS):
        try:
            raw = await asyncio.to_thread(_content, file)
        except OSError:
            return None
        if raw == last:
            return raw
        last = raw
        await asyncio.sleep(SETTLED_SECONDS)
    return None


def _content(file: Path) -> bytes:
    with file.open("rb") as opened:
        return opened.read(MAX_BYTES + 1)
