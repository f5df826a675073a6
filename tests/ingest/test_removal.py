"""What is deleted is gone from everything, and the receipt says from what."""

from __future__ import annotations

import asyncio
import shutil
from collections.abc import AsyncIterator
from pathlib import Path

import pytest
from ingesting import Place, place, write
from reindexing import OWNER, back, change, check, count, find, two_embedders

from headrace.config.options import Config
from headrace.errors import ModelFailed, UnknownItem
from headrace.ingest.removal import named, remove
from headrace.ingest.stamps import Cut
from headrace.retrieval import derived
from headrace.retrieval.collections import Collections
from headrace.retrieval.embedded import EmbeddedIndex
from headrace.retrieval.sides import NEXT, PREVIOUS


@pytest.fixture
async def here(fast: Config, tmp_path: Path) -> AsyncIterator[Place]:
    async with place(two_embedders(fast), tmp_path / "in") as made:
        texts = {f"f{i}": f"# Wheel {i}\n\nWheel {i} turns.\n\n# Same\n\nAll." for i in range(20)}
        write(made.folder, **texts)
        await made.ingest()
        made.models.texts.clear()
        yield made


def bytes_of(index: EmbeddedIndex, what: str) -> bool:
    """Whether a word stands in any row of any table."""
    with index.reading() as db:
        names = db.execute("SELECT name FROM sqlite_master WHERE type = 'table'").fetchall()
        rows = [row for (name,) in names for row in db.execute(f"SELECT * FROM {name}").fetchall()]
    return any(what in str(value) for row in rows for value in row)


async def test_a_deleted_document_is_gone_from_every_index(here: Place) -> None:
    """From the one in use, from the one kept for going back and from one that is half made; and the
    receipt says so."""
    write(here.folder, secret="# Secret\n\nThe quagga is blue.")
    await here.ingest()
    await change(here)
    here.models.poison = "Wheel 4 turns"
    with pytest.raises(ModelFailed):
        await change(here, "echo-embedder", Cut("plain", 32))
    here.models.poison = "\0never"
    generation = here.index.generation()
    gone = next(d for d in here.index.documents() if d.source.endswith("secret.md"))
    old = here.index.snapshot()
    before = count(here.index, "vectors")
    other = Collections(here.collections.folder)  # as another process has it
    assert (await find(here, other.open("default"), "The quagga is blue")).hits[
        0
    ].document_id == gone.id

    receipt = await asyncio.to_thread(remove, here.collections, "default", [gone.id, "0" * 16])
    (document,) = receipt.documents
    assert (document.id, document.source, document.chunks) == (gone.id, gone.source, 1)
    assert document.sides == {PREVIOUS: 1, NEXT: 1}
    assert receipt.vectors == before - count(here.index, "vectors") == 3
    assert (receipt.generation_before, receipt.generation) == (generation, generation + 1)
    assert not bytes_of(here.index, "quagga")
    assert not bytes_of(here.index, gone.id)
    for index in (here.index, other.open("default")):
        found = await find(here, index, "The quagga is blue")
        assert not any(hit.document_id == gone.id for hit in found.hits)
    ids = {found.chunk_id: {"lexical": 1.0} for found in old.search_lexical("quagga", 5, OWNER)}
    assert here.index.get(ids, OWNER) == []
    other.close()
    await back(here)
    assert not any("quagga" in hit.text for hit in (await find(here, text="quagga")).hits)
    await change(here, "echo-embedder", Cut("plain", 32))
    assert not any("quagga" in hit.text for hit in (await find(here, text="quagga")).hits)
    await check(here, "echo-embedder")


async def test_documents_are_named_by_id_source_or_its_end(here: Place) -> None:
    held = here.index.documents()
    one = held[3]
    for name in (one.id, one.source, one.source.rpartition("/")[2]):
        assert named(held, name) == one
    with pytest.raises(UnknownItem, match="no document 'wheel'"):
        named(held, "wheel")
    twin = one._replace(id="0" * 16, source=f"/elsewhere/{one.source.rpartition('/')[2]}")
    with pytest.raises(UnknownItem, match="2 documents are called"):
        named([*held, twin], one.source.rpartition("/")[2])


async def test_what_is_not_there_is_no_entry_of_the_receipt(here: Place) -> None:
    receipt = await asyncio.to_thread(remove, here.collections, "default", ["0" * 16])
    assert (receipt.documents, receipt.vectors) == ((), 0)


async def test_older_derived_files_bring_nothing_back(
    here: Place, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """Somebody restores tantivy's and FAISS's files from a backup made before the deletion."""
    monkeypatch.setattr(derived, "FLAT_ROWS", 10)
    here.collections.rebuild("default")
    folder = here.index.folder
    shutil.copytree(folder, tmp_path / "backup")
    gone = next(d for d in here.index.documents() if d.source.endswith("f7.md"))
    await asyncio.to_thread(remove, here.collections, "default", [gone.id])
    for kept in folder.glob("*-*"):
        if kept.is_dir():
            shutil.rmtree(kept)
            shutil.copytree(tmp_path / "backup" / kept.name, kept)
    restored = Collections(here.collections.folder)
    found = await find(here, restored.open("default"), "Wheel 7 turns.")
    assert len(found.hits) == 5
    assert not any(hit.document_id == gone.id for hit in found.hits)
    restored.close()
