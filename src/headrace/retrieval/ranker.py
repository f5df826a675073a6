"""What `headrace eval tune-retrieval` fitted for one collection: `ranker.json` in its folder.

The file holds numbers and names only. It is read whole or not at all: one that is damaged, of
another version, of another embedder, or that asks for features this program does not compute is
refused with a reason, and the collection is searched as if it were not there.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Sequence
from pathlib import Path
from threading import Lock
from typing import Annotated

import msgspec
from msgspec import Meta

from headrace.config.answering import RetrievalOptions
from headrace.errors import ConfigError
from headrace.retrieval.database import translated
from headrace.retrieval.ensemble import Ensemble, Rows, Scores
from headrace.retrieval.features import NAMES, RERANK
from headrace.retrieval.files import replace_file
from headrace.retrieval.past import Past, PastQuestions
from headrace.retrieval.snapshot import CollectionSnapshot

FILE = "ranker.json"
FORMAT = 1
"""Raise it when the file's form or the meaning of a feature changes."""

MAX_BYTES = 64 * 1024 * 1024
"""10,000 past questions of 1,024 dimensions are half of it."""

_AGAIN = "fit it again with `headrace eval tune-retrieval`, or remove it with `--reset`"


def digest(question: str, salt: bytes = b"") -> bytes:
    """8 bytes, the same for texts that differ in white space alone."""
    return hashlib.blake2b("".join(question.split()).encode(), digest_size=8, salt=salt).digest()


class Fitted(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """`embedder` is the fingerprint of the model whose cosines the numbers belong to. What is
    `None` did not pay and stays as configured; `reranked` scores hits that `reranker` scored, with
    that score as one more feature. `taught` are the `digest`s of the questions it was fitted to,
    `past` these questions themselves, if it remembers them; `measured` is what cross-validation
    found."""

    format: int
    embedder: str
    made: str = ""
    questions: int = 0
    dense_weight: Annotated[float, Meta(ge=0, le=1)] | None = None
    document_weight: Annotated[float, Meta(ge=0, le=1)] | None = None
    depth: Annotated[int, Meta(ge=1, le=2000)] | None = None
    features: tuple[str, ...] = ()
    ranker: Ensemble | None = None
    reranker: str = ""
    reranked: Ensemble | None = None
    taught: tuple[bytes, ...] = ()
    past: PastQuestions | None = None
    measured: dict[str, float] = {}


class Ranker:
    """A `Fitted` that fits this program, ready to score. `id` names its contents."""

    def __init__(self, fitted: Fitted, id_: str = "") -> None:
        """Raises `ConfigError` if it does not fit."""
        if problem := _problem(fitted):
            raise ConfigError(f"the fitted ranker is refused: {problem}; {_AGAIN}")
        self.fitted = fitted
        self.id = id_
        self._columns = [NAMES.index(name) for name in fitted.features]
        self._first = fitted.ranker.compiled() if fitted.ranker else None
        self._reranked = fitted.reranked.compiled() if fitted.reranked else None
        self._past: tuple[int, Past] | None = None

    @property
    def ranks(self) -> bool:
        """Whether it orders hits itself, beyond setting weights."""
        return self._first is not None

    def reranks(self, reranker: str | None) -> bool:
        """Whether it has learned what this reranker's scores are worth."""
        return self._reranked is not None and reranker == self.fitted.reranker

    def past(
        self,
        snapshot: CollectionSnapshot,
        places: Callable[[Sequence[bytes], CollectionSnapshot], dict[bytes, list[int]]],
    ) -> Past | None:
        """The questions that it remembers, if any, with their passages in this snapshot (which is
        looked up once for every generation: 12 ms for 1,000 questions)."""
        given, held = self.fitted.past, self._past
        if given is None:
            return None
        if held is None or held[0] != snapshot.generation:
            found = places([key for keys in given.passages for key in keys], snapshot)
            answers = [
                [chunk for key in keys for chunk in found.get(key, ())] for keys in given.passages
            ]
            past = Past(given.unit_vectors(), answers, snapshot.documents)
            held = self._past = snapshot.generation, past
        return held[1]

    def options(self, options: RetrievalOptions) -> RetrievalOptions:
        """The options with what was fitted in their place."""
        fitted = self.fitted
        found = {name: getattr(fitted, name) for name in TUNABLE}
        return options.model_copy(update={k: v for k, v in found.items() if v is not None})

    def scores(self, rows: Rows) -> Scores:
        """float32 [n] for features float32 [n, len(NAMES)]."""
        assert self._first is not None
        return self._first(rows[:, self._columns])

    def reranked(self, rows: Rows) -> Scores:
        """float32 [n] for features float32 [n, len(NAMES) + 1], the reranker's score the last."""
        assert self._reranked is not None
        return self._reranked(rows[:, [*self._columns, len(NAMES)]])


TUNABLE = ("dense_weight", "document_weight", "depth")


def _problem(fitted: Fitted) -> str:
    if fitted.format != FORMAT:
        return f"its format is {fitted.format}, this program reads {FORMAT}"
    unknown = [name for name in fitted.features if name not in NAMES]
    if unknown:
        return f"this program does not compute {', '.join(unknown)}"
    if len(set(fitted.features)) != len(fitted.features):
        return "a feature is named twice"
    count = len(fitted.features)
    for ensemble, width in ((fitted.ranker, count), (fitted.reranked, count + len(RERANK))):
        if ensemble is not None and (problem := ensemble.problem(width)):
            return problem
    if fitted.reranked is not None and not fitted.reranker:
        return "it does not say whose scores it reranks with"
    if fitted.past is not None and (problem := fitted.past.problem()):
        return problem
    return ""


def decode(raw: bytes) -> Ranker:
    """Raises `ConfigError`."""
    if len(raw) > MAX_BYTES:
        raise ConfigError(
            f"the fitted ranker is refused: it is larger than {MAX_BYTES} bytes; {_AGAIN}"
        )
    try:
        fitted = msgspec.json.decode(raw, type=Fitted)
    except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError) as error:
        raise ConfigError(f"the fitted ranker is refused: {error}; {_AGAIN}") from error
    return Ranker(fitted, hashlib.sha256(raw).hexdigest()[:12])


class RankerFile:
    """The file of one collection. Thread-safe; a change by any process is seen at the next read,
    which costs one `stat`."""

    def __init__(self, folder: Path) -> None:
        self.path = folder / FILE
        self._lock = Lock()
        self._seen: tuple[int, int, int] | None = None
        self._held: Ranker | ConfigError | None = None

    def read(self, embedder: str, dimensions: int | None = None) -> Ranker | None:
        """What was fitted, or None if nothing was. Raises `ConfigError` if it cannot be used, or
        not with vectors of this embedder (a fingerprint) and size."""
        with self._lock:
            self._refresh()
            held = self._held
        if isinstance(held, ConfigError):
            raise ConfigError(held.message)
        if held is not None and held.fitted.embedder != embedder:
            raise ConfigError(
                "the fitted ranker is refused: it was fitted for vectors of another embedder "
                f"({held.fitted.embedder}, now {embedder}); {_AGAIN}"
            )
        past = None if held is None else held.fitted.past
        if past is not None and dimensions not in (None, past.dimensions):
            raise ConfigError(
                f"the fitted ranker is refused: its past questions have {past.dimensions} "
                f"dimensions, the collection's vectors {dimensions}; {_AGAIN}"
            )
        return held

    def _refresh(self) -> None:
        try:
            status = self.path.stat()
        except FileNotFoundError:
            self._seen = self._held = None
            return
        except OSError as error:
            self._seen, self._held = None, ConfigError(f"{self.path}: {error.strerror}")
            return
        seen = (status.st_ino, status.st_size, status.st_mtime_ns)
        if seen == self._seen:
            return
        try:
            with self.path.open("rb") as file:
                self._held = decode(file.read(MAX_BYTES + 1))
        except ConfigError as error:
            self._held = error
        except OSError as error:
            self._held = ConfigError(f"{self.path}: {error.strerror}")
        self._seen = seen

    def write(self, fitted: Fitted) -> None:
        """Put it in the old one's place, whole or not at all. Raises `ConfigError` for what no
        reader would take, `StorageError` if it cannot be written."""
        Ranker(fitted)
        raw = msgspec.json.format(msgspec.json.encode(fitted), indent=1)
        if len(raw) > MAX_BYTES:
            raise ConfigError(f"the fitted ranker would take {len(raw)} of {MAX_BYTES} bytes")
        with translated(self.path):
            replace_file(self.path, raw)

    def remove(self) -> bool:
        """Whether there was one."""
        with translated(self.path):
            there = self.path.exists()
            self.path.unlink(missing_ok=True)
        return there
