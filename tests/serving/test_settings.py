"""One owner of the configuration, followers that run under it, and a file that people edit."""

# ruff: noqa: ASYNC240  (a few lines are written and read at once)

from __future__ import annotations

import asyncio
import logging
import os
import shutil
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from pathlib import Path

import pytest

from headrace.config import watch
from headrace.config.load import config_version
from headrace.config.options import Config
from headrace.config.origin import Origin
from headrace.errors import ConfigError, InUse, StaleVersion, StorageError, UnknownModel
from headrace.serving.control import LocalControl
from headrace.serving.settings import EDIT, REPLACE, SHOW, Edit, Replace, Shown, following
from headrace.serving.settings_owner import Owner, owning
from headrace.serving.survey import Nothing

BASE = "models:\n  a: {role: generator, engine: echo}\n"
MORE = BASE + "answer: {max_quotes: 2}\n"
PATIENCE = 20.0


class Pool:
    """What it was told to serve. Refuses a model named `huge`."""

    def __init__(self) -> None:
        self.configured: list[Config] = []

    async def apply(self, config: Config) -> None:
        if "huge" in config.models:
            raise ConfigError("model 'huge' needs 9 GiB and 1 GiB is free")
        self.configured.append(config)


class Process:
    """A follower: the configurations that were in force in it."""

    def __init__(self) -> None:
        self.seen: list[tuple[Config, str]] = []
        self._news = asyncio.Event()

    def configure(self, config: Config, version: str) -> None:
        self.seen.append((config, version))
        self._news.set()

    async def when(self, right: Callable[[Config], bool]) -> Config:
        async with asyncio.timeout(PATIENCE):
            while not (self.seen and right(self.seen[-1][0])):
                self._news.clear()
                await self._news.wait()
        return self.seen[-1][0]


class Stage:
    def __init__(self, owner: Owner, control: LocalControl, pool: Pool, process: Process) -> None:
        self.owner, self.control, self.pool, self.process = owner, control, pool, process

    async def show(self) -> Shown:
        return await self.control.ask(SHOW, Nothing())

    async def until(self, right: Callable[[Shown], bool]) -> Shown:
        async with asyncio.timeout(PATIENCE):
            while not right(shown := await self.show()):  # noqa: ASYNC110
                await asyncio.sleep(0.05)
        return shown


@asynccontextmanager
async def stage(origin: Origin) -> AsyncIterator[Stage]:
    control, pool, process = LocalControl(), Pool(), Process()
    config = origin.load()
    async with (
        owning(origin, config, control, pool.apply) as owner,
        following(control, config_version(config), process.configure),
    ):
        yield Stage(owner, control, pool, process)


@pytest.fixture
def file(tmp_path: Path) -> Path:
    path = tmp_path / "etc" / "headrace.yaml"
    path.parent.mkdir()
    path.write_text(BASE)
    return path


def in_place(file: Path, text: str) -> None:
    file.write_text(text)


def by_rename(file: Path, text: str) -> None:
    beside = file.with_name("headrace.yaml.new")
    beside.write_text(text)
    beside.replace(file)


def by_backup(file: Path, text: str) -> None:
    """As vim does with `backupcopy=no`: the file is away for a moment."""
    file.rename(file.with_name("headrace.yaml~"))
    file.write_text(text)


@pytest.mark.parametrize("save", [in_place, by_rename, by_backup])
async def test_a_saved_file_is_in_force_in_every_process(
    file: Path, save: Callable[[Path, str], None]
) -> None:
    async with stage(Origin(file)) as on:
        save(file, MORE)
        config = await on.process.when(lambda config: config.answer.max_quotes == 2)
        assert on.pool.configured == [config]
        shown = await on.show()
        assert shown.version == shown.file_version == on.process.seen[-1][1]
        assert shown.version == config_version(config)
        assert (shown.text, shown.problem, shown.restart_needed) == (MORE, "", ())


async def test_it_works_where_watching_does_not(
    file: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    def broken(*_: object, **__: object) -> object:
        raise OSError("the limit on inotify watches was reached")

    monkeypatch.setattr(watch, "awatch", broken)
    monkeypatch.setattr(watch, "POLL_SECONDS", 0.05)
    async with stage(Origin(file)) as on:
        file.write_text(MORE)
        await on.process.when(lambda config: config.answer.max_quotes == 2)
    assert caplog.text.count("is polled") == 1


async def test_links_as_kubernetes_makes_them(tmp_path: Path) -> None:
    etc = tmp_path / "etc"
    for number, text in (("1", BASE), ("2", MORE)):
        (etc / f"..{number}").mkdir(parents=True)
        (etc / f"..{number}" / "headrace.yaml").write_text(text)
    (etc / "..data").symlink_to("..1")
    (etc / "headrace.yaml").symlink_to("..data/headrace.yaml")
    async with stage(Origin(etc / "headrace.yaml")) as on:
        (etc / "..tmp").symlink_to("..2")
        (etc / "..tmp").replace(etc / "..data")
        shutil.rmtree(etc / "..1")
        await on.process.when(lambda config: config.answer.max_quotes == 2)


async def test_a_wrong_file_changes_nothing_and_says_why_once(
    file: Path, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.ERROR)
    async with stage(Origin(file)) as on:
        before = await on.show()
        file.write_text(BASE + "server:\n  prot: 1\n")
        shown = await on.until(lambda shown: bool(shown.problem))
        assert f"{file}:4: server.prot: there is no such option" in shown.problem
        assert (shown.version, shown.text) == (before.version, BASE)
        file.touch()
        await on.show()
        assert caplog.text.count("server.prot") == 1
        file.write_text(MORE)
        await on.process.when(lambda config: config.answer.max_quotes == 2)
        assert (await on.show()).problem == ""
    assert len(on.process.seen) == 1


async def test_what_the_models_cannot_do_changes_nothing(file: Path) -> None:
    async with stage(Origin(file)) as on:
        file.write_text(MORE + "devices: {host: {limit: 1GiB}}\n")
        await on.process.when(lambda config: bool(config.devices))
        file.write_text(BASE + "  huge: {role: generator, engine: echo}\n")
        shown = await on.until(lambda shown: bool(shown.problem))
        assert "needs 9 GiB" in shown.problem
        assert "huge" not in on.owner.config.models
        assert on.owner.config.answer.max_quotes == 2
    assert len(on.process.seen) == 1


async def test_a_file_that_is_gone_leaves_all_as_it_was(file: Path) -> None:
    async with stage(Origin(file)) as on:
        kept = file.with_name("kept")
        file.rename(kept)
        shown = await on.until(lambda shown: "is not there" in shown.problem)
        assert shown.text in (BASE, shown.text)
        kept.rename(file)
        await on.until(lambda shown: not shown.problem)
    assert on.process.seen == []


async def test_a_file_that_is_emptied_before_it_is_written(file: Path) -> None:
    """An empty file is a right one and means the defaults, which nobody wanted."""
    async with stage(Origin(file)) as on:
        await on.show()
        file.write_text("")
        file.write_text(MORE)
        await on.process.when(lambda config: config.answer.max_quotes == 2)
    assert len(on.process.seen) == 1


async def test_what_needs_a_restart_waits_and_the_rest_does_not(file: Path) -> None:
    async with stage(Origin(file, server={"host": "0.0.0.0"})) as on:
        assert (await on.show()).restart_needed == ()  # what the command line said is no difference
        file.write_text(MORE + "server: {port: 9, host: 127.0.0.2}\n")
        config = await on.process.when(lambda config: config.answer.max_quotes == 2)
        assert (config.server.port, config.server.host) == (8017, "0.0.0.0")
        shown = await on.show()
        assert shown.restart_needed == ("server.port",)
        assert shown.file_version != shown.version == config_version(config)


async def test_a_key_that_is_not_set_is_refused(file: Path) -> None:
    async with stage(Origin(file, environment={"A_KEY": "secret"})) as on:
        file.write_text(BASE + "server: {keys: [{env: B_KEY}]}\n")
        await on.until(lambda shown: "B_KEY is not set" in shown.problem)
        file.write_text(BASE + "server: {keys: [{env: A_KEY}]}\n")
        await on.process.when(lambda config: len(config.server.keys) == 1)
        assert b"secret" not in (await on.show()).config


# By request --------------------------------------------------------------------------------------


async def test_a_replacement_is_written_and_in_force_when_it_is_answered(file: Path) -> None:
    file.chmod(0o640)
    async with stage(Origin(file)) as on:
        shown = await on.show()
        done = await on.control.ask(REPLACE, Replace(MORE.encode(), shown.file_version))
        assert done.changed == ("answer.max_quotes",)
        assert (done.created, done.file) == (False, str(file))
        assert on.process.seen[-1][1] == done.version == on.owner.version
        assert file.read_text() == MORE
        assert file.stat().st_mode & 0o777 == 0o640
        assert [path.name for path in file.parent.iterdir()] == [file.name]
        with pytest.raises(StaleVersion, match=done.version):
            await on.control.ask(REPLACE, Replace(BASE.encode(), shown.file_version))
        assert file.read_text() == MORE
    assert len(on.pool.configured) == 1  # nor did the watch take it for somebody else's change


async def test_an_edit_of_the_file_that_nobody_looked_at_yet_makes_a_request_stale(
    file: Path,
) -> None:
    async with stage(Origin(file)) as on:
        shown = await on.show()
        file.write_text(MORE)
        with pytest.raises(StaleVersion):
            await on.control.ask(REPLACE, Replace(BASE.encode(), shown.file_version))
        assert file.read_text() == MORE


@pytest.mark.parametrize(
    "text", ["server: {prot: 1}", "models: {huge: {role: generator, engine: echo}}", "\xff"]
)
async def test_a_refused_replacement_changes_nothing(file: Path, text: str) -> None:
    async with stage(Origin(file)) as on:
        with pytest.raises(ConfigError):
            await on.control.ask(REPLACE, Replace(text.encode("latin-1"), "*"))
        assert file.read_text() == BASE
        assert on.process.seen == []
        assert [path.name for path in file.parent.iterdir()] == [file.name]


@pytest.mark.skipif(os.geteuid() == 0, reason="root may write everywhere")
async def test_a_file_that_cannot_be_written(file: Path) -> None:
    file.parent.chmod(0o500)
    try:
        async with stage(Origin(file)) as on:
            with pytest.raises(StorageError, match="cannot be written"):
                await on.control.ask(REPLACE, Replace(MORE.encode(), "*"))
            assert on.owner.config.answer.max_quotes == Config().answer.max_quotes
    finally:
        file.parent.chmod(0o700)


async def test_a_name_that_became_a_folder_takes_the_change_back(file: Path) -> None:
    """The file cannot be replaced, though the one beside it could be written."""
    async with stage(Origin(file)) as on:
        await on.show()
        file.unlink()
        file.mkdir()
        (file / "x").touch()
        with pytest.raises(StorageError):
            await on.control.ask(REPLACE, Replace(MORE.encode(), "*"))
        assert [config.answer.max_quotes for config in on.pool.configured] == [2, 3]
        assert on.process.seen == []


async def test_without_a_file_one_is_written_where_the_next_start_looks(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("XDG_CONFIG_HOME", str(tmp_path))
    async with stage(Origin(None)) as on:
        done = await on.control.ask(REPLACE, Replace(MORE.encode(), "*"))
        assert done.created
        assert done.file == str(tmp_path / "headrace" / "headrace.yaml")
        Path(done.file).write_text(BASE)
        await on.process.when(lambda config: config.answer.max_quotes == 3)


async def test_a_link_goes_on_pointing_at_the_file(file: Path) -> None:
    link = file.parent.parent / "headrace.yaml"
    link.symlink_to(file)
    async with stage(Origin(link)) as on:
        await on.control.ask(REPLACE, Replace(MORE.encode(), "*"))
        assert link.is_symlink()
        assert file.read_text() == MORE


async def test_a_change_whose_asker_goes_away_is_brought_to_its_end(file: Path) -> None:
    async with stage(Origin(file)) as on:
        asking = asyncio.create_task(on.control.ask(REPLACE, Replace(MORE.encode(), "*")))
        await asyncio.sleep(0)
        asking.cancel()
        await on.process.when(lambda config: config.answer.max_quotes == 2)
    assert file.read_text() == MORE


async def test_one_entry_is_put_and_removed(file: Path) -> None:
    options = b'{"role": "reranker", "engine": "echo"}'
    async with stage(Origin(file)) as on:
        done = await on.control.ask(EDIT, Edit("b", options))
        assert done.changed == ("models.b",)
        assert "b" in on.process.seen[-1][0].models
        done = await on.control.ask(EDIT, Edit("b", None))
        assert "b" not in on.owner.config.models
        with pytest.raises(UnknownModel):
            await on.control.ask(EDIT, Edit("b", None))
        with pytest.raises(ConfigError, match=r"models.b.engine"):
            await on.control.ask(EDIT, Edit("b", b'{"role": "reranker", "engine": "ecko"}'))


async def test_a_model_that_is_named_stays(file: Path) -> None:
    text = BASE + "defaults: {generator: a}\ncollections: {town: {generator: a}}\n"
    file.write_text(text)
    async with stage(Origin(file)) as on:
        with pytest.raises(InUse, match=r"defaults.generator, collections.town.generator"):
            await on.control.ask(EDIT, Edit("a", None))
    assert file.read_text() == text


async def test_a_process_that_cannot_follow_says_so_and_tries_again(
    file: Path, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("headrace.serving.settings.RETRY_SECONDS", 0.01)
    tries: list[str] = []
    followed = asyncio.Event()

    def stubborn(config: Config, version: str) -> None:
        tries.append(version)
        if len(tries) < 3:
            raise ConfigError("not yet")
        followed.set()

    control = LocalControl()
    origin = Origin(file)
    config = origin.load()
    pool: Callable[[Config], Awaitable[None]] = Pool().apply
    async with (
        owning(origin, config, control, pool),
        following(control, config_version(config), stubborn),
    ):
        await control.ask(REPLACE, Replace(MORE.encode(), "*"))
        async with asyncio.timeout(PATIENCE):
            await followed.wait()
    assert caplog.text.count("not yet") == 2


async def test_a_reranker_of_a_cascade_stays(file: Path) -> None:
    ranker = "  cheap: {role: reranker, engine: echo}\n"
    file.write_text(BASE.replace("models:\n", "models:\n" + ranker, 1) + CASCADE)
    async with stage(Origin(file)) as on:
        with pytest.raises(
            InUse, match=r"retrieval.rerank_first, collections.town.retrieval.rerank_first"
        ):
            await on.control.ask(EDIT, Edit("cheap", None))


CASCADE = (
    "retrieval: {rerank_first: cheap}\ncollections: {town: {retrieval: {rerank_first: cheap}}}\n"
)
