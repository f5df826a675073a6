from __future__ import annotations

import os
from pathlib import Path

import pytest

from headrace.errors import BadRequest
from headrace.ingest.discover import discover


def names(root: Path, *paths: Path, follow: bool = False) -> list[str]:
    found = discover(paths or (root,), follow_links=follow)
    return [Path(candidate.source).relative_to(root).as_posix() for candidate in found]


@pytest.fixture
def tree(tmp_path: Path) -> Path:
    root = tmp_path / "root"
    for name in ("b.md", "a/2.md", "a/1.md", ".git/config", ".hidden.md", "文/甲.md"):
        path = root / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.touch()
    return root


def test_sorted_without_hidden_files(tree: Path) -> None:
    assert names(tree) == ["b.md", "a/1.md", "a/2.md", "文/甲.md"]


def test_each_file_once_and_hidden_ones_if_they_are_named(tree: Path) -> None:
    found = names(tree, tree / "a", tree, tree / "b.md", tree / ".hidden.md")
    assert found == ["a/1.md", "a/2.md", "b.md", "文/甲.md", ".hidden.md"]


def test_links_are_followed_on_request_and_never_out_of_the_folder(
    tree: Path, tmp_path: Path
) -> None:
    (tmp_path / "secret.md").touch()
    (tree / "out.md").symlink_to(tmp_path / "secret.md")
    (tree / "up").symlink_to(tree)
    (tree / "again.md").symlink_to(tree / "b.md")
    plain = ["b.md", "a/1.md", "a/2.md", "文/甲.md"]
    assert names(tree) == plain
    assert names(tree, follow=True) == ["again.md", *plain]


def test_relative_paths_become_absolute(tree: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tree)
    assert names(tree, Path("a/../b.md"), Path("a")) == ["b.md", "a/1.md", "a/2.md"]


def test_a_missing_path_among_others_has_a_problem(tree: Path) -> None:
    found = discover([tree / "absent", tree / "b.md"])
    assert "No such file" in found[0].problem
    assert found[1].problem == ""


def test_nothing_there_is_refused(tree: Path) -> None:
    with pytest.raises(BadRequest, match="absent"):
        discover([tree / "absent"])
    with pytest.raises(BadRequest):
        discover([])


def test_a_name_that_is_not_text_gets_a_source_that_is(tree: Path) -> None:
    (tree / os.fsdecode(b"\xff.md")).touch()
    assert any(c.source.endswith("\\xff.md") for c in discover([tree]))
