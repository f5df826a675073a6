"""Machines to simulate: memory limits, and models with their sizes, times and speeds.

Times follow from bandwidths that are stated here, not from a measurement of this machine: weights
come from the page cache, cross PCIe to a GPU, and a new worker process imports its libraries and
makes a device context. A resume from parked weights only crosses PCIe.
"""

from __future__ import annotations

from dataclasses import dataclass

from headrace.serving.arbiter_types import Profile, Setting, Sizes

GIB, MIB = 1 << 30, 1 << 20
PCIE = 12 * GIB  # bytes a second, effective
PAGE_CACHE = 3 * GIB
CONTEXT = 450 * MIB  # of device memory, for each worker
CONTEXT_SECONDS = 0.3
WORKER_SECONDS = 1.0  # start of a process, imports
WORKER_MEMORY = 300 * MIB


@dataclass(frozen=True)
class Model:
    """`slower` is by how much its work takes longer on a seat than on its best one."""

    setting: Setting
    profile: Profile
    slower: dict[str, float]


@dataclass(frozen=True)
class Machine:
    name: str
    limits: Sizes
    other: Sizes
    models: dict[str, Model]


def on_gpu(
    weights: float, extra: float, *, flex: float = 0.0, encoder: bool = False, rate: float = 0.0
) -> Model:
    """A model of `weights` GiB, with `extra` GiB of key-value cache or activations. With `flex` it
    may run on the processor, so many times slower; `rate` is then its texts a second on the GPU."""
    size, more = round(weights * GIB), round(extra * GIB)
    gpu: Sizes = {"cuda:0": CONTEXT + size + more, "host": WORKER_MEMORY}
    moving: Sizes = {"cuda:0": CONTEXT + size + more, "host": WORKER_MEMORY + size}
    parked: Sizes = {"cuda:0": CONTEXT, "host": WORKER_MEMORY + size}
    start = WORKER_SECONDS + CONTEXT_SECONDS + size / PAGE_CACHE
    serving, peak = {"cuda:0": gpu}, {"cuda:0": moving}
    load, resume = {"cuda:0": start}, {"cuda:0": 0.02 + size / PCIE}
    slower, throughput = {"cuda:0": 1.0}, {}
    if flex:
        serving["cpu"] = {"host": WORKER_MEMORY + size + more}
        peak["cpu"] = {"host": WORKER_MEMORY + size + more, "cuda:0": CONTEXT}
        load["cpu"] = WORKER_SECONDS + size / PAGE_CACHE
        resume["cpu"] = 0.01
        slower["cpu"] = flex
        throughput = {"cuda:0": rate, "cpu": rate / flex}
    return Model(
        Setting(device="flex" if flex else "cuda:0", encoder=encoder),
        Profile(
            serving=serving,
            peak=peak,
            parked=parked,
            load=load,
            resume=resume,
            park=0.02 + (0.0 if encoder else 0.03),
            exit=0.5,
            throughput=throughput,
            measured=True,
        ),
        slower,
    )


def on_host(serving: int, *, encoder: bool) -> Model:
    """A model of `serving` MiB in the memory of a machine without a GPU; its process alone takes
    100 MiB, and its weights are read from the page cache whenever it comes back."""
    weights = (serving - 100) * MIB
    sizes: Sizes = {"host": serving * MIB}
    return Model(
        Setting(device="cpu", encoder=encoder),
        Profile(
            serving={"cpu": sizes},
            peak={"cpu": {"host": serving * MIB + weights // 10}},
            parked={"host": 100 * MIB},
            load={"cpu": 0.9 + weights / (GIB // 2)},
            resume={"cpu": 0.1 + weights / (GIB // 2)},
            park=0.05,
            exit=0.15,
            measured=True,
        ),
        {"cpu": 1.0},
    )


def laptop() -> Machine:
    """8 GB GPU, 0.6 GB of it for the desktop; 32 GB of memory. One 7B model and the encoders of a
    RAG pipeline do not fit together."""
    return Machine(
        "8 GB",
        {"cuda:0": round(7.4 * GIB), "host": 24 * GIB},
        {"host": 2 * GIB},
        {
            "llm": on_gpu(4.7, 0.9),
            "coder": on_gpu(4.4, 0.8),
            "embedder": on_gpu(1.1, 0.3, encoder=True),
            "reranker": on_gpu(1.1, 0.3, encoder=True),
        },
    )


def flexible() -> Machine:
    """The same, where the encoders may also run on the processor, ten times slower."""
    models = laptop().models | {
        "embedder": on_gpu(1.1, 0.3, flex=10, encoder=True, rate=400),
        "reranker": on_gpu(1.1, 0.3, flex=10, encoder=True, rate=250),
    }
    return Machine("8 GB, flex", laptop().limits, laptop().other, models)


def workstation() -> Machine:
    """24 GB GPU with three generators and two encoders: about one and a half times its memory."""
    return Machine(
        "24 GB",
        {"cuda:0": round(22.5 * GIB), "host": 64 * GIB},
        {"host": 4 * GIB},
        {
            "llm": on_gpu(9.0, 2.0),
            "coder": on_gpu(8.5, 2.0),
            "small": on_gpu(4.7, 0.9),
            "embedder": on_gpu(1.1, 0.3, encoder=True),
            "reranker": on_gpu(1.1, 0.3, encoder=True),
        },
    )


def host_only() -> Machine:
    """700 MiB of host memory, 190 of them for the server: one model serves, and the processes of
    the others fit beside it."""
    return Machine(
        "host 700 MiB",
        {"host": 700 * MIB},
        {"host": 190 * MIB},
        {
            "llm": on_host(290, encoder=False),
            "embedder": on_host(270, encoder=True),
            "reranker": on_host(230, encoder=True),
        },
    )
