"""What this program really holds, as the operating system and the GPU's driver say.

On the host: its whole tree of processes. Resident size counts a page of a shared library once for
every process that has it, so the sum is rather too large than too small. On a GPU: what its
workers hold, and what everybody else on the machine does.
"""

from __future__ import annotations

from collections.abc import Mapping

import msgspec
import psutil

from headrace.serving.arbiter_types import Sizes
from headrace.serving.memory import Gpus


class Census(msgspec.Struct, frozen=True):
    """Bytes by device: of each group of workers, of everything else, and of all."""

    held: dict[str, Sizes]
    other: Sizes
    total: Sizes


def take(workers: Mapping[str, tuple[int, ...]], gpus: Gpus) -> Census:
    """Of this process and its descendants; `workers` are the PIDs of each group. Blocks for some
    milliseconds."""
    me = psutil.Process()
    of_pid = {process.pid: _resident(process) for process in (me, *me.children(recursive=True))}
    held = {key: {"host": sum(of_pid.get(pid, 0) for pid in pids)} for key, pids in workers.items()}
    for key, pids in workers.items():
        for pid in pids if gpus.names() else ():
            for device, size in gpus.of(pid).items():
                held[key][device] = held[key].get(device, 0) + size
    total = {"host": sum(of_pid.values())}
    total |= {name: room.total - room.free for name, room in gpus.rooms().items()}
    other = {
        device: max(0, size - sum(sizes.get(device, 0) for sizes in held.values()))
        for device, size in total.items()
    }
    return Census(held, other, total)


def _resident(process: psutil.Process) -> int:
    try:
        size: int = process.memory_info().rss
        return size
    except psutil.NoSuchProcess:
        return 0
