"""Many collections, several processes, and what happens to the careless."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import msgspec
import pytest

from headrace.engines.base import ModelInfo
from headrace.errors import BadRequest, Busy, ConfigError, StorageError, UnknownCollection
from headrace.retrieval import lexical
from headrace.retrieval.collections import Collections
from headrace.retrieval.embedded import EmbeddedIndex
from headrace.retrieval.rows import pointers
from headrace.types import ALL_ACCESS, Filter, Role

INFO = ModelInfo("toy", Role.EMBEDDER, "echo", "toy-1", 16)
OWNER = Filter(access=ALL_ACCESS)


def test_create_is_idempotent_but_not_for_another_embedder(collections: Collections) -> None:
    first = collections.create("法律", "toy", INFO)
    assert collections.create("法律", "toy", INFO) is first
    with pytest.raises(ConfigError, match="toy-2"):
        collections.create("法律", "other", msgspec.structs.replace(INFO, fingerprint="toy-2"))
    assert collections.names() == ["法律"]
    info = collections.info("法律")
    assert (info.embedder, info.dimensions, info.documents) == ("toy", 16, 0)


@pytest.mark.parametrize(
    "name", ["", "..", "../x", "a/b", ".hidden", "a\n", "x" * 65, "a\0b", "字" * 70]
)
def test_names_that_are_not_names(collections: Collections, name: str) -> None:
    with pytest.raises(BadRequest):
        collections.create(name, "toy", INFO)
    with pytest.raises(BadRequest):
        collections.open(name)


def test_an_unknown_collection_names_the_known_ones(
    collections: Collections, index: EmbeddedIndex
) -> None:
    with pytest.raises(UnknownCollection, match="known: laws"):
        collections.open("law")
    Collections(collections.folder).delete("laws")
    with pytest.raises(UnknownCollection) as caught:  # of a collection that is open, and gone
        index.snapshot()
    assert caught.value.message == "there is no collection named 'laws' any more"


def test_the_second_writer_learns_who_the_first_is(
    collections: Collections, index: EmbeddedIndex, make: Callable
) -> None:
    other = Collections(collections.folder)
    with collections.writer("laws"):
        with pytest.raises(Busy) as caught, collections.writer("laws"):
            pass
        assert caught.value.pid == os.getpid()
        with pytest.raises(Busy):
            other.open("laws").upsert(*make("a", ["x"]))
        index.upsert(*make("a", ["x"]))  # the process that holds the lock may write anywhere
    other.open("laws").delete(["a"])
    other.close()


def test_another_process_reads_along(
    collections: Collections, index: EmbeddedIndex, make: Callable
) -> None:
    reader = Collections(collections.folder).open("laws")
    assert reader.search_lexical("words", 5, OWNER) == []
    with collections.writer("laws"):
        index.upsert(*make("a", ["words one"]))
        assert len(reader.search_lexical("words", 5, OWNER)) == 1
        index.upsert(*make("b", ["words two"], seed=1))
        assert len(reader.search_lexical("words", 5, OWNER)) == 2
        index.delete(["a"])
        assert [s.chunk_id for s in reader.search_lexical("words", 5, OWNER)] == [2]
    assert [s.chunk_id for s in reader.search_lexical("words", 5, OWNER)] == [2]
    index.rebuild()
    assert [s.chunk_id for s in reader.search_lexical("words", 5, OWNER)] == [2]
    reader.close()


def test_at_hand_is_what_is_open_and_still_there(
    collections: Collections, index: EmbeddedIndex
) -> None:
    assert collections.at_hand("laws") is index
    others = Collections(collections.folder)
    assert others.at_hand("laws") is None
    other = others.open("laws")
    assert others.at_hand("laws") is other
    collections.delete("laws")
    assert collections.at_hand("laws") is None
    assert others.at_hand("laws") is None
    made = collections.create("laws", "toy", INFO)
    assert collections.at_hand("laws") is made
    assert others.at_hand("laws") is None, "the other one's is another file"
    others.close()
    with pytest.raises(BadRequest):
        collections.at_hand("../laws")


def test_deleting_reaches_every_process(
    collections: Collections, index: EmbeddedIndex, make: Callable
) -> None:
    index.upsert(*make("a", ["words"]))
    others = Collections(collections.folder)
    other = others.open("laws")
    assert len(other.search_lexical("words", 5, OWNER)) == 1
    collections.delete("laws")
    with pytest.raises(UnknownCollection):
        other.search_lexical("words", 5, OWNER)
    with pytest.raises(UnknownCollection):
        others.open("laws")
    assert list(collections.folder.iterdir()) == []
    assert others.create("laws", "toy", INFO).info().documents == 0
    others.close()


def test_a_collection_that_is_written_cannot_be_deleted(
    collections: Collections, index: EmbeddedIndex
) -> None:
    with collections.writer("laws"), pytest.raises(Busy):
        collections.delete("laws")
    assert collections.names() == ["laws"]


@pytest.mark.parametrize("content", [b"", b"not a database, not at all" * 100])
def test_a_damaged_file_is_named(
    collections: Collections, index: EmbeddedIndex, content: bytes
) -> None:
    path = index.folder / "collection.sqlite"
    collections.close()
    for extra in ("-wal", "-shm"):
        path.with_name(path.name + extra).unlink(missing_ok=True)
    path.write_bytes(content)
    with pytest.raises(StorageError, match=r"collection\.sqlite"):
        collections.open("laws")


def damage(collections: Collections, name: str) -> None:
    collections.close()
    path = collections.folder / name / "collection.sqlite"
    for extra in ("-wal", "-shm"):
        path.with_name(path.name + extra).unlink(missing_ok=True)
    path.write_bytes(b"not a database, not at all" * 100)


def test_a_damaged_collection_hides_no_other_and_can_be_deleted(
    collections: Collections, index: EmbeddedIndex
) -> None:
    collections.create("towns", "toy", INFO)
    damage(collections, "laws")
    laws, towns = collections.overview()
    assert (laws.name, towns.name, towns.embedder) == ("laws", "towns", "toy")
    assert "delete the collection" in laws.problem
    assert towns.problem == ""
    collections.delete("laws")
    assert collections.names() == ["towns"]
    assert [path.name for path in collections.folder.iterdir()] == ["towns"]


_DELETE_ON_A_FULL_DISK = """
import resource, sys
from pathlib import Path
from headrace.retrieval.collections import Collections

collections = Collections(Path(sys.argv[1]))
resource.setrlimit(resource.RLIMIT_FSIZE, (0, 0))
collections.delete("laws")
print(collections.names())
"""


def test_a_full_disk_can_be_relieved_by_deleting(
    collections: Collections, index: EmbeddedIndex, make: Callable
) -> None:
    index.upsert(*make("a", ["words"]))
    done = subprocess.run(
        [sys.executable, "-c", _DELETE_ON_A_FULL_DISK, str(collections.folder)],
        capture_output=True,
        text=True,
        check=False,
    )
    assert (done.stdout, done.stderr) == ("[]\n", "")
    with pytest.raises(UnknownCollection):
        collections.open("laws")


@pytest.mark.parametrize("what", ["removed", "damaged"])
def test_derived_files_can_be_thrown_away(
    collections: Collections, index: EmbeddedIndex, make: Callable, what: str
) -> None:
    with collections.writer("laws"):
        index.upsert(*make("a", ["words one"]))
    folder = index.folder
    collections.close()
    for path in folder.glob("lexical-*/*"):
        if what == "removed":
            path.unlink()
        else:
            path.write_bytes(b"\0" * 20)
    opened = collections.open("laws")
    assert len(opened.search_lexical("words", 5, OWNER)) == 1
    with collections.writer("laws"):
        pass
    assert collections.verify("laws").ok
    assert len(opened.search_lexical("words", 5, OWNER)) == 1


def test_an_index_of_another_analyzer_is_not_read_and_made_anew(
    collections: Collections, index: EmbeddedIndex, make: Callable, monkeypatch: pytest.MonkeyPatch
) -> None:
    with monkeypatch.context() as other_version:
        other_version.setattr(lexical, "_BODY", "body-0")
        other_version.setattr(lexical, "tokens", lambda text: ["other"])
        with collections.writer("laws"):
            index.upsert(*make("a", ["words one"]))
        assert len(index.search_lexical("other", 5, OWNER)) == 1
    old = pointer(index)
    collections.close()
    reader = Collections(collections.folder)
    found = reader.open("laws")
    assert len(found.search_lexical("words", 5, OWNER)) == 1
    assert found.search_lexical("other", 5, OWNER) == []
    assert pointer(found) == old  # who only reads repairs nothing
    with collections.writer("laws") as writer:
        assert pointer(writer) != old
    assert len(found.search_lexical("words", 5, OWNER)) == 1
    assert collections.verify("laws").ok
    assert len(list(index.folder.glob("lexical-*"))) == 1
    reader.close()


def pointer(index: EmbeddedIndex) -> str:
    """The lexical index's folder."""
    with index.reading() as db:
        return pointers(db).lexical


def test_a_full_disk_leaves_the_index_as_it_was(
    collections: Collections, index: EmbeddedIndex, make: Callable
) -> None:
    """SQLite's own page limit stands in for a full disk: it raises the same SQLITE_FULL."""
    index.upsert(*make("a", ["words one"]))
    with index.connection() as db:
        pages = db.execute("PRAGMA page_count").fetchone()[0]
    index._store.db._writer.execute(f"PRAGMA max_page_count = {pages + 1}")
    with pytest.raises(StorageError, match="disk is full"):
        index.upsert(*make("b", [f"words {i}" for i in range(5000)]))
    assert index.generation() == 1
    assert len(index.search_lexical("words", 5, OWNER)) == 1


_CHILD = """
import sys
from pathlib import Path
from headrace.retrieval.collections import Collections
with Collections(Path(sys.argv[1])).writer("laws"):
    print("held", flush=True)
    sys.stdin.read()
"""


def test_busy_names_the_other_process(collections: Collections, index: EmbeddedIndex) -> None:
    child = subprocess.Popen(
        [sys.executable, "-c", _CHILD, str(collections.folder)],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    )
    with child:
        assert child.stdout is not None
        assert child.stdout.readline() == "held\n"
        with pytest.raises(Busy) as caught, collections.writer("laws"):
            pass
        assert caught.value.pid == child.pid
        child.kill()
    with collections.writer("laws"):  # the system freed the lock with its holder
        pass


def test_no_folder_no_collections(tmp_path: Path) -> None:
    assert Collections(tmp_path / "nowhere").names() == []
    assert not (tmp_path / "nowhere").exists()
