"""What is measured: this process by the kernel, GPUs by a module that speaks as NVML does."""

from __future__ import annotations

import os
import subprocess
import sys
from types import SimpleNamespace

import numpy as np
import pytest

from headrace.engines import machine
from headrace.serving.memory import Gpus, Meter, Room

MIB = 1 << 20


class FakeError(Exception):
    pass


class FakeNvml:
    """Two devices: on the first 300 MiB of process 7 and something it does not tell of 8, on the
    second two contexts of 7. The third is broken."""

    NVMLError = FakeError

    def __init__(self, fails: bool = False) -> None:
        self._fails = fails

    def nvmlInit(self) -> None:
        if self._fails:
            raise FakeError("Driver Not Loaded")

    def nvmlDeviceGetCount(self) -> int:
        return 3

    def nvmlDeviceGetHandleByIndex(self, index: int) -> int:
        return index

    def nvmlDeviceGetComputeRunningProcesses(self, handle: int) -> list[SimpleNamespace]:
        if handle == 2:
            raise FakeError("GPU is lost")
        sizes = [[(7, 300 * MIB), (8, None)], [(7, 10 * MIB), (7, 20 * MIB)]][handle]
        return [SimpleNamespace(pid=pid, usedGpuMemory=size) for pid, size in sizes]

    def nvmlDeviceGetMemoryInfo(self, handle: int) -> SimpleNamespace:
        if handle == 2:
            raise FakeError("GPU is lost")
        return SimpleNamespace(free=(handle + 1) * MIB, total=4 * MIB, used=0)


def test_gpu_memory_by_process_and_device() -> None:
    gpus = Gpus(FakeNvml())
    assert gpus.names() == ["cuda:0", "cuda:1", "cuda:2"]
    assert gpus.of(7) == {"cuda:0": 300 * MIB, "cuda:1": 30 * MIB}
    assert gpus.of(8) == {}
    assert gpus.rooms() == {"cuda:0": Room(MIB, 4 * MIB), "cuda:1": Room(2 * MIB, 4 * MIB)}


@pytest.mark.parametrize("nvml", [None, FakeNvml(fails=True)])
def test_without_a_driver_there_are_no_gpus(nvml: FakeNvml | None) -> None:
    gpus = Gpus(nvml)
    assert (gpus.names(), gpus.of(7), gpus.rooms()) == ([], {}, {})


def test_resident_memory_rises_and_falls() -> None:
    meter = Meter(os.getpid(), Gpus(None))
    before = meter.read().held["host"]
    block = np.ones(64 * MIB, np.uint8)
    during = meter.read()
    assert during.held["host"] - before > 60 * MIB
    del block
    after = meter.read()
    assert after.held["host"] < during.held["host"] - 60 * MIB
    assert after.peak["host"] >= during.held["host"]
    meter.start()
    again = meter.read()
    assert again.peak["host"] < during.held["host"]


def test_a_process_that_is_gone_holds_nothing() -> None:
    process = subprocess.Popen([sys.executable, "-c", ""])
    process.wait()
    assert machine.resident(process.pid).now == 0
    assert Meter(process.pid, Gpus(FakeNvml())).read().held == {"host": 0}


def test_a_zombie_holds_nothing() -> None:
    process = subprocess.Popen([sys.executable, "-c", ""], stdout=subprocess.PIPE)
    assert process.stdout is not None
    process.stdout.read()  # until it has closed its end
    os.waitid(os.P_PID, process.pid, os.WEXITED | os.WNOWAIT)
    assert machine.resident(process.pid).now == 0
    process.stdout.close()
    process.wait()


def test_cores_of_a_setting() -> None:
    assert machine.core_set("0-3,8") == {0, 1, 2, 3, 8}
    assert machine.core_set("5") == {5}
