"""A collection's own judge of support: weights and a threshold, kept in the collection's folder.

`headrace eval calibrate` fits it (`headrace.evaluation.calibrating`). It belongs to the embedder
and the reranker whose scores it was fitted to, and is not used with others.
"""

from __future__ import annotations

import hashlib
import math
from functools import lru_cache
from pathlib import Path
from typing import NamedTuple

import msgspec

from headrace.pipeline.support import Measures
from headrace.retrieval import ranker
from headrace.retrieval.database import translated
from headrace.retrieval.files import replace_file

FILE = "calibration.json"
VERSION = 1
"""Of the file; raise it when a measure changes its meaning."""


class Quality(msgspec.Struct, frozen=True):
    """What the calibration is worth on questions that it was not fitted to (cross-validation).
    `auc`: the probability that a question with an answer has more support than one without;
    `auc_rule` the same without calibration. `refused_answerable` and `refused_unanswerable` are
    shares at the threshold."""

    answerable: int
    unanswerable: int
    auc: float
    auc_rule: float
    refused_answerable: float
    refused_unanswerable: float


class Calibration(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """Support is the logistic function of `bias` and the measures by their `weights`; none
    `within_rule`, if the rule for any collection sees too little."""

    version: int
    embedder: str  # fingerprint
    reranker: str | None
    weights: dict[str, float]
    bias: float
    within_rule: bool
    threshold: float
    quality: Quality
    suite: str
    made: str

    def value(self, found: Measures) -> float:
        """In [0, 1]."""
        total = self.bias + sum(
            weight * getattr(found, name) for name, weight in self.weights.items()
        )
        return probability(total)


def probability(log_odds: float) -> float:
    return 1.0 / (1.0 + math.exp(-max(-60.0, min(60.0, log_odds))))


class Kept(NamedTuple):
    """The calibration to use, if there is one, and else why the one that is there is not used."""

    calibration: Calibration | None = None
    problem: str = ""


def load(folder: Path, embedder: str, reranker: str | None) -> Kept:
    """What a collection's folder holds for an embedder (its fingerprint) and a reranker (its name).
    Never raises: a question is then judged by the rule, and the answer says why. Blocks."""
    try:
        stat = (folder / FILE).stat()
        kept = _read(folder / FILE, stat.st_ino, stat.st_mtime_ns, stat.st_size)
    except FileNotFoundError:
        return Kept()
    except OSError as error:
        return Kept(problem=f"calibration: cannot be read ({error.strerror})")
    if kept is None:
        return Kept(problem="calibration: the file is damaged or of another version; make it anew")
    if kept.embedder != embedder:
        return Kept(problem="calibration: made with another embedder; make it anew")
    if kept.reranker != reranker:
        was, now = kept.reranker or "no reranker", reranker or "no reranker"
        return Kept(problem=f"calibration: made with {was}, not {now}; make it anew")
    return Kept(kept)


@lru_cache(maxsize=256)
def _read(path: Path, inode: int, changed: int, size: int) -> Calibration | None:
    """The file with these marks; `None` if it holds no calibration of this version."""
    try:
        found = msgspec.json.decode(path.read_bytes(), type=Calibration)
    except msgspec.MsgspecError:
        return None
    known = Measures.__struct_fields__
    return found if found.version == VERSION and found.weights.keys() <= set(known) else None


def save(folder: Path, calibration: Calibration) -> Path:
    """Put it into a collection's folder, whole or not at all. Raises `StorageError`. Blocks."""
    target = folder / FILE
    with translated(target):
        replace_file(target, msgspec.json.format(msgspec.json.encode(calibration)) + b"\n")
    return target


def fitted(folder: Path) -> str:
    """Stands for what was fitted for a collection, its calibration and its ranker; empty if nothing
    was. Answers depend on it, though the collection's generation does not. Blocks."""
    parts = []
    for name in (FILE, ranker.FILE):
        try:
            stat = (folder / name).stat()
            parts.append(_digest(folder / name, stat.st_ino, stat.st_mtime_ns, stat.st_size))
        except OSError:  # whoever would use it says so
            parts.append("")
    return "-".join(parts) if any(parts) else ""


@lru_cache(maxsize=256)
def _digest(path: Path, inode: int, changed: int, size: int) -> str:
    return hashlib.blake2b(path.read_bytes(), digest_size=8).hexdigest()
