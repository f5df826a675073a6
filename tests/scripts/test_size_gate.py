"""The gate must be able to close: every rule is shown to fail on bad input."""

from __future__ import annotations

from pathlib import Path

import pytest

import size_gate


def tree(root: Path, **files: str) -> Path:
    for name, text in files.items():
        path = root / "src" / "headrace" / f"{name}.py"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text, encoding="utf-8")
    return root


def test_every_folder_of_this_project_is_looked_at() -> None:
    names = {
        path.relative_to(size_gate.ROOT).parts[0] for path in size_gate.python_files(size_gate.ROOT)
    }
    assert names == set(size_gate.FOLDERS)


def test_clean_code_has_no_findings(tmp_path: Path) -> None:
    tree(tmp_path, a="from headrace.b import f\n", b="def f() -> int:\n    return 1\n")
    assert size_gate.findings(tmp_path, {}) == []


def test_a_file_may_have_500_lines_and_no_more(tmp_path: Path) -> None:
    tree(tmp_path, fits="x = 1\n" * 500, long="x = 1\n" * 501)
    assert size_gate.findings(tmp_path, {}) == ["src/headrace/long.py: 501 lines, at most 500"]


@pytest.mark.parametrize("keyword", ["def", "async def"])
def test_a_function_may_have_60_lines_and_no_more(tmp_path: Path, keyword: str) -> None:
    body = "    x = 1\n"
    tree(tmp_path, a=f"{keyword} fits():\n{body * 59}\n\n{keyword} long():\n{body * 60}")
    found = size_gate.findings(tmp_path, {})
    assert len(found) == 1
    assert "long has 61 lines" in found[0]


@pytest.mark.parametrize(
    "handler",
    [
        "try:\n        pass\n    except Exception:\n        pass",
        "try:\n        pass\n    except:\n        pass",
        "try:\n        pass\n    except (ValueError, BaseException):\n        pass",
        "with contextlib.suppress(Exception):\n        pass",
    ],
)
def test_catching_everything_is_found(tmp_path: Path, handler: str) -> None:
    tree(tmp_path, a=f"import contextlib\n\n\ndef f():\n    {handler}\n")
    found = size_gate.findings(tmp_path, {})
    assert len(found) == 1
    assert "catches everything" in found[0]
    assert "'src/headrace/a.py:f'" in found[0]


@pytest.mark.parametrize(("caught", "findings"), [("BaseException", 0), ("Exception", 1)])
def test_clean_up_that_raises_again_hides_nothing(
    tmp_path: Path, caught: str, findings: int
) -> None:
    tree(
        tmp_path,
        a=f"def f():\n    try:\n        pass\n    except {caught}:\n        x = 1\n        raise\n",
    )
    assert len(size_gate.findings(tmp_path, {})) == findings


def test_a_listed_place_may_catch_everything(tmp_path: Path) -> None:
    tree(tmp_path, a="def f():\n    try:\n        pass\n    except Exception:\n        pass\n")
    assert size_gate.findings(tmp_path, {"src/headrace/a.py:f": "process boundary"}) == []


def test_a_listed_place_that_is_gone_is_found(tmp_path: Path) -> None:
    tree(tmp_path, a="x = 1\n")
    assert size_gate.findings(tmp_path, {"src/headrace/a.py:f": "gone"}) == [
        "scripts/size_gate.py: 'src/headrace/a.py:f' is listed but catches nothing broad"
    ]


@pytest.mark.parametrize(
    ("a", "b"),
    [
        ("import headrace.b\n", "import headrace.a\n"),
        ("from headrace.b import x\n", "def f():\n    from headrace.a import y\n"),
        ("from headrace import b\n", "from . import a\n"),
        ("from .b import x\n", "from headrace import a\n"),
    ],
)
def test_an_import_cycle_is_found(tmp_path: Path, a: str, b: str) -> None:
    tree(tmp_path, a=a, b=b)
    assert size_gate.findings(tmp_path, {}) == ["import cycle: headrace.a <-> headrace.b"]


def test_a_long_cycle_is_one_finding(tmp_path: Path) -> None:
    tree(
        tmp_path,
        a="import headrace.b\n",
        b="import headrace.c\n",
        c="import headrace.a\n",
        d="import headrace.a\n",
    )
    found = size_gate.findings(tmp_path, {})
    assert found == ["import cycle: headrace.a <-> headrace.b <-> headrace.c"]


def test_leftovers_and_broken_files_are_found(tmp_path: Path) -> None:
    tree(tmp_path, a="# TO" + "DO: later\n", b="def (:\n")
    found = size_gate.findings(tmp_path, {})
    assert len(found) == 2
    assert "leftover" in found[0]
    assert "does not parse" in found[1]
