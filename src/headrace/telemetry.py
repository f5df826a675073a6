"""What a running Headrace tells its operator: Prometheus metrics and log lines.

Metrics live in an object with a registry of its own, so that two applications in one process (tests
do this) never share a counter. Label values come from the configuration and the route table, never
from what callers send.

Several processes of one server count for themselves; whoever is asked for the metrics gets the sum,
made of `Family` values that travel between processes.
"""

from __future__ import annotations

import logging
import sys
from collections.abc import Iterable, Iterator, Mapping
from datetime import UTC, datetime
from typing import TypeAlias

import msgspec
from prometheus_client import (
    CollectorRegistry,
    Counter,
    Gauge,
    Histogram,
    ProcessCollector,
    generate_latest,
)
from prometheus_client.metrics_core import Metric
from prometheus_client.registry import Collector

_SECONDS = (0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30, 60, 120)


class Metrics:
    """Every metric, declared once. Durations are in seconds."""

    content_type = "text/plain; version=0.0.4; charset=utf-8"

    def __init__(self) -> None:
        self.registry = CollectorRegistry()
        ProcessCollector(registry=self.registry)
        self._of_http()
        self._of_answers()
        self._of_models()

    def _of_http(self) -> None:
        self.requests = Counter(
            "headrace_http_requests",
            "HTTP requests answered; status 499 is a client that went away.",
            ["method", "route", "status"],
            registry=self.registry,
        )
        self.request_seconds = self._seconds(
            "headrace_http_request_seconds",
            "From the first byte of a request to the last byte of its response.",
            "route",
        )
        self.first_byte_seconds = self._seconds(
            "headrace_http_first_byte_seconds",
            "From the first byte of a request to the first byte of its response's body.",
            "route",
        )
        self.in_progress = Gauge(
            "headrace_http_requests_in_progress", "Requests admitted now.", registry=self.registry
        )
        self.refused = Counter(
            "headrace_http_requests_refused",
            "Requests turned away at the door, by error code.",
            ["code"],
            registry=self.registry,
        )

    def _of_answers(self) -> None:
        self.stage_seconds = self._seconds(
            "headrace_stage_seconds", "Stages of the path of a question.", "stage"
        )
        self.answers = Counter(
            "headrace_answers",
            "Answers by outcome: answered, refused (the documents hold no answer), failed, "
            "cancelled.",
            ["outcome"],
            registry=self.registry,
        )
        self.sentences_unsupported = Counter(
            "headrace_sentences_unsupported",
            "Sentences of answers that the sources do not support.",
            registry=self.registry,
        )

        self._of_caches()

    def _of_caches(self) -> None:
        self.cache_lookups = Counter(
            "headrace_cache_lookups",
            "Looks into a cache (answers, embeddings) by result: exact, semantic, shared or "
            "hit, or miss.",
            ["cache", "result"],
            registry=self.registry,
        )
        self.cache_saved_seconds = Counter(
            "headrace_cache_saved_seconds",
            "What its hits took when they were made, less what the hits took.",
            ["cache"],
            registry=self.registry,
        )
        self.cache_bytes = Gauge(
            "headrace_cache_bytes", "Memory that a cache takes.", ["cache"], registry=self.registry
        )
        self.cache_entries = Gauge(
            "headrace_cache_entries", "Entries of a cache.", ["cache"], registry=self.registry
        )

    def _of_models(self) -> None:
        self.tokens = Counter(
            "headrace_tokens",
            "Tokens read (in) and written (out), as counted by the models.",
            ["model", "direction"],
            registry=self.registry,
        )
        self.model_pending = Gauge(
            "headrace_model_requests_pending",
            "Calls of a model that wait or run now.",
            ["model"],
            registry=self.registry,
        )
        self.model_seconds = self._seconds(
            "headrace_model_seconds",
            "Calls of a model, waiting included, by outcome: ok, cancelled or an error's code.",
            "model",
            "verb",
            "outcome",
        )

    def _seconds(self, name: str, help_text: str, *labels: str) -> Histogram:
        return Histogram(name, help_text, labels, buckets=_SECONDS, registry=self.registry)

    def families(self) -> Families:
        """Every metric as it is now."""
        return tuple(
            Family(
                metric.name,
                metric.documentation,
                metric.type,
                tuple(Sample(s.name, s.labels, s.value) for s in metric.samples),
            )
            for metric in self.registry.collect()
        )


class Sample(msgspec.Struct, frozen=True, array_like=True):
    """One line of the text format. `name` is the family's with its suffix (`_total`, `_bucket`)."""

    name: str
    labels: dict[str, str]
    value: float


class Family(msgspec.Struct, frozen=True, array_like=True):
    """A metric with all its label values. `type` is Prometheus' word: counter, gauge, histogram."""

    name: str
    help: str
    type: str
    samples: tuple[Sample, ...]


Families: TypeAlias = tuple[Family, ...]

_ADDABLE = ("counter", "histogram")


def merge(processes: Iterable[Families]) -> Families:
    """The sum over processes, sample by sample; of the times at which a series was created, the
    first. Gauges are summed too: ours say how much there is now."""
    found: dict[str, tuple[Family, dict[_Series, Sample]]] = {}
    for families in processes:
        for family in families:
            _, into = found.setdefault(family.name, (family, {}))
            for sample in family.samples:
                series = (sample.name, tuple(sorted(sample.labels.items())))
                known = into.get(series)
                into[series] = sample if known is None else _together(known, sample)
    return tuple(
        msgspec.structs.replace(family, samples=tuple(samples.values()))
        for family, samples in found.values()
    )


_Series: TypeAlias = tuple[str, tuple[tuple[str, str], ...]]


def _together(one: Sample, other: Sample) -> Sample:
    first = one.name.endswith("_created")
    value = min(one.value, other.value) if first else one.value + other.value
    return msgspec.structs.replace(one, value=value)


def of_process(families: Families, process: str) -> Families:
    """What an operating system counts by process (`process_...`) gets the label `process`, so that
    it is not summed: one that grows without bound must stand out."""
    return tuple(
        msgspec.structs.replace(
            family,
            samples=tuple(
                msgspec.structs.replace(sample, labels={**sample.labels, "process": process})
                for sample in family.samples
            ),
        )
        if family.name.startswith("process_")
        else family
        for family in families
    )


def lasting(families: Families) -> Families:
    """What still counts when its process is gone: counters and histograms of ours. Without it the
    sum would fall, which Prometheus takes for a restart and counts a second time."""
    return tuple(
        family
        for family in families
        if family.type in _ADDABLE and not family.name.startswith("process_")
    )


def render(families: Families) -> bytes:
    """Prometheus' text format."""
    return generate_latest(_Collected(families))


class _Collected(Collector):
    def __init__(self, families: Families) -> None:
        self._families = families

    def collect(self) -> Iterator[Metric]:
        for family in self._families:
            metric = Metric(family.name, family.help, family.type)
            for sample in family.samples:
                metric.add_sample(sample.name, sample.labels, sample.value)
            yield metric


Values: TypeAlias = Iterable[tuple[Mapping[str, str], float]]
"""A value for each combination of labels."""


def gauge(name: str, help_text: str, values: Values) -> Family:
    """A gauge whose values are known elsewhere."""
    samples = tuple(Sample(name, dict(labels), value) for labels, value in values)
    return Family(name, help_text, "gauge", samples)


def counter(name: str, help_text: str, values: Values) -> Family:
    """A counter whose values are known elsewhere."""
    samples = tuple(Sample(f"{name}_total", dict(labels), value) for labels, value in values)
    return Family(name, help_text, "counter", samples)


class JsonLines(logging.Formatter):
    """One JSON object per record, for log collectors."""

    def format(self, record: logging.LogRecord) -> str:
        line = {
            "time": datetime.fromtimestamp(record.created, UTC).isoformat(timespec="milliseconds"),
            "level": record.levelname.lower(),
            "logger": record.name,
            "message": record.getMessage(),
        }
        if record.exc_info:
            line["exception"] = self.formatException(record.exc_info)
        clean = {key: text.encode("utf-8", "replace").decode() for key, text in line.items()}
        return msgspec.json.encode(clean).decode()


def configure_logging(level: str = "INFO", *, json_lines: bool = False) -> None:
    """Send the program's log to standard error. Standard output stays free for answers."""
    handler = logging.StreamHandler(sys.stderr)
    handler.setFormatter(
        JsonLines()
        if json_lines
        else logging.Formatter("%(asctime)s %(levelname)s %(name)s: %(message)s")
    )
    for name in ("headrace", "uvicorn"):  # uvicorn reports the defects that reach it
        logger = logging.getLogger(name)
        logger.handlers[:] = [handler]
        logger.setLevel(level.upper() if name == "headrace" else logging.WARNING)
        logger.propagate = False
