"""A worker as a process: how it is started, and how it ended."""

from __future__ import annotations

import asyncio
import collections
import contextlib
import logging
import os
import shutil
import signal
import socket
import sys
import tempfile
from pathlib import Path

from headrace.engines import machine
from headrace.errors import ConfigError

log = logging.getLogger(__name__)

REAP_SECONDS = 5.0


class WorkerProcess:
    """`link` and `pulse` are our ends of its sockets. Its temporary files are in a folder of its
    own, which goes with it even if it is killed."""

    def __init__(
        self, name: str, process: asyncio.subprocess.Process, ends: Ends, folder: Path
    ) -> None:
        self._name = name
        self._process = process
        self._folder = folder
        self._said: collections.deque[str] = collections.deque(maxlen=20)
        self._kills_before = _kernel_kills()
        self._listening = asyncio.create_task(self._listen(), name=f"stderr of {name}")
        self.link, self.pulse = ends
        self.killed = False

    @classmethod
    async def spawn(
        cls, name: str, *, python: str | None, period: float, nice: int, cores: str
    ) -> WorkerProcess:
        """Raises `ConfigError` for an interpreter or cores that this machine lacks."""
        _check_cores(name, cores)
        ours, theirs = zip(socket.socketpair(), socket.socketpair(), strict=True)
        folder = Path(tempfile.mkdtemp(prefix="headrace-"))
        numbers = [end.fileno() for end in theirs]
        interpreter = python or sys.executable
        # -P: a file of the current folder is no module.
        command = [interpreter, "-P", "-m", "headrace.serving.launch", *map(str, numbers)]
        try:
            # A session of its own: Ctrl-C at the terminal is for the server, which then ends its
            # workers by closing the sockets; and what a worker starts can be killed with it.
            process = await asyncio.create_subprocess_exec(
                *command,
                *(str(period), str(folder), str(nice), cores),
                pass_fds=numbers,
                stdin=asyncio.subprocess.DEVNULL,
                stdout=asyncio.subprocess.DEVNULL,
                stderr=asyncio.subprocess.PIPE,
                start_new_session=True,
                env=os.environ | {"TMPDIR": str(folder)},
            )
        except BaseException as error:
            for end in ours:
                end.close()
            shutil.rmtree(folder, ignore_errors=True)
            if isinstance(error, FileNotFoundError | PermissionError | NotADirectoryError):
                raise ConfigError(
                    f"model {name!r}: `python: {interpreter}` cannot be run: {error.strerror}",
                    field="python",
                ) from error
            raise
        finally:
            for end in theirs:
                end.close()
        return cls(name, process, (ours[0], ours[1]), folder)

    @property
    def pid(self) -> int:
        return self._process.pid

    def last_words(self) -> str:
        return next((line for line in reversed(self._said) if line.strip()), "")

    async def _listen(self) -> None:
        assert self._process.stderr is not None
        with contextlib.suppress(ValueError):  # a line over the limit: nobody reads that
            async for line in self._process.stderr:
                text = line.decode(errors="replace").rstrip()
                self._said.append(text)
                log.debug("worker %s: %s", self._name, text)

    def kill(self) -> None:
        """With all that it started."""
        if self._process.returncode is None:
            self.killed = True
            with contextlib.suppress(ProcessLookupError):
                os.killpg(self.pid, signal.SIGKILL)

    async def how_it_ended(self, held: int) -> str:
        """For a message; `held` is the resident size in bytes when it was last measured."""
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(REAP_SECONDS):
                await self._process.wait()
                await self._listening
        code = self._process.returncode
        if code is None:
            return "its socket closed, and it still runs"
        said = f"; it said: {self.last_words()}" if self.last_words() else ""
        if code >= 0:
            return f"exit code {code}{said}"
        if -code == signal.SIGKILL and not self.killed:
            size = f"; it held {held // machine.MIB} MiB" if held else ""
            if _kernel_kills() > self._kills_before:
                why = "the kernel, which was out of memory, killed a process at that time"
            else:
                why = "somebody killed it, or the kernel, if memory ran out"
            return f"signal 9: {why}{size}"
        return f"signal {-code}{said}"

    async def end(self, patience: float) -> None:
        """Returns when it is gone: by itself within `patience` seconds, or killed."""
        try:
            async with asyncio.timeout(patience):
                await self._process.wait()
        except TimeoutError:
            self.kill()
            await self._process.wait()
        finally:
            self._listening.cancel()
            await asyncio.wait((self._listening,))
            await asyncio.to_thread(shutil.rmtree, self._folder, ignore_errors=True)


Ends = tuple[socket.socket, socket.socket]


def _check_cores(name: str, cores: str) -> None:
    if not cores:
        return
    if not hasattr(os, "sched_setaffinity"):
        raise ConfigError(
            f"model {name!r}: `cores` cannot be set on this operating system", field="cores"
        )
    lacking = machine.core_set(cores) - os.sched_getaffinity(0)
    if lacking:
        raise ConfigError(
            f"model {name!r}: `cores: {cores}` names cores that are not there or not ours: "
            f"{', '.join(map(str, sorted(lacking)))}; ours are "
            f"{', '.join(map(str, sorted(os.sched_getaffinity(0))))}",
            field="cores",
        )


def _kernel_kills() -> int:
    """How often the kernel has killed a process for want of memory, on this whole machine."""
    try:
        counters = Path("/proc/vmstat").read_text()
    except OSError:
        return 0
    return next(
        (int(line.split()[1]) for line in counters.splitlines() if line.startswith("oom_kill ")), 0
    )
