"""Whether the passages found can answer a question at all.

Two judges. A collection that was calibrated (`headrace eval calibrate`) has its own weights and its
own threshold. Any other is judged by a rule: a passage shares enough of the question's terms, or is
near enough to it.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

from headrace.config.model_options import ModelOptions
from headrace.pipeline.calibration import Calibration
from headrace.pipeline.evidence import Passage
from headrace.pipeline.support import Measures, measures
from headrace.retrieval.base import Snapshot

SHARED = 0.3
"""Share of the question's terms, weighted by rarity, that a passage must have. With it and a
cosine of 0.88 of the default embedder, over 58,594 articles of law: 299 of 300 lay questions pass,
none of 100 questions on radio networks do, and 2 of 16 on everyday matters."""


class Support(NamedTuple):
    """How much support there is, and from how much on a question is answered. By the rule, `value`
    is what was found in relation to what is enough, so the threshold is 1; calibrated, it is a
    probability."""

    value: float
    threshold: float
    calibrated: bool = False

    @property
    def enough(self) -> bool:
        return self.value >= self.threshold

    def __str__(self) -> str:
        by = "calibrated" if self.calibrated else "by rule"
        return f"support {self.value:.3f}, threshold {self.threshold:.3f} {by}"


def judge(
    question: str,
    sources: Sequence[Passage],
    snapshot: Snapshot,
    embedder: ModelOptions | None,
    calibration: Calibration | None = None,
    least: float | None = None,
) -> Support:
    """The support that the best passages give. `least` takes the place of the threshold; without a
    passage there is no support, whatever it is. An `embedder` that the configuration does not have
    (any more) says nothing of nearness. Blocks."""
    if not sources:
        return Support(0.0, 1.0)
    found = measures(question, sources, snapshot)
    rule = by_rule(found, embedder)
    if calibration is None:
        return Support(rule, 1.0 if least is None else least)
    threshold = calibration.threshold if least is None else least
    hopeless = calibration.within_rule and rule < 1.0
    return Support(0.0 if hopeless else calibration.value(found), threshold, calibrated=True)


def by_rule(found: Measures, embedder: ModelOptions | None) -> float:
    """The greater of two shares of what is enough: of common terms, and of nearness. In another
    language than the question's a passage shares no terms, and all vectors lie further apart, so
    there less nearness is enough."""
    enough = None
    if embedder is not None:
        enough = embedder.near_cosine_across if found.foreign else embedder.near_cosine
    if enough is None:
        return found.covered / SHARED
    near = found.near / enough if enough > 0 else float(found.near >= enough)
    return max(found.covered / SHARED, near)
