"""How much memory and time a model takes: estimated once, measured ever after.

A profile belongs to what determines it (engine, source, the engine's options), not to a name, and
is kept in the cache folder, so that a server knows at its start what an earlier one measured.
"""

from __future__ import annotations

import hashlib
import logging
import os
from collections.abc import Iterable
from pathlib import Path

import msgspec

from headrace import sources
from headrace.engines import gguf_header
from headrace.engines.base import ModelSpec
from headrace.errors import HeadraceError
from headrace.serving.arbiter_types import Profile
from headrace.serving.memory import Memory
from headrace.types import Role

log = logging.getLogger(__name__)

MIB = 1 << 20
FILE_NAME = "profiles.json"
_PROCESS = {"echo": 60 * MIB, "openai": 80 * MIB, "onnx": 110 * MIB, "llamacpp": 100 * MIB}
"""A worker with its libraries and without weights."""
_CONTEXT = 512 * MIB  # what a CUDA context takes of its device
_GROWTH = 64 * MIB  # what the first real batch adds
_UNKNOWN = 1024 * MIB  # weights that nobody has seen yet
_READ_SECONDS = 1 / (500 * MIB)  # a byte from a disk
_MOVE_SECONDS = 1 / (8192 * MIB)  # a byte to a GPU


class Profiles:
    """Those that were measured. `put` writes the file, so it blocks."""

    def __init__(self, cache_dir: Path) -> None:
        self._path = cache_dir / FILE_NAME
        self._known: dict[str, Profile] = {}
        try:
            self._known = msgspec.json.decode(self._path.read_bytes(), type=dict[str, Profile])
        except FileNotFoundError:
            pass
        except (OSError, msgspec.MsgspecError) as error:
            log.warning("%s cannot be read and is made anew: %s", self._path, error)

    def get(self, spec: ModelSpec, hint: int, seats: Iterable[str]) -> Profile:
        """The measured one, or an estimate from `hint` (bytes on the seat) or the weights."""
        known = self._known.get(_key(spec))
        guess = estimate(spec, hint, seats)
        if known is None:
            return guess
        return msgspec.structs.replace(
            known,
            serving=guess.serving | known.serving,
            peak=guess.peak | known.peak,
            load=guess.load | known.load,
            resume=guess.resume | known.resume,
        )

    def put(self, spec: ModelSpec, profile: Profile) -> None:
        self._known[_key(spec)] = profile
        partial = self._path.with_name(f"{FILE_NAME}.{os.getpid()}")
        try:
            self._path.parent.mkdir(parents=True, exist_ok=True)
            partial.write_bytes(msgspec.json.encode(self._known))
            partial.replace(self._path)
        except OSError as error:
            log.warning("measured sizes cannot be kept in %s: %s", self._path, error.strerror)


def measured(
    old: Profile, spec: ModelSpec, seat: str, memory: Memory, seconds: float, *, parked: bool
) -> Profile:
    """After a load to `seat` that took so long, from gone or from parked. Room to grow is added to
    what is held: buffers of the first real batch are not there yet."""
    room = 0 if spec.engine in ("echo", "openai") else _GROWTH
    serving = {device: size + room for device, size in memory.held.items()}
    peak = {device: max(size, memory.peak.get(device, 0)) for device, size in serving.items()}
    times = {seat: seconds}
    return msgspec.structs.replace(
        old,
        serving=old.serving | {seat: serving},
        peak=old.peak | {seat: peak},
        load=old.load if parked else old.load | times,
        resume=old.resume | times if parked else old.resume,
        measured=True,
    )


def outgrown(old: Profile, seat: str, taken: int, room: int) -> Profile:
    """After a load that was stopped when it had taken so many bytes of the host: the next one
    reserves a quarter more than that, or once all the `room` that there is when every other model
    is out, if that is less: it may still fit. A load is never tried twice with the same."""
    before = old.peak.get(seat, {})
    most = max(taken, before.get("host", 0))
    wanted = most + most // 4
    if most < room:
        wanted = min(wanted, room)
    return msgspec.structs.replace(old, peak=old.peak | {seat: before | {"host": wanted}})


def estimate(spec: ModelSpec, hint: int, seats: Iterable[str]) -> Profile:
    """Before the first load: rather too much than too little."""
    process = _PROCESS.get(spec.engine, 200 * MIB)
    weights = 0 if spec.engine in ("echo", "openai") else _weights(spec)
    serving, peak, load, resume = {}, {}, {}, {}
    for seat in seats:
        if seat == "cpu":
            serving[seat] = {"host": hint or process + weights}
            peak[seat] = {"host": hint or process + weights + weights // 4}
        else:
            serving[seat] = {seat: hint or _CONTEXT + weights, "host": process}
            peak[seat] = {seat: hint or _CONTEXT + weights, "host": process + weights}
        load[seat] = 1.0 + weights * _READ_SECONDS
        resume[seat] = 0.2 + weights * (_READ_SECONDS if seat == "cpu" else _MOVE_SECONDS)
    parked = {"host": process}
    return Profile(serving=serving, peak=peak, parked=parked, load=load, resume=resume)


def _weights(spec: ModelSpec) -> int:
    """Bytes of the weights in memory, the context's included."""
    try:
        path = sources.is_cached(spec.source, cache_dir=spec.cache)
        if path is None:
            return _UNKNOWN
        if path.is_dir():
            return 2 * sum(file.stat().st_size for file in path.rglob("*") if file.is_file())
        size = path.stat().st_size
        if path.suffix == ".onnx":  # its weights may be in files beside it
            return sum(f.stat().st_size for f in path.parent.iterdir() if f.is_file())
        if spec.engine == "llamacpp":
            return size + _key_values(path, spec)
        return 2 * size
    except (OSError, HeadraceError):
        return _UNKNOWN  # its load will say what is wrong


def _key_values(path: Path, spec: ModelSpec) -> int:
    """Bytes of the keys and values of a whole context in 16 bits:
    2 (keys, values) x layers x width of all key heads x tokens x 2 bytes."""
    header = gguf_header.read(path)
    kind = header.get("general.architecture", "")

    def number(name: str, default: int) -> int:
        value = header.get(f"{kind}.{name}", default)
        return value if isinstance(value, int) else default

    heads = max(1, number("attention.head_count", 1))
    width = number("embedding_length", 0) // heads * number("attention.head_count_kv", heads)
    generator = spec.role is Role.GENERATOR
    tokens = spec.options.get("context" if generator else "max_tokens", 8192)
    return 2 * number("block_count", 0) * width * int(tokens) * 2


def _key(spec: ModelSpec) -> str:
    what = (spec.engine, spec.source, spec.role, sorted(spec.options.items()))
    return hashlib.sha256(msgspec.json.encode(what)).hexdigest()[:24]
