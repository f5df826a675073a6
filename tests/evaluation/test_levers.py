"""Levers change what they say, where they apply."""

from __future__ import annotations

from pathlib import Path

import pytest

from headrace.config.edit import with_values
from headrace.config.load import read_text
from headrace.config.options import Config
from headrace.evaluation.levers import LEVERS, Change, others, scene

WHOLE = """
models:
  big: {role: generator, engine: echo}
  able: {role: generator, engine: llamacpp, source: 'file:/x', capable: true}
  order: {role: reranker, engine: onnx, source: 'file:/x', precision: float32}
defaults: {generator: able, reranker: order}
"""


def made(text: str) -> Config:
    return read_text(text, "f.yaml", Path("/"))


def at(config: Config, path: tuple[str, ...]) -> object:
    found = config.model_dump(mode="json")
    for name in path:
        found = found[name]
    return found


def changes(config: Config, lever: str, collection: str = "c") -> list[Change]:
    (found,) = (one for one in LEVERS if one.name == lever)
    return list(found.changes(scene(config, collection, tuple(config.models))))


@pytest.mark.parametrize("lever", [one.name for one in LEVERS])
def test_what_a_lever_changes_can_be_loaded_and_is_another_value(lever: str) -> None:
    for change in changes(made(WHOLE), lever):
        after = made(with_values(WHOLE, change.values))
        changed = [p for p in change.values if at(after, p) != at(made(WHOLE), p)]
        assert len(changed) == 1
        assert at(after, changed[0]) == change.values[changed[0]]
        assert ".".join(changed[0]) in change.says
        new = change.values[changed[0]]
        assert change.says.endswith("none" if new is None else str(new))


def test_every_lever_has_a_change() -> None:
    assert {one.name for one in LEVERS if changes(made(WHOLE), one.name)} == {
        one.name for one in LEVERS
    }


def test_levers_of_a_generator_do_not_apply_where_none_writes() -> None:
    config = made("answer: {generate: none}\n")
    for lever in ("token cap", "stop rule", "context size", "model or engine", "attention"):
        assert not changes(config, lever)
    assert changes(config, "passages")


def test_a_collection_with_a_section_of_its_own_is_changed_there() -> None:
    config = made("collections:\n  c:\n    answer: {max_tokens: 100}\n")
    (cap, *_) = changes(config, "token cap")
    assert list(cap.values) == [("collections", "c", "answer", "max_tokens")]
    (cap, *_) = changes(config, "token cap", "other")
    assert list(cap.values) == [("answer", "max_tokens")]


def test_the_boldest_change_comes_first_and_none_goes_up() -> None:
    caps = [next(iter(c.values.values())) for c in changes(Config(), "token cap")]
    assert caps == sorted(caps)
    assert max(caps) < Config().answer.max_tokens
    low = made("answer: {max_tokens: 10, prompt_tokens: 128}\nretrieval: {hits: 1}\n")
    for lever in ("token cap", "context size", "passages"):
        assert not changes(low, lever)


def test_what_the_questions_say_themselves_is_no_lever() -> None:
    config = made(WHOLE)
    at = scene(config, "c", tuple(config.models), {"max_tokens": 9, "hits": 3})
    named = {one.name: list(one.effective(at)) for one in LEVERS}
    assert not named["token cap"]
    assert not named["passages"]
    assert named["stop rule"]
    quoting = scene(config, "c", tuple(config.models), {"generate": "none"})
    for name in ("token cap", "stop rule", "attention"):
        assert not list(next(one for one in LEVERS if one.name == name).effective(quoting))
    assert [name for _, name in others(at)] == ["smollm2", "big", "e5-late"]
    assert [name for _, name in others(quoting)] == ["e5-late"]
    assert not list(others(scene(made("answer: {generate: none}\n"), "c", tuple(config.models))))
