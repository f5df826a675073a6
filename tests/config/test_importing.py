"""A file of Agile Rag Server, translated."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner

from headrace.cli.program import app
from headrace.config.importing import translate
from headrace.config.load import read_file, read_text
from headrace.config.options import Config
from headrace.errors import BadRequest


def sample(folder: Path) -> dict[str, Any]:
    """As that server's guide shows it."""
    gguf, bge = folder / "qwen.gguf", folder / "bge-m3"
    gguf.touch()
    bge.mkdir()
    (bge / "model.onnx").touch()
    return {
        "reset_flags": 0,
        "standby_llms": ["qwen7b"],
        "standby_embedders": ["bge-m3", "m3e-base"],
        "standby_rerankers": ["bce", "gone"],
        "llms": {
            "qwen7b": {
                "llm_path": str(gguf),
                "tokenizer_path": str(gguf),
                "device": "flex",
                "max_tokens": 2048,
                "size_est": 5800,
                "cuda_thres": 0,
                "idle_on_cpu": False,
            },
            "qwen awq": {"llm_path": "/m/awq", "tokenizer_path": "/m/tok", "device": "cuda"},
        },
        "llm_params": {"default_temp": 0.5, "force_0_temp": False, "novel": 1},
        "embedders": {
            "bge-m3": {"path": str(bge), "device": "flex", "size_est": 2900, "cuda_thres": 20},
            "m3e-base": {"path": "/m/m3e", "device": "cpu", "cuda_thres": 0, "frozen": True},
        },
        "embedder_params": {"token_estimation": "len", "resize": 0},
        "rerankers": {
            "bce": {"path": "/m/bce", "max_tokens": 512, "device": "flex", "idle_on_cpu": True},
            "bge-m3": {"path": "/m/v2", "device": "flex", "max_tokens": 768},
        },
        "reranker_params": {"top_n": 8, "sentence_transformer_num_workers": 0, "batch_size": 32},
        "something": 1,
    }


def loaded(text: str) -> Config:
    return read_text(text, "f.yaml", Path("/"))


def test_what_has_an_equivalent_is_taken_over(tmp_path: Path) -> None:
    config = loaded(translate(json.dumps(sample(tmp_path)), "live.json").text)
    qwen = config.models["qwen7b"]
    assert (qwen.engine, qwen.source) == ("llamacpp", f"file:{tmp_path}/qwen.gguf")
    assert (qwen.size_hint, qwen.give_back, qwen.standby) == ("5800MiB", "when_needed", True)
    assert qwen.context // qwen.slots == 2048
    assert qwen.min_batch_for_gpu is None
    assert (config.models["qwen-awq"].device, config.models["qwen-awq"].standby) == ("cuda", False)
    bge, m3e = config.models["bge-m3"], config.models["m3e-base"]
    assert (bge.engine, bge.min_batch_for_gpu, bge.size_hint) == ("onnx", 20, "2900MiB")
    assert (m3e.device, m3e.min_batch_for_gpu, m3e.standby) == ("cpu", 1, True)
    bce, twice = config.models["bce"], config.models["bge-m3-reranker"]
    assert (bce.give_back, bce.max_tokens, bce.batch_tokens) == ("after_use", 512, 32 * 512)
    assert (twice.max_tokens, twice.standby) == (768, False)
    defaults = config.defaults
    assert (defaults.generator, defaults.embedder, defaults.reranker) == ("qwen7b", "bge-m3", "bce")
    assert config.retrieval.hits == 8


@pytest.mark.parametrize(
    "beginning",
    [
        "reset_flags: no equivalent; no locks",
        "llm_params.default_temp: no equivalent",
        "llm_params.novel: no equivalent",
        "embedder_params.resize: no equivalent",
        "reranker_params.sentence_transformer_num_workers: no equivalent",
        "embedders.m3e-base.frozen: no equivalent",
        "something: no equivalent",
        "standby_rerankers: there is no model 'gone'",
        "llms.qwen awq: is named 'qwen-awq' here",
        "llms.qwen awq.tokenizer_path: no equivalent",
        "llms.qwen awq: the engine llamacpp runs one .gguf file",
        "embedders.m3e-base: the engine onnx runs model.onnx",
        "rerankers.bge-m3: is named 'bge-m3-reranker' here",
    ],
)
def test_what_has_none_is_reported(tmp_path: Path, beginning: str) -> None:
    found = translate(json.dumps(sample(tmp_path)), "live.json")
    assert [note for note in found.notes if note.startswith(beginning)], found.notes
    assert f"# - {beginning}" in found.text


def test_what_has_an_equivalent_is_not_reported(tmp_path: Path) -> None:
    notes = " ".join(translate(json.dumps(sample(tmp_path)), "live.json").notes)
    assert "size_est" not in notes
    assert "qwen7b" not in notes
    assert "batch_size" not in notes


def test_all_hits_is_no_number_of_hits(tmp_path: Path) -> None:
    given = sample(tmp_path) | {"reranker_params": {"top_n": 9999}}
    found = translate(json.dumps(given), "live.json")
    assert loaded(found.text).retrieval == Config().retrieval
    assert any(note.startswith("reranker_params.top_n: 9999 means all") for note in found.notes)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("{", "is not JSON"),
        ("[]", "must be an object"),
        ("{}", "is it the right file"),
        ('{"llms": []}', "llms must be an object"),
        ('{"llms": {"a": {"device": "cpu"}}}', "names no path"),
        ('{"llms": {"a": {"llm_path": "p", "size_est": "big"}}}', "must be a number"),
        ('{"llms": {}, "standby_llms": "a"}', "must be a list"),
    ],
)
def test_another_file_is_refused(text: str, message: str) -> None:
    with pytest.raises(BadRequest, match=message):
        translate(text, "live.json")


def test_the_command_writes_a_file_that_is_right(tmp_path: Path) -> None:
    source, out = tmp_path / "liveconfigs.json", tmp_path / "headrace.yaml"
    source.write_text(json.dumps(sample(tmp_path)), encoding="utf-8")
    done = CliRunner().invoke(app, ["config", "import", str(source), "-o", str(out)])
    assert done.exit_code == 0, done.output
    assert read_file(out).models["qwen7b"].standby
    again = CliRunner().invoke(app, ["config", "import", str(source), "-o", str(out)])
    assert again.exit_code != 0
