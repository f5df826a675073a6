from __future__ import annotations

import json
import logging
from collections.abc import Iterator

import pytest
from prometheus_client import generate_latest

from headrace.telemetry import (
    Families,
    Metrics,
    configure_logging,
    lasting,
    merge,
    of_process,
    render,
)


@pytest.fixture
def restored() -> Iterator[None]:
    loggers = [logging.getLogger(name) for name in ("headrace", "uvicorn")]
    before = [(log.handlers[:], log.level, log.propagate) for log in loggers]
    yield
    for log, (handlers, level, propagate) in zip(loggers, before, strict=True):
        log.handlers[:], log.propagate = handlers, propagate
        log.setLevel(level)


@pytest.mark.usefixtures("restored")
def test_json_lines_are_one_object_each(capsys: pytest.CaptureFixture[str]) -> None:
    configure_logging("DEBUG", json_lines=True)
    logging.getLogger("headrace.x").info("two\nlines and half a pair: \ud800")
    try:
        raise ValueError("deep")
    except ValueError:
        logging.getLogger("headrace.x").exception("failed")
    captured = capsys.readouterr()
    assert captured.out == ""
    first, second = (json.loads(line) for line in captured.err.splitlines())
    assert first["level"] == "info"
    assert first["message"].startswith("two\nlines")
    assert "ValueError: deep" in second["exception"]


@pytest.mark.usefixtures("restored")
def test_level_and_stream(capsys: pytest.CaptureFixture[str]) -> None:
    configure_logging("warning")
    configure_logging("warning")  # again: no line twice
    logging.getLogger("headrace.x").info("quiet")
    logging.getLogger("headrace.x").warning("loud")
    captured = capsys.readouterr()
    assert captured.out == ""
    assert "quiet" not in captured.err
    assert captured.err.count("loud") == 1


def test_applications_do_not_share_counters() -> None:
    one, other = Metrics(), Metrics()
    one.refused.labels("overloaded").inc()
    assert b'code="overloaded"' in render(one.families())
    assert b'code="overloaded"' not in render(other.families())


def lines(families: Families) -> set[str]:
    return set(render(families).decode().splitlines())


def test_processes_are_summed() -> None:
    one, other = Metrics(), Metrics()
    for metrics, times in ((one, 2), (other, 3)):
        for _ in range(times):
            metrics.refused.labels("overloaded").inc()
            metrics.stage_seconds.labels("embed").observe(0.02)
        metrics.in_progress.set(times)
    other.refused.labels("unauthorized").inc()
    parts = [of_process(m.families(), n) for m, n in ((one, "1"), (other, "2"))]
    found = lines(merge(parts))
    assert 'headrace_http_requests_refused_total{code="overloaded"} 5.0' in found
    assert 'headrace_http_requests_refused_total{code="unauthorized"} 1.0' in found
    assert 'headrace_stage_seconds_count{stage="embed"} 5.0' in found
    assert 'headrace_stage_seconds_bucket{le="0.025",stage="embed"} 5.0' in found
    assert 'headrace_stage_seconds_bucket{le="0.01",stage="embed"} 0.0' in found
    assert "headrace_http_requests_in_progress 5.0" in found
    assert sum(line.startswith("process_open_fds{") for line in found) == 2
    created = [s for f in merge(parts) for s in f.samples if s.name.endswith("_refused_created")]
    assert min(s.value for s in created) > 1e9, "times are not summed"
    assert max(s.value for s in created) < 3e9, "times are not summed"


def test_one_process_reads_as_prometheus_itself_writes_it() -> None:
    metrics = Metrics()
    metrics.refused.labels("overloaded").inc()
    metrics.stage_seconds.labels("embed").observe(0.02)
    ours = [line for line in render(metrics.families()).splitlines() if b"process_" not in line]
    theirs = [
        line for line in generate_latest(metrics.registry).splitlines() if b"process_" not in line
    ]
    assert ours == theirs


def test_only_what_is_counted_outlives_its_process() -> None:
    metrics = Metrics()
    metrics.refused.labels("overloaded").inc()
    metrics.in_progress.set(4)
    kept = {family.name for family in lasting(metrics.families())}
    assert "headrace_http_requests_refused" in kept
    assert "headrace_http_requests_in_progress" not in kept
    assert not any(name.startswith("process_") for name in kept)
