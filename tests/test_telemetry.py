from __future__ import annotations

import json
import logging
from collections.abc import Iterator

import pytest

from headrace.telemetry import Metrics, configure_logging


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
    assert b'code="overloaded"' in one.render()
    assert b'code="overloaded"' not in other.render()
