"""One collection: what is written is found, what is deleted is not, and only who may see it."""

from __future__ import annotations

import sqlite3
from collections.abc import Callable

import numpy as np
import pytest

from headrace.errors import BadRequest, StorageError
from headrace.retrieval import dense, derived
from headrace.retrieval.base import chunk_key, embedding_text
from headrace.retrieval.collections import Collections
from headrace.retrieval.embedded import EmbeddedIndex
from headrace.types import ALL_ACCESS, Filter

OWNER = Filter(access=ALL_ACCESS)
PUBLIC = Filter()


def lexical(index: EmbeddedIndex, query: str, where: Filter = OWNER) -> list[str]:
    found = index.search_lexical(query, 10, where)
    return [hit.text for hit in index.get({s.chunk_id: {"lexical": s.score} for s in found}, where)]


def nearest(index: EmbeddedIndex, seed: int, where: Filter = OWNER) -> list[str]:
    vector = np.random.default_rng(seed).normal(size=16)
    found = index.search_dense((vector / np.linalg.norm(vector)).astype(np.float32), 10, where)
    return [hit.text for hit in index.get({s.chunk_id: {"dense": s.score} for s in found}, where)]


def test_a_document_comes_back_as_it_was(index: EmbeddedIndex, make: Callable) -> None:
    document, chunks = make("a", ["第四十四条 合同", "第二段"], metadata={"year": "2024"})
    assert index.upsert(document, chunks) == 1
    assert index.document("a") == document
    assert index.document("b") is None
    assert index.text("a") == document.parsed.text
    assert index.text("b") is None
    [info] = index.documents()
    assert (info.id, info.chunks, info.metadata) == ("a", 2, {"year": "2024"})


def test_a_hit_has_its_text_and_titles_to_the_character(
    index: EmbeddedIndex, make: Callable
) -> None:
    texts = [
        "a\x00b \x07\x1f",
        '"quoted" \\ \\u0041',
        "第四十四条\u2028\U0001f600",
        "[1,2]",
        "\ufeffnull",
    ]
    document, chunks = make("a", texts, metadata={'k"ey': "v\\alue\n"})
    index.upsert(document, chunks)
    hits = index.get({n: {"fused": 1.0} for n in range(1, 6)}, OWNER)
    assert [hit.text for hit in hits] == texts
    assert all(hit.path == ("title a",) and hit.page is None for hit in hits)
    assert hits[0].metadata == {'k"ey': "v\\alue\n"}
    assert len(index.get({n: {"fused": 1.0} for n in range(1, 1200)}, OWNER)) == 5


def test_both_searches_find_what_was_just_written(index: EmbeddedIndex, make: Callable) -> None:
    index.upsert(*make("a", ["租赁合同", "running water"], seed=1))
    assert lexical(index, "合同") == ["租赁合同"]
    assert nearest(index, 2)[0] == "running water"
    hits = index.get({1: {"dense": 0.5, "fused": 0.25}}, OWNER)
    assert hits[0].score == 0.25
    assert hits[0].span.of("租赁合同\nrunning water") == hits[0].text


def test_replacing_a_document_leaves_nothing_of_the_old(
    index: EmbeddedIndex, make: Callable
) -> None:
    index.upsert(*make("a", ["old words"]))
    index.upsert(*make("a", ["new words"]))
    assert lexical(index, "words") == ["new words"]
    assert nearest(index, 0) == ["new words"]
    assert index.info().chunks == 1


def test_a_delete_holds_at_once_even_for_a_snapshot_taken_before(
    index: EmbeddedIndex, make: Callable
) -> None:
    index.upsert(*make("a", ["secret plan"]))
    before = index.snapshot()
    index.delete(["a", "unknown"])
    assert lexical(index, "plan") == []
    assert nearest(index, 0) == []
    [old] = before.search_lexical("plan", 5, OWNER)
    assert index.get({old.chunk_id: {}}, OWNER) == []


def test_labels_are_applied_inside_both_searches(index: EmbeddedIndex, make: Callable) -> None:
    for i in range(30):
        index.upsert(*make(f"s{i}", ["payroll table"], labels=("hr",), seed=5))
    index.upsert(*make("p", ["payroll"], seed=6))
    public = index.search_lexical("payroll", 1, PUBLIC)
    assert [hit.document_id for hit in index.get({s.chunk_id: {} for s in public}, PUBLIC)] == ["p"]
    assert nearest(index, 5, PUBLIC) == ["payroll"]
    assert len(lexical(index, "payroll", Filter(access=frozenset({"hr"})))) == 10
    assert lexical(index, "payroll", Filter(access=frozenset())) == []
    assert index.get({1: {}}, PUBLIC) == []


def test_metadata_and_document_filters(index: EmbeddedIndex, make: Callable) -> None:
    index.upsert(*make("a", ["rent law"], metadata={"year": "2020"}))
    index.upsert(*make("b", ["rent law of old"], metadata={"year": "1990", "kind": "x"}))
    year = Filter(access=ALL_ACCESS, metadata={"year": ("1990", "1991")})
    both = Filter(access=ALL_ACCESS, metadata={"year": ("1990",), "kind": ("y",)})
    only = Filter(access=ALL_ACCESS, documents=("a",))
    for search in (lambda w: lexical(index, "rent", w), lambda w: nearest(index, 0, w)):
        assert search(year) == ["rent law of old"]
        assert search(both) == []
        assert search(only) == ["rent law"]


def test_vectors_are_kept_by_key_and_staged_ones_survive(
    index: EmbeddedIndex, make: Callable, collections: Collections
) -> None:
    document, chunks = make("a", ["one", "two"], seed=3)
    index.stage({chunks[0].key: chunks[0].vector})
    collections.close()
    known = collections.open("laws").vectors([chunks[0].key, b"unknown"])
    assert list(known) == [chunks[0].key]
    assert np.allclose(known[chunks[0].key], chunks[0].vector, atol=1e-3)
    index = collections.open("laws")
    index.upsert(document, chunks)
    index.clear_staged()
    assert len(index.vectors([c.key for c in chunks])) == 2
    index.delete(["a"])
    assert index.vectors([c.key for c in chunks]) == {}


def test_a_bad_vector_or_span_changes_nothing(index: EmbeddedIndex, make: Callable) -> None:
    document, chunks = make("a", ["text"])
    for wrong in (np.full(16, np.nan, np.float32), np.ones(3, np.float32)):
        with pytest.raises(BadRequest, match=r"a\.txt"):
            index.upsert(document, [chunks[0]._replace(vector=wrong)])
    other, _ = make("b", [""])
    with pytest.raises(BadRequest, match="outside"):
        index.upsert(other, chunks)
    assert (index.generation(), index.documents()) == (0, [])


def test_the_journal_shares_the_transaction_rules(index: EmbeddedIndex) -> None:
    with index.connection() as db:
        db.execute("CREATE TABLE journal_x (a)")
        db.execute("INSERT INTO journal_x VALUES (1)")

    def fail_halfway() -> None:
        with index.connection() as db:
            db.execute("INSERT INTO journal_x VALUES (2)")
            raise KeyError

    with pytest.raises(KeyError):
        fail_halfway()
    with index.reading() as db:
        assert db.execute("SELECT a FROM journal_x").fetchall() == [(1,)]
    with pytest.raises(StorageError, match="nothing_like_it"), index.connection() as db:
        db.execute("SELECT * FROM nothing_like_it")


def test_merging_and_rebuilding_keep_every_hit(
    index: EmbeddedIndex, make: Callable, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The thresholds are made small, so that graph, delta and deletions all take part."""
    for module in (dense, derived):
        monkeypatch.setattr(module, "FLAT_ROWS", 64)
    monkeypatch.setattr(derived, "REST_SHARE", 0.0)
    with index.writer():
        for i in range(20):
            index.upsert(*make(f"d{i}", [f"word{i} part{j}" for j in range(10)], seed=10 * i))
    assert index.snapshot().dense.base is not None
    index.delete(["d3"])
    index.upsert(*make("d4", ["word4 afresh"], seed=40))
    for check in ("merged", "rebuilt"):
        if check == "rebuilt":
            index.rebuild()
        assert nearest(index, 50)[0] == "word5 part0"
        assert nearest(index, 40)[0] == "word4 afresh"
        assert "word3 part0" not in nearest(index, 30)
        found = lexical(index, "word4 afresh")
        assert found[0] == "word4 afresh"
        assert not any(text.startswith("word4 part") for text in found)
        narrow = Filter(access=ALL_ACCESS, documents=("d7",))
        assert len(nearest(index, 7, narrow)) == 10
        report = index.verify()
        assert report.ok, report.differences
        assert report.chunks == 181


def test_a_snapshot_outlives_a_rebuild(index: EmbeddedIndex, make: Callable) -> None:
    index.upsert(*make("a", ["first"]))
    before = index.snapshot()
    index.rebuild()
    index.rebuild()
    assert [s.chunk_id for s in before.search_lexical("first", 5, OWNER)] == [1]
    assert [s.chunk_id for s in index.search_lexical("first", 5, OWNER)] == [1]


def test_verify_names_what_differs(index: EmbeddedIndex, make: Callable) -> None:
    with index.writer():
        index.upsert(*make("a", ["first", "second"]))
    assert index.verify().ok
    with sqlite3.connect(index.folder / "collection.sqlite") as db:
        db.execute("UPDATE chunks SET text = 'forged' WHERE id = 1")
        db.execute("DELETE FROM chunks WHERE id = 2")
    db.close()
    words = " ".join(index.verify().differences)
    assert "a.txt" in words
    assert "tantivy: 1 chunks are not in SQLite" in words


def test_a_query_of_no_tokens_or_a_whole_book(index: EmbeddedIndex, make: Callable) -> None:
    index.upsert(*make("a", ["合同 law"]))
    assert index.search_lexical("。。。", 5, OWNER) == []
    assert lexical(index, "law " + "x y z " * 20_000) == ["合同 law"]


def test_the_key_depends_on_embedder_title_and_text() -> None:
    keys = {
        chunk_key(fingerprint, embedding_text(path, "t"))
        for fingerprint in ("a", "b")
        for path in ((), ("x",))
    }
    assert len(keys) == 4
    assert embedding_text(("Law", "第一条"), "第一条 Text") == "Law 第一条 Text"


def test_masks_follow_what_comes_and_goes(index: EmbeddedIndex, make: Callable) -> None:
    """A filter's mask is carried from generation to generation, not computed anew."""
    staff = Filter(access=frozenset({"staff"}))
    index.upsert(*make("a", ["plan one"], labels=("staff",)))
    assert lexical(index, "plan", staff) == ["plan one"]
    index.upsert(*make("b", ["plan two"], labels=("staff", "hr"), seed=1))
    index.upsert(*make("c", ["plan three"], labels=("hr",), seed=2))
    assert sorted(lexical(index, "plan", staff)) == ["plan one", "plan two"]
    assert sorted(nearest(index, 0, staff)) == ["plan one", "plan two"]
    index.delete(["a"])
    assert lexical(index, "plan", staff) == nearest(index, 0, staff) == ["plan two"]
    index.upsert(*make("b", ["plan two"], labels=("hr",), seed=1))
    index.upsert(*make("d", ["other"], labels=("hr",), seed=3))
    assert lexical(index, "plan", staff) == nearest(index, 0, staff) == []
    index.upsert(*make("c", ["plan three"], labels=("staff",), seed=2))
    assert lexical(index, "plan", staff) == nearest(index, 0, staff) == ["plan three"]
