"""Workers that die, hang, run under another interpreter, or lose their server."""

from __future__ import annotations

import asyncio
import os
import signal
import socket
import subprocess
import sys
import venv
from pathlib import Path

import psutil
import pytest
from tests.serving.workers import PATIENCE, children, folders, spec, until

import headrace
from headrace.errors import ConfigError, HeadraceError, ModelFailed
from headrace.serving.client import WorkerClient
from headrace.types import GenerateParams, Lane, Message


class Deaths:
    """What `on_death` was told."""

    def __init__(self) -> None:
        self.told: list[HeadraceError] = []
        self.first = asyncio.Event()

    def __call__(self, error: HeadraceError) -> None:
        self.told.append(error)
        self.first.set()


async def embed(client: WorkerClient) -> object:
    async with asyncio.timeout(PATIENCE):
        return await client.embed(["x"], "query", Lane.INTERACTIVE)


async def test_a_killed_worker_fails_all_that_it_was_doing() -> None:
    deaths = Deaths()
    client = await WorkerClient.start(spec("delay=20"), on_death=deaths)
    work = [asyncio.create_task(embed(client)) for _ in range(2)]
    stream = client.stream([Message("user", "word " * 20)], GenerateParams())
    work.append(asyncio.create_task(anext(stream)))
    await asyncio.sleep(0)
    os.kill(client.pid, signal.SIGKILL)
    for task in work:
        with pytest.raises(ModelFailed, match=r"signal 9: .*(out of memory|memory ran out)"):
            await task
    assert not client.alive
    with pytest.raises(ModelFailed, match="signal 9"):
        await embed(client)
    assert len(deaths.told) == 1
    await client.close()
    assert len(deaths.told) == 1


async def test_an_idle_worker_that_dies_is_reported() -> None:
    deaths = Deaths()
    client = await WorkerClient.start(spec(), on_death=deaths)
    os.kill(client.pid, signal.SIGTERM)
    await asyncio.wait_for(deaths.first.wait(), PATIENCE)
    assert "signal 15" in str(deaths.told[0])
    await client.close()


async def test_kill_says_why() -> None:
    deaths = Deaths()
    client = await WorkerClient.start(spec("delay=20"), on_death=deaths)
    work = asyncio.create_task(embed(client))
    await asyncio.sleep(0)
    client.kill("an operator wanted it")
    with pytest.raises(ModelFailed, match="an operator wanted it"):
        await work
    assert [str(error) for error in deaths.told] == ["an operator wanted it"]
    await client.close()


async def test_closing_is_no_death_and_leaves_neither_process_nor_folder() -> None:
    before = folders()
    deaths = Deaths()
    client = await WorkerClient.start(spec(), on_death=deaths)
    pid = client.pid
    assert folders() > before
    await client.close()
    assert not psutil.pid_exists(pid)
    assert not deaths.told
    assert folders() <= before


async def test_a_worker_without_progress_is_killed() -> None:
    deaths = Deaths()
    client = await WorkerClient.start(spec("delay=60", timeout_seconds=0.4), on_death=deaths)

    async def count() -> None:  # is answered all the time, and is no progress of the work
        while client.alive:
            await client.count(["one"])
            await asyncio.sleep(0.02)

    counting = asyncio.create_task(count())
    with pytest.raises(ModelFailed, match=r"no progress for 0\.4 s"):
        await embed(client)
    assert len(deaths.told) == 1
    await asyncio.wait((counting,))
    await client.close()


async def test_work_that_goes_on_is_no_hang_however_long_it_takes() -> None:
    client = await WorkerClient.start(spec("delay=0.15", timeout_seconds=0.6))
    stream = client.stream([Message("user", "word " * 10)], GenerateParams())
    assert len([delta async for delta in stream]) == 11
    assert client.alive
    await client.close()


async def test_a_worker_that_shows_no_life_is_killed_even_if_nothing_is_asked_of_it() -> None:
    deaths = Deaths()
    client = await WorkerClient.start(spec(timeout_seconds=0.4), on_death=deaths)
    os.kill(client.pid, signal.SIGSTOP)
    await asyncio.wait_for(deaths.first.wait(), PATIENCE)
    assert "no life" in str(deaths.told[0])
    await client.close()
    assert not psutil.pid_exists(client.pid)


async def test_a_worker_that_dies_in_its_load_is_told_by_the_load() -> None:
    before = children()
    starting = asyncio.create_task(WorkerClient.start(spec("load=60")))
    await until(lambda: children() > before)
    (children() - before).pop().kill()
    with pytest.raises(ModelFailed, match="signal 9"):
        await starting


_SERVER = """
import asyncio
from headrace.engines.base import ModelSpec
from headrace.serving.client import WorkerClient
from headrace.types import Lane

async def start(source):
    return await WorkerClient.start(ModelSpec("e", "embedder", "echo", source, "."))

async def main():
    idle, parked, computing = [await start(source) for source in ("", "", "delay=60")]
    await parked.park()
    tasks = [asyncio.create_task(computing.embed(["x"], "query", Lane.BULK))]
    await computing.count(["x"])
    tasks.append(asyncio.create_task(start("load=60")))
    await asyncio.gather(*tasks)

asyncio.run(main())
"""


@pytest.mark.slow
async def test_workers_end_with_their_server_whatever_they_do(tmp_path: Path) -> None:
    script = tmp_path / "server.py"
    script.write_text(_SERVER)
    server = await asyncio.create_subprocess_exec(sys.executable, str(script))
    process = psutil.Process(server.pid)
    await until(lambda: len(process.children()) == 4)
    workers = process.children()
    server.kill()
    await server.wait()
    _, left = await asyncio.to_thread(psutil.wait_procs, workers, PATIENCE)
    assert not left


async def test_an_interpreter_that_is_not_there() -> None:
    with pytest.raises(ConfigError, match="/no/such/python"):
        await WorkerClient.start(spec(), python="/no/such/python")


@pytest.fixture
def bare(tmp_path: Path) -> Path:
    """An environment with nothing installed."""
    venv.create(tmp_path, with_pip=False, symlinks=True)
    return tmp_path


def install(bare: Path, version: str) -> None:
    """This code, under that version."""
    (library,) = bare.glob("lib/python*/site-packages")
    others = [path for path in sys.path if path.endswith("site-packages")]
    (library / "others.pth").write_text("\n".join(others))
    package = library / "headrace"
    package.mkdir(exist_ok=True)
    source = str(Path(headrace.__file__).parent)
    (package / "__init__.py").write_text(
        f"__version__ = {version!r}\n__path__.append({source!r})\n"
    )


async def test_an_interpreter_without_headrace(bare: Path) -> None:
    with pytest.raises(ConfigError, match=r"No module named 'headrace'.*install headrace"):
        await WorkerClient.start(spec(), python=str(bare / "bin" / "python"))


async def test_an_interpreter_with_another_headrace(bare: Path) -> None:
    install(bare, "9.9.9")
    with pytest.raises(ConfigError, match=r"has headrace 9\.9\.9.* install headrace"):
        await WorkerClient.start(spec(), python=str(bare / "bin" / "python"))


async def test_another_interpreter_with_this_headrace(bare: Path) -> None:
    install(bare, headrace.__version__)
    client = await WorkerClient.start(spec(), python=str(bare / "bin" / "python"))
    assert psutil.Process(client.pid).cmdline()[0] == str(bare / "bin" / "python")
    await client.close()


def test_what_a_worker_imports() -> None:
    """An idle worker is small."""
    code = (
        "import sys, headrace.serving.worker as w\n"
        "print(*(m for m in ('httpx', 'psutil', 'onnxruntime', 'xllamacpp', 'pydantic',"
        " 'fastapi', 'importlib.metadata') if m in sys.modules))"
    )
    found = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert found.stdout.strip() == ""


def test_a_launched_worker_without_a_server_ends(tmp_path: Path) -> None:
    ours, theirs = socket.socketpair()
    pulse, pulsed = socket.socketpair()
    numbers = [str(theirs.fileno()), str(pulsed.fileno())]
    for end in (ours, pulse):
        end.close()
    done = subprocess.run(
        [
            sys.executable,
            "-m",
            "headrace.serving.launch",
            *numbers,
            "1",
            str(tmp_path / "x"),
            "0",
            "",
        ],
        pass_fds=[theirs.fileno(), pulsed.fileno()],
        timeout=PATIENCE,
        start_new_session=True,
    )
    theirs.close()
    pulsed.close()
    assert done.returncode == 0
