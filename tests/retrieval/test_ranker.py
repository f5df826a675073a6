"""The file of what was fitted: taken whole or refused with a reason."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from headrace.config.answering import RetrievalOptions
from headrace.errors import ConfigError
from headrace.retrieval.ensemble import Linear
from headrace.retrieval.features import NAMES
from headrace.retrieval.ranker import FILE, FORMAT, MAX_BYTES, Fitted, Ranker, RankerFile, decode

FITTED = Fitted(
    format=FORMAT, embedder="toy", features=("dense", "fused"), ranker=Linear((1.0, 2.0))
)


def test_what_is_written_is_read(tmp_path: Path) -> None:
    file = RankerFile(tmp_path)
    assert file.read("toy") is None
    file.write(FITTED)
    found = file.read("toy")
    assert found is not None
    assert found.fitted == FITTED
    assert RankerFile(tmp_path).read("toy").id == found.id  # type: ignore[union-attr]
    assert [path.name for path in tmp_path.iterdir()] == [FILE]


def test_a_change_by_somebody_else_is_seen(tmp_path: Path) -> None:
    reader, writer = RankerFile(tmp_path), RankerFile(tmp_path)
    writer.write(FITTED)
    first = reader.read("toy")
    writer.write(msgspec.structs.replace(FITTED, questions=7))
    second = reader.read("toy")
    assert first is not None
    assert second is not None
    assert (second.fitted.questions, second.id != first.id) == (7, True)
    assert writer.remove()
    assert reader.read("toy") is None
    assert not writer.remove()


def test_another_embedder_s_cosines_are_not_its_own(tmp_path: Path) -> None:
    file = RankerFile(tmp_path)
    file.write(FITTED)
    with pytest.raises(ConfigError, match="another embedder"):
        file.read("toy-2")


@pytest.mark.parametrize(
    ("change", "problem"),
    [
        ({"format": FORMAT + 1}, "its format is 2"),
        ({"features": ["dense", "mood"]}, "does not compute mood"),
        ({"features": ["dense", "dense"]}, "named twice"),
        ({"features": ["dense"]}, "2 weights for 1"),
        ({"ranker": {"type": "pickle", "code": "gASV"}}, "refused"),
        ({"run": "rm -rf"}, "unknown field"),
        ({"dense_weight": 7}, "<= 1"),
        ({"reranked": {"type": "linear", "weights": [1, 2, 3]}}, "whose scores"),
    ],
)
def test_what_does_not_fit_is_refused(change: dict[str, Any], problem: str) -> None:
    raw = json.dumps({**msgspec.to_builtins(FITTED), **change}).encode()
    with pytest.raises(ConfigError, match=problem) as caught:
        decode(raw)
    assert "--reset" in caught.value.message


RAW = msgspec.json.encode(FITTED)


@given(st.integers(0, len(RAW) - 1))
def test_a_file_that_was_cut_off_is_refused(length: int) -> None:
    with pytest.raises(ConfigError, match="refused"):
        decode(RAW[:length])


@given(st.binary(max_size=200))
def test_noise_is_refused(raw: bytes) -> None:
    with pytest.raises(ConfigError):
        decode(raw)


def test_huge_and_deep_files_are_refused(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="larger than"):
        decode(b" " * (MAX_BYTES + 1))
    with pytest.raises(ConfigError):
        decode(b'{"measured":' * 100_000)
    (tmp_path / FILE).mkdir()
    with pytest.raises(ConfigError):
        RankerFile(tmp_path).read("toy")


def test_only_what_was_fitted_replaces_an_option() -> None:
    options = RetrievalOptions(dense_weight=0.4, depth=80)
    fitted = Fitted(format=FORMAT, embedder="toy", dense_weight=0.9)
    assert Ranker(fitted).options(options) == options.model_copy(update={"dense_weight": 0.9})
    assert not Ranker(fitted).ranks
    assert len(NAMES) == len(set(NAMES))
