from __future__ import annotations

import contextlib

import pytest

from headrace.config.options import Config
from headrace.errors import PromptTooLong, UnknownModel
from headrace.serving.catalogue import model_specs
from headrace.serving.local import LocalModels
from headrace.serving.measured import MeasuredModels
from headrace.telemetry import Metrics, render
from headrace.types import GenerateParams, Message


@pytest.fixture
def metrics() -> Metrics:
    return Metrics()


@pytest.fixture
def models(fast: Config, metrics: Metrics) -> MeasuredModels:
    return MeasuredModels(LocalModels(model_specs(fast)), metrics)


def value(metrics: Metrics, name: str, **labels: str) -> float | None:
    return metrics.registry.get_sample_value(name, labels)


async def test_calls_and_tokens_are_counted(models: MeasuredModels, metrics: Metrics) -> None:
    async for _ in models.generate(
        "echo-generator", [Message("user", "one two three")], GenerateParams()
    ):
        assert value(metrics, "headrace_model_requests_pending", model="echo-generator") == 1
    assert value(metrics, "headrace_model_requests_pending", model="echo-generator") == 0
    assert value(metrics, "headrace_tokens_total", model="echo-generator", direction="in") == 3
    assert value(metrics, "headrace_tokens_total", model="echo-generator", direction="out") == 3
    await models.embed("echo-embedder", ["x"], "query")
    done = {"model": "echo-embedder", "verb": "embed", "outcome": "ok"}
    assert value(metrics, "headrace_model_seconds_count", **done) == 1


async def test_outcomes_are_told_apart(models: MeasuredModels, metrics: Metrics) -> None:
    long = [Message("user", "word " * 9000)]
    with pytest.raises(PromptTooLong):
        async for _ in models.generate("echo-generator", long, GenerateParams()):
            pass
    generated = models.generate("echo-generator", [Message("user", "a b c")], GenerateParams())
    async with contextlib.aclosing(generated) as deltas:
        await anext(deltas)
    for outcome in ("context_length_exceeded", "cancelled"):
        labels = {"model": "echo-generator", "verb": "generate", "outcome": outcome}
        assert value(metrics, "headrace_model_seconds_count", **labels) == 1
    assert value(metrics, "headrace_model_requests_pending", model="echo-generator") == 0


async def test_unknown_names_do_not_become_labels(models: MeasuredModels, metrics: Metrics) -> None:
    with pytest.raises(UnknownModel):
        await models.score("invented", "q", ["t"])
    assert b"invented" not in render(metrics.families())
