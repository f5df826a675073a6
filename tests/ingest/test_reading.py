from __future__ import annotations

import asyncio
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import psutil
import pytest

from headrace.config.options import IngestOptions
from headrace.errors import ReadError
from headrace.ingest.frames import Read, Same
from headrace.ingest.reading import ReaderProcess


@pytest.fixture
def good(tmp_path: Path) -> Path:
    path = tmp_path / "水.md"
    path.write_text("# Water\n\nThe race runs.\n", encoding="utf-8")
    return path


@pytest.fixture
def slow(tmp_path: Path) -> Path:
    path = tmp_path / "slow.txt"
    path.write_text("Water runs to the mill, and the wheel turns.\n\n" * 900_000)
    return path


async def test_a_file_is_read_cut_and_hashed(good: Path) -> None:
    text = good.read_text(encoding="utf-8")  # noqa: ASYNC240 - a test may wait
    async with ReaderProcess(IngestOptions()) as reader:
        read = await reader.read(good, "auto", 400)
        assert isinstance(read, Read)
        assert read.parsed.text == text
        assert read.chunking.chunks
        assert read.unaccounted == 0
        same = await reader.read(good, "auto", 400, known_sha256=read.sha256)
        assert isinstance(same, Same)


async def test_a_reason_comes_back_and_the_process_stays(good: Path, tmp_path: Path) -> None:
    empty = tmp_path / "empty.txt"
    empty.touch()
    async with ReaderProcess(IngestOptions()) as reader:
        with pytest.raises(ReadError, match="empty"):
            await reader.read(empty, "auto", 400)
        pid = reader.pid
        with pytest.raises(ReadError):
            await reader.read(tmp_path / "absent.txt", "auto", 400)
        await reader.read(good, "auto", 400)
        assert reader.pid == pid


async def test_a_name_that_is_not_utf8_is_written_with_escapes(tmp_path: Path) -> None:
    odd = Path(os.fsdecode(os.fsencode(tmp_path) + b"/race\xff.txt"))
    odd.write_bytes(b"The race runs.")  # noqa: ASYNC240 - a test may wait
    empty = odd.with_name(f"e{odd.name}")
    empty.touch()
    async with ReaderProcess(IngestOptions()) as reader:
        with pytest.raises(ReadError, match=r"erace\\xff.txt is empty"):
            await reader.read(empty, "auto", 400)
        read = await reader.read(odd, "auto", 400)
        assert isinstance(read, Read)
        assert read.parsed.title == r"race\xff"


async def test_a_file_that_became_a_pipe_is_not_waited_for(tmp_path: Path) -> None:
    pipe = tmp_path / "pipe.txt"
    os.mkfifo(pipe)
    async with ReaderProcess(IngestOptions(reader_seconds=3600)) as reader:
        with pytest.raises(ReadError, match="no longer a regular file"):
            await reader.read(pipe, "auto", 400)


async def test_a_file_that_takes_too_long_ends_the_process_only(good: Path, slow: Path) -> None:
    async with ReaderProcess(IngestOptions(reader_seconds=0.5)) as reader:
        with pytest.raises(ReadError, match=r"0\.5 s"):
            await reader.read(slow, "auto", 400)
        assert reader.pid is None
        assert isinstance(await reader.read(good, "auto", 400), Read)


@pytest.mark.slow
async def test_a_file_that_takes_too_much_memory(good: Path, slow: Path) -> None:
    async with ReaderProcess(IngestOptions(max_file_mib=64), memory_bytes=128 << 20) as reader:
        with pytest.raises(ReadError, match=r"memory|reader ended"):
            await reader.read(slow, "auto", 400)
        assert isinstance(await reader.read(good, "auto", 400), Read)


async def test_a_crash_is_named_and_the_next_file_is_read(good: Path, slow: Path) -> None:
    async with ReaderProcess(IngestOptions()) as reader:
        await reader.read(good, "auto", 400)
        assert reader.pid is not None
        reading = asyncio.create_task(reader.read(slow, "auto", 400))
        await asyncio.sleep(0.05)
        os.kill(reader.pid, signal.SIGSEGV)
        with pytest.raises(ReadError, match="SIGSEGV"):
            await reading
        assert isinstance(await reader.read(good, "auto", 400), Read)


async def test_cancelling_ends_the_process(slow: Path, good: Path) -> None:
    async with ReaderProcess(IngestOptions()) as reader:
        await reader.read(good, "auto", 400)
        pid = reader.pid
        assert pid is not None
        reading = asyncio.create_task(reader.read(slow, "auto", 400))
        await asyncio.sleep(0.05)
        reading.cancel()
        with pytest.raises(asyncio.CancelledError):
            await reading
        assert not psutil.pid_exists(pid)


_PARENT = """
import asyncio, sys
from pathlib import Path
from headrace.config.options import IngestOptions
from headrace.ingest.reading import ReaderProcess

async def main():
    async with ReaderProcess(IngestOptions()) as reader:
        await reader.read(Path(sys.argv[1]), "auto", 400)
        print(reader.pid, flush=True)
        await reader.read(Path(sys.argv[2]), "auto", 400)

asyncio.run(main())
"""


@pytest.mark.slow
def test_the_process_does_not_outlive_a_killed_parent(good: Path, slow: Path) -> None:
    command = [sys.executable, "-c", _PARENT, str(good), str(slow)]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as parent:
        assert parent.stdout is not None
        child = psutil.Process(int(parent.stdout.readline()))
        parent.kill()
    deadline = time.monotonic() + 30
    while child.is_running() and child.status() != psutil.STATUS_ZOMBIE:
        assert time.monotonic() < deadline, "the reader is still there"
        time.sleep(0.05)
