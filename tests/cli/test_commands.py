"""Every command once on real data, and what becomes of wrong usage."""

from __future__ import annotations

import json
import re
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

import headrace as package

Headrace = Callable[..., subprocess.CompletedProcess[str]]


def test_help_teaches_by_example(headrace: Headrace) -> None:
    done = headrace("--help")
    assert done.returncode == 0
    for command in ("up", "ingest", "ask", "search", "models", "config", "collections"):
        assert re.search(rf"^  {command} ", done.stdout, flags=re.MULTILINE)
        inner = headrace(command, "--help")
        assert inner.returncode == 0
        assert "Examples:" in inner.stdout or "Commands:" in inner.stdout
    assert "Commands:" in headrace().stderr


def test_help_loads_neither_the_index_nor_the_configuration() -> None:
    code = (
        "import sys, headrace.cli.program\n"
        "heavy = {'pydantic', 'faiss', 'tantivy', 'numpy', 'fastapi', 'uvicorn', 'onnxruntime'}\n"
        "print(sorted(heavy & set(sys.modules)))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"


def test_version(headrace: Headrace) -> None:
    assert headrace("--version").stdout == f"headrace {package.__version__}\n"


def test_ingest_says_what_became_of_the_files(headrace: Headrace, folder: Path) -> None:
    (folder / "docs" / "empty.md").write_text("", encoding="utf-8")
    (folder / "docs" / "image.png").write_bytes(b"\x89PNG\r\n\x1a\n\0\0")
    first = headrace("ingest", "docs", "--json")
    report = json.loads(first.stdout)["report"]
    assert (report["added"], report["skipped"], report["unaccounted"]) == (1, 2, 0)
    assert all(file["reason"] for file in report["files"] if file["outcome"] == "skipped")
    again = headrace("ingest", "docs")
    assert "0 added, 0 replaced, 1 unchanged, 0 removed, 2 skipped" in again.stdout
    assert "image.png" in again.stdout
    (folder / "docs" / "handbook.md").unlink()
    gone = headrace("ingest", "docs", "--prune", "--json")
    assert json.loads(gone.stdout)["report"]["removed"] == 1


def test_ingest_fails_if_no_file_could_be_read(headrace: Headrace, folder: Path) -> None:
    (folder / "docs" / "handbook.md").write_bytes(b"")
    done = headrace("ingest", "docs")
    assert done.returncode == 1
    assert "skipped:" in done.stdout


def test_search_shows_scores_per_stage(filled: Headrace) -> None:
    done = filled("search", "race keeper", "-k", "1")
    assert done.returncode == 0
    assert "docs/handbook.md · handbook › Keys" in done.stdout
    assert re.search(r"lexical \d+\.\d{3} · .*fused|dense .*lexical .*fused", done.stdout)
    hits = json.loads(filled("search", "race keeper", "--json").stdout)["result"]["hits"]
    assert set(hits[0]["scores"]) >= {"lexical", "fused"}


def test_ask_lists_quotes_that_stand_in_the_source(filled: Headrace, filled_folder: Path) -> None:
    done = filled("ask", "Who keeps the keys of the gates?", "--generate", "none", "--json")
    assert done.returncode == 0, done.stderr
    answer = json.loads(done.stdout)
    assert answer["quotes"]
    text = (filled_folder / "docs" / "handbook.md").read_text(encoding="utf-8")
    for quote in answer["quotes"]:
        assert quote["text"] in text
    shown = filled("ask", "-", "--generate", "none", stdin="Who keeps the keys of the gates?")
    assert "[1] docs/handbook.md · handbook › Keys" in shown.stdout


def test_ask_tells_what_a_deep_search_looked_for(filled: Headrace) -> None:
    question = "Who keeps the keys of the gates?"
    done = filled("ask", question, "--generate", "none", "--effort", "deep", "--json")
    assert done.returncode == 0, done.stderr
    hops = json.loads(done.stdout)["hops"]
    assert hops[0]["sought"][0]["text"] == question
    shown = filled("ask", question, "--generate", "none", "--effort", "deep")
    assert f"search 1 (the question): {question}" in shown.stdout
    assert filled("ask", question, "--effort", "heroic").returncode == 2


def test_a_refusal_has_its_own_exit_status(filled: Headrace) -> None:
    done = filled("ask", "zzzz qqqq xxxx?", "--json")
    assert json.loads(done.stdout)["refusal"] is True
    assert done.returncode == 3


def test_labels_and_metadata_filter_searches(headrace: Headrace) -> None:
    headrace("ingest", "docs", "--label", "hr", "--meta", "year=2026")

    def hits(*options: str) -> int:
        done = headrace("search", "race keeper", "--json", *options)
        return len(json.loads(done.stdout)["result"]["hits"])

    assert hits() > 0
    assert hits("--access", "hr") > 0
    assert hits("--access", "public") == 0
    assert hits("--where", "year=2026") > 0
    assert hits("--where", "year=1999") == 0


def test_collections_are_listed_shown_and_verified(filled: Headrace) -> None:
    listed = json.loads(filled("collections", "list", "--json").stdout)
    assert [collection["name"] for collection in listed] == ["default"]
    assert "handbook.md" in filled("collections", "show", "default").stdout
    assert filled("collections", "verify", "default").stdout.endswith(": ok\n")


def test_collections_are_rebuilt_and_deleted(headrace: Headrace) -> None:
    headrace("ingest", "docs")
    assert headrace("collections", "rebuild", "default").returncode == 0
    refused = headrace("collections", "delete", "default")
    assert refused.returncode == 2
    assert "--yes" in refused.stderr
    assert headrace("collections", "delete", "default", "--yes").returncode == 0
    assert json.loads(headrace("collections", "list", "--json").stdout) == []


def test_passages_are_compressed_for_a_reranker(headrace: Headrace, folder: Path) -> None:
    headrace("ingest", "docs")
    refused = headrace("collections", "rebuild", "default", "--compress")
    assert refused.returncode != 0
    assert "late_interaction" in refused.stderr
    file = folder / "headrace.yaml"
    text = file.read_text(encoding="utf-8")
    text = text.replace("models:\n", "models:\n  rank: {role: reranker, engine: echo}\n")
    text = text.replace("embedder: vectors}", "embedder: vectors, reranker: rank}")
    file.write_text(text, encoding="utf-8")
    done = headrace("collections", "rebuild", "default", "--compress", "--json")
    assert done.returncode == 0, done.stderr
    report = json.loads(done.stdout)
    assert report["added"] == report["passages"] > 0
    assert "0 of them new" in headrace("collections", "rebuild", "default", "--compress").stdout
    assert "rerank " in headrace("search", "race keeper").stdout


def test_models_are_listed_and_shown(headrace: Headrace) -> None:
    listed = {m["name"]: m for m in json.loads(headrace("models", "list", "--json").stdout)}
    assert listed["talk"]["default"]
    assert not listed["talk"]["needs_weights"]
    assert listed["smollm2"]["path"] is None
    assert "engine: echo" in headrace("models", "show", "talk").stdout
    assert headrace("models", "pull", "talk").returncode == 0


def test_config_init_check_show_schema(headrace: Headrace, folder: Path) -> None:
    assert "exists; --force" in headrace("config", "init").stderr
    assert headrace("config", "init", "new.yaml").returncode == 0
    assert headrace("config", "check", "new.yaml").stdout.startswith("ok: new.yaml (version")
    (folder / "new.yaml").write_text("server:\n  prt: 1\n", encoding="utf-8")
    wrong = headrace("config", "check", "new.yaml")
    assert wrong.returncode == 2
    assert "new.yaml:2: server.prt: there is no such option" in wrong.stderr
    assert (
        json.loads(headrace("config", "show", "--json").stdout)["defaults"]["generator"] == "talk"
    )
    assert "properties" in json.loads(headrace("config", "schema").stdout)


@pytest.mark.parametrize(
    ("arguments", "status", "words"),
    [
        (["ask", "x", "-C", "nope"], 1, "there is no collection named 'nope'; known: default"),
        (["ask", "  "], 2, "the question is empty"),
        (["search", ""], 2, "the query is empty"),
        (["ask", "x", "--model", "gpt"], 2, "there is no model named 'gpt'"),
        (["ingest", "no-such-folder"], 2, "no-such-folder"),
        (["ingest", "docs", "--meta", "novalue"], 2, "is not KEY=VALUE"),
        (["ingest", "docs", "-C", "../up"], 2, "cannot name a collection"),
        (["models", "show", "nope"], 2, "there is no model named 'nope'"),
        (["ask"], 2, "Missing argument"),
        (["search", "x", "-k", "-1"], 2, "-k"),
        (["frobnicate"], 2, "frobnicate"),
        (["up", "--port", "70000"], 2, "--port"),
        (["ask", "x", "--config", "nope.yaml"], 2, "there is no such configuration file"),
    ],
)
def test_errors_name_the_thing_and_show_no_traceback(
    filled: Headrace, arguments: list[str], status: int, words: str
) -> None:
    done = filled(*arguments)
    assert done.returncode == status
    assert words in done.stderr
    assert "Traceback" not in done.stderr
    assert done.stdout == ""


def test_a_reader_that_goes_away_is_no_error(folder: Path) -> None:
    command = f"{sys.executable} -m headrace config show | head -1"
    done = subprocess.run(
        ["bash", "-c", command], cwd=folder, capture_output=True, text=True, check=True
    )
    assert done.stderr == ""
    assert done.stdout.startswith("# from:")


@pytest.mark.parametrize("encoding", ["ascii", "gb18030", "latin-1"])
def test_terminals_of_other_encodings(filled: Headrace, encoding: str, filled_folder: Path) -> None:
    done = subprocess.run(
        [sys.executable, "-m", "headrace", "search", "年假"],
        cwd=filled_folder,
        env={"PYTHONIOENCODING": encoding, "HOME": str(filled_folder)},
        capture_output=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    assert ("二十四天" in done.stdout.decode(encoding)) == (encoding == "gb18030")


def test_no_escape_codes_where_nobody_looks_and_none_from_documents(
    headrace: Headrace, folder: Path
) -> None:
    (folder / "docs" / "evil.txt").write_text("race keeper \x1b[2J\x1b]0;owned\x07 text", "utf-8")
    headrace("ingest", "docs")
    shown = headrace("search", "race keeper owned", env={"FORCE_COLOR": "1"}).stdout
    assert "\x1b[2J" not in shown
    assert "\x1b]0" not in shown
    assert "\x1b" not in headrace("search", "race keeper").stdout
    assert "\x1b" not in headrace("search", "race keeper", env={"NO_COLOR": "1"}).stdout


def test_another_index_for_a_collection(headrace: Headrace, folder: Path) -> None:
    headrace("ingest", "docs")
    file = folder / "headrace.yaml"
    other = "source: dimensions=32"
    text = file.read_text(encoding="utf-8").replace("source: delay=0.2", other)
    file.write_text(text.replace("embedder: vectors", "embedder: slow"), encoding="utf-8")
    assert "race keeper" in headrace("search", "race keeper").stdout  # with the one that it has
    done = headrace("collections", "reindex", "default", "--json")
    assert done.returncode == 0, done.stderr
    report = json.loads(done.stdout)["reindexed"]
    assert report["before"]["embedder"] == "vectors"
    assert (report["after"]["embedder"], report["after"]["dimensions"]) == ("slow", 32)
    assert report["embedded"] == report["chunks"] > 0
    assert "race keeper" in headrace("search", "race keeper").stdout
    assert headrace("collections", "verify", "default").returncode == 0
    assert "earlier" in headrace("collections", "reindex", "default", "--help").stdout
    again = headrace("collections", "reindex", "default")
    assert again.returncode == 0
    assert "default is slow, auto 400 already; nothing was done" in again.stdout
    back = headrace("collections", "reindex", "default", "--back")
    assert "slow, auto 400 -> vectors, auto 400" in back.stdout
    assert "0 embedded" in back.stdout
    assert "race keeper" in headrace("search", "race keeper").stdout
    beside = json.loads(headrace("collections", "show", "default", "--json").stdout)["beside"]
    assert beside["previous"]["embedder"] == "slow"
    assert "dropped" in headrace("collections", "reindex", "default", "--forget").stdout
    for wrong, words in (
        (["nothing"], "nothing"),
        (["default", "--back"], "no earlier index"),
        (["default", "--back", "--forget"], "--forget"),
        (["default", "--embedder", "nobody"], "nobody"),
        (["default", "--embedder", "talk"], "talk"),
        (["default", "--chunker", "odd"], "odd"),
        (["default", "--chunk-tokens", "1"], "chunk-tokens"),
        (["default", "--suite", "headrace.yaml"], "headrace.yaml"),
        (["default", "--suite", "nowhere.yaml"], "nowhere.yaml"),
    ):
        refused = headrace("collections", "reindex", *wrong)
        assert refused.returncode != 0, wrong
        assert words in refused.stderr
        assert "Traceback" not in refused.stderr


SUITE = """
name: mine
collection: default
questions:
  - {id: keeper, text: Who is the race keeper?, gold: [{document: handbook.md}]}
"""


def test_a_new_index_is_compared_on_a_suite(headrace: Headrace, folder: Path) -> None:
    headrace("ingest", "docs")
    (folder / "suite.yaml").write_text(SUITE, encoding="utf-8")
    done = headrace(
        *("collections", "reindex", "default", "--chunker", "plain", "--suite", "suite.yaml")
    )
    assert done.returncode == 0, done.stderr
    lines = {line.split()[0]: line.split() for line in done.stdout.splitlines()}
    assert lines["R@10"][1:4] == ["1", "1.000", "1.000"]
    assert "switched" in done.stdout


def test_removing_a_document_gives_a_receipt(headrace: Headrace) -> None:
    headrace("ingest", "docs")
    headrace("collections", "reindex", "default", "--chunker", "plain")
    assert "handbook.md" in headrace("search", "race keeper").stdout
    wrong = headrace("collections", "remove", "default", "nowhere.md")
    assert wrong.returncode == 1
    assert "there is no document 'nowhere.md'" in wrong.stderr
    done = headrace("collections", "remove", "default", "handbook.md", "--json")
    assert done.returncode == 0, done.stderr
    receipt = json.loads(done.stdout)
    (document,) = receipt["documents"]
    assert document["chunks"] > 0
    assert document["sides"]["previous"] > 0
    assert receipt["generation"] == receipt["generation_before"] + 1
    assert "handbook.md" not in headrace("search", "race keeper").stdout
