"""What is decided before anything is done."""

from __future__ import annotations

from typing import Any

import pytest

from headrace.config.answering import AnswerOptions, RetrievalOptions
from headrace.config.model_options import DefaultModels, ModelOptions
from headrace.config.options import CollectionOptions, Config
from headrace.errors import BadRequest, UnknownModel
from headrace.pipeline.language import language
from headrace.pipeline.plan import AnswerRequest, make_plan
from headrace.types import Filter, Message, Role


def config(**more: Any) -> Config:
    return Config(
        models={
            "english": ModelOptions(role=Role.GENERATOR, engine="echo", languages=("en",)),
            "any": ModelOptions(role=Role.GENERATOR, engine="echo"),
        },
        defaults=DefaultModels(generator="english"),
        **more,
    )


def request(question: str = "How high is the fine?", **more: Any) -> AnswerRequest:
    return AnswerRequest(collection="town", question=question, where=Filter(), **more)


@pytest.mark.parametrize(
    ("text", "code"),
    [
        ("How high is the fine?", "en"),
        ("罚款多少？", "zh"),
        ("O-RAN 的 E2 接口是什么？", "zh"),
        ("罰金はいくらですか", "ja"),
        ("벌금은 얼마입니까", "ko"),
        ("Каков размер штрафа?", "ru"),
        ("123", "en"),
    ],
)
def test_language_by_script(text: str, code: str) -> None:
    assert language(text) == code


def test_the_question_s_language_decides_whether_the_generator_writes() -> None:
    assert make_plan(config(), request()).generator == "english"
    plan = make_plan(config(), request("罚款多少？"))
    assert plan.generator is None
    assert any("'english' writes en" in reason for reason in plan.skipped)
    assert make_plan(config(), request("罚款多少？", generator="any")).generator == "any"


def test_quotations_alone_by_request_or_by_configuration() -> None:
    assert make_plan(config(), request(generate="none")).generator is None
    quiet = config(answer=AnswerOptions(generate="none"))
    assert make_plan(quiet, request()).generator is None
    assert make_plan(quiet, request(generate="auto")).generator == "english"
    nobody = config().model_copy(update={"defaults": DefaultModels(generator=None)})
    assert make_plan(nobody, request()).generator is None


def test_the_request_goes_before_the_collection_and_that_before_the_rest() -> None:
    town = CollectionOptions(retrieval=RetrievalOptions(hits=7), answer=AnswerOptions(strict=True))
    made = config(collections={"town": town})
    assert make_plan(made, request()).hits == 7
    assert make_plan(made, request()).strict
    assert make_plan(made, request(hits=2, strict=False)).hits == 2
    assert not make_plan(made, request(hits=2, strict=False)).strict


def test_effort_by_request_by_configuration_and_by_kind() -> None:
    compare = "Which is older, Alpha or Beta?"
    assert make_plan(config(), request()).effort == "balanced"
    assert make_plan(config(), request(compare)).effort == "deep"
    assert make_plan(config(), request("第四十四条")).effort == "fast"
    assert make_plan(config(), request(compare, effort="fast")).effort == "fast"
    calm = config(answer=AnswerOptions(effort="balanced"))
    assert make_plan(calm, request(compare)).effort == "balanced"
    assert make_plan(calm, request(compare, effort="auto")).effort == "deep"


def test_what_an_effort_means() -> None:
    models = {"order": ModelOptions(role=Role.RERANKER, engine="echo")}
    made = Config(models=models, defaults=DefaultModels(reranker="order"))
    fast, balanced, deep = (
        make_plan(made, request(effort=effort)) for effort in ("fast", "balanced", "deep")
    )
    assert (fast.reranker, balanced.reranker, deep.reranker) == (None, "order", "order")
    assert any("effort is fast" in reason for reason in fast.skipped)
    assert deep.hits == 2 * balanced.hits == 2 * fast.hits
    assert make_plan(made, request(effort="deep", hits=3)).hits == 3


def test_only_a_capable_generator_may_rewrite_and_only_if_it_may() -> None:
    able = ModelOptions(role=Role.GENERATOR, engine="echo", capable=True)
    made = Config(models={"able": able}, defaults=DefaultModels(generator="able"))
    assert make_plan(made, request()).helper == "able"
    assert make_plan(made, request(generator="smollm2")).helper is None
    for rewrite in ("rules", "off"):
        quiet = made.model_copy(update={"answer": AnswerOptions(rewrite=rewrite)})
        assert make_plan(quiet, request()).helper is None


def test_a_follow_up_is_looked_up_as_it_is_where_rewriting_is_off() -> None:
    history = (Message("user", "What is the callback receiver?"),)
    assert "callback" in make_plan(config(), request("Why?", history=history)).lookup
    off = config(answer=AnswerOptions(rewrite="off"))
    assert make_plan(off, request("Why?", history=history)).lookup == "Why?"


def test_what_is_refused() -> None:
    with pytest.raises(BadRequest, match="empty"):
        make_plan(config(), request("\n"))
    with pytest.raises(BadRequest, match="20000"):
        make_plan(config(), request("x" * 20_001))
    with pytest.raises(UnknownModel, match="any, english"):
        make_plan(config(), request(generator="e5-small"))
