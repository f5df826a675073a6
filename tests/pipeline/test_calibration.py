"""The file of a calibration: whole or not at all, and used only where it fits."""

from __future__ import annotations

from pathlib import Path

import pytest
from test_relevance import calibration

from headrace.errors import StorageError
from headrace.pipeline.calibration import FILE, Kept, load, save


def test_what_was_saved_is_loaded(tmp_path: Path) -> None:
    assert load(tmp_path, "toy-1", None) == Kept()
    save(tmp_path, calibration())
    assert load(tmp_path, "toy-1", None) == Kept(calibration())
    save(tmp_path, calibration(threshold=0.7))
    kept = load(tmp_path, "toy-1", None).calibration
    assert kept is not None
    assert kept.threshold == 0.7
    assert [path.name for path in tmp_path.iterdir()] == [FILE]


@pytest.mark.parametrize(
    ("embedder", "reranker", "why"),
    [("toy-2", None, "another embedder"), ("toy-1", "cross", "made with no reranker, not cross")],
)
def test_what_does_not_fit_is_not_used(
    tmp_path: Path, embedder: str, reranker: str | None, why: str
) -> None:
    save(tmp_path, calibration())
    kept = load(tmp_path, embedder, reranker)
    assert kept.calibration is None
    assert why in kept.problem


@pytest.mark.parametrize(
    "content",
    [b"", b"{", b"{}", b'{"version": 1, "weights": {}}', b"\xff\xfe"],
)
def test_a_damaged_file_is_not_used(tmp_path: Path, content: bytes) -> None:
    (tmp_path / FILE).write_bytes(content)
    assert "damaged" in load(tmp_path, "toy-1", None).problem


def test_another_version_and_unknown_measures_are_not_used(tmp_path: Path) -> None:
    save(tmp_path, calibration(version=99))
    assert "another version" in load(tmp_path, "toy-1", None).problem
    save(tmp_path, calibration(weights={"moon": 1.0}))
    assert "another version" in load(tmp_path, "toy-1", None).problem


def test_a_folder_that_is_gone(tmp_path: Path) -> None:
    with pytest.raises(StorageError):
        save(tmp_path / "gone", calibration())
