"""What processes hold, as measured: on this machine by /proc, on NVIDIA devices by NVML.

Measured from outside, by the process that asks, so that no model call can delay it: loading a
model may hold the Python lock of its worker for as long as it takes.
"""

from __future__ import annotations

import logging
from collections.abc import Sequence
from importlib import import_module
from typing import Any, Protocol

import msgspec

from headrace.engines import machine
from headrace.serving.arbiter_types import Sizes

log = logging.getLogger(__name__)


class Memory(msgspec.Struct, frozen=True):
    """Bytes by device (`host`, `cuda:N`) held now, and the most held since the last load or move
    began. A device without an entry is not used, or not measurable."""

    held: Sizes
    peak: Sizes


class Nvml(Protocol):
    """What is used of the module `pynvml` (package nvidia-ml-py)."""

    NVMLError: type[Exception]

    def nvmlInit(self) -> None: ...
    def nvmlDeviceGetCount(self) -> int: ...
    def nvmlDeviceGetHandleByIndex(self, index: int) -> Any: ...
    def nvmlDeviceGetComputeRunningProcesses(self, handle: Any) -> Sequence[Any]: ...
    def nvmlDeviceGetMemoryInfo(self, handle: Any) -> Any: ...


class Room(msgspec.Struct, frozen=True):
    """Bytes of one device."""

    free: int
    total: int


class Gpus:
    """The NVIDIA devices of this machine. Without NVML, and without devices, there are none. Its
    methods ask the driver, some milliseconds each: call them in a thread."""

    def __init__(self, nvml: Nvml | None) -> None:
        self._nvml = nvml
        self._handles: dict[str, Any] = {}
        if nvml is None:
            return
        try:
            nvml.nvmlInit()
            for index in range(nvml.nvmlDeviceGetCount()):
                self._handles[f"cuda:{index}"] = nvml.nvmlDeviceGetHandleByIndex(index)
        except nvml.NVMLError as error:
            log.info("no NVIDIA device is measured: %s", error)

    @classmethod
    def found(cls) -> Gpus:
        try:
            nvml: Any = import_module("pynvml")
        except ImportError:
            return cls(None)
        return cls(nvml)

    def names(self) -> list[str]:
        return list(self._handles)

    def of(self, pid: int) -> Sizes:
        """Bytes that a process holds, by device. A driver that does not tell (in some containers,
        on Windows) makes no entry."""
        held: Sizes = {}
        for name, handle in self._handles.items():
            for process in self._ask("nvmlDeviceGetComputeRunningProcesses", handle) or ():
                if process.pid == pid and process.usedGpuMemory:
                    held[name] = held.get(name, 0) + int(process.usedGpuMemory)
        return held

    def rooms(self) -> dict[str, Room]:
        """What is free on each device now, by the driver's word, and its size."""
        asked = {n: self._ask("nvmlDeviceGetMemoryInfo", h) for n, h in self._handles.items()}
        return {name: Room(int(m.free), int(m.total)) for name, m in asked.items() if m}

    def _ask(self, question: str, handle: Any) -> Any:
        assert self._nvml is not None
        try:
            return getattr(self._nvml, question)(handle)
        except self._nvml.NVMLError as error:
            log.warning("NVML: %s: %s", question, error)
            return None


class Meter:
    """The memory of one process. `start` begins a new peak."""

    def __init__(self, pid: int, gpus: Gpus) -> None:
        self._pid = pid
        self._gpus = gpus
        self._peak: Sizes = {}
        self.start()

    def start(self) -> None:
        self._resettable = machine.reset_peak(self._pid)
        self._peak = {}

    def read(self) -> Memory:
        """Peaks on a GPU are of the moments at which this was called: NVML keeps none. So is the
        host's where the kernel does not let us reset its own."""
        host = machine.resident(self._pid)
        held = {"host": host.now, **self._gpus.of(self._pid)}
        seen = held | {"host": host.peak if self._resettable else host.now}
        self._peak = {
            name: max(seen.get(name, 0), self._peak.get(name, 0)) for name in seen | self._peak
        }
        return Memory(held, self._peak)
