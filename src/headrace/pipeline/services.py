"""What the pipeline and everything above it work with; made once, in the composition root."""

from __future__ import annotations

from dataclasses import dataclass, field

from headrace.config.options import Config
from headrace.ingest.jobs import Jobs
from headrace.pipeline.kept_answers import KeptAnswers
from headrace.pipeline.shared_runs import SharedRuns
from headrace.retrieval.collections import Collections
from headrace.serving.control import Control
from headrace.serving.embedding_cache import QueryVectors
from headrace.serving.models import Models
from headrace.serving.paces import Paces
from headrace.telemetry import Metrics


@dataclass(frozen=True)
class Services:
    """The parts of a running Headrace. `config_version` identifies the configuration in every
    answer; `metrics` counts what passes through `models` and what `http` serves; `control` asks the
    host, which may be another process, what only the host knows; `paces` remembers what took how
    long, `kept` which answers were given, `runs` which are being given, `vectors` those of
    queries."""

    config: Config
    config_version: str
    models: Models
    collections: Collections
    jobs: Jobs
    metrics: Metrics
    control: Control
    paces: Paces = field(default_factory=Paces)
    kept: KeptAnswers = field(default_factory=KeptAnswers)
    runs: SharedRuns = field(default_factory=SharedRuns)
    vectors: QueryVectors = field(default_factory=QueryVectors)
