"""One entry put into the text of a configuration file, or taken out."""

from __future__ import annotations

from pathlib import Path

import pytest

from headrace.config.edit import moved, with_model, with_values, without_model
from headrace.config.load import read_text
from headrace.config.options import Config
from headrace.config.reference import commented_file
from headrace.errors import ConfigError

TEXT = """\
# ours
server:
  port: 9000  # not the usual one
models:
  # the small one
  a: {role: generator, engine: echo}
  b:
    role: reranker
    engine: echo
retrieval:
  hits: 7
"""


def config(text: str) -> Config:
    return read_text(text, "f.yaml", Path("/"))


def test_an_entry_is_added_and_replaced_and_the_rest_stays() -> None:
    text = with_model(TEXT, "c", {"role": "embedder", "engine": "echo"})
    assert config(text).models["c"].engine == "echo"
    text = with_model(text, "a", {"role": "generator", "engine": "echo", "slots": 2})
    assert config(text).models["a"].slots == 2
    for kept in ("# ours", "# not the usual one", "hits: 7", "b:\n    role: reranker"):
        assert kept in text


def test_an_entry_is_removed() -> None:
    text = without_model(TEXT, "b")
    assert text is not None
    assert "b" not in config(text).models
    assert "# not the usual one" in text
    assert without_model(TEXT, "smollm2") is None


@pytest.mark.parametrize("text", ["", "# nothing\n", "server:\n  port: 1\n", commented_file()])
def test_files_without_models_take_one(text: str) -> None:
    made = with_model(text, "c", {"role": "embedder", "engine": "echo"})
    assert config(made).models["c"].engine == "echo"
    assert config(made).server == config(text).server
    for line in text.splitlines():
        assert line.strip("# ") in made


def test_what_is_no_configuration_is_refused() -> None:
    with pytest.raises(ConfigError):
        with_model("a: *b\n", "c", {})


def test_in_another_folder_it_means_the_same() -> None:
    text = "data_dir: data\ncache_dir: /c\nmodels:\n  a: {role: generator, engine: echo}\n" + (
        "  b: {role: embedder, engine: onnx, source: 'file:b.onnx', python: env/bin/python}\n"
        "server: {trace_file: t.jsonl}  # here\n"
    )
    found = moved(text, Path("/here"))
    assert read_text(found, "f", Path("/there")) == read_text(text, "f", Path("/here"))
    assert "cache_dir: /c\n" in found
    assert "# here" in found
    assert moved(TEXT, Path("/here")) == TEXT
    assert moved("", Path("/here")) == with_values("", {})


def test_line_ends_stay_as_they_are() -> None:
    text = TEXT.replace("\n", "\r\n")
    found = with_values(text, {("retrieval", "hits"): 9})
    assert found == with_values(TEXT, {("retrieval", "hits"): 9}).replace("\n", "\r\n")
