"""A reindexing that is started twice, or whose collection goes away meanwhile."""

from __future__ import annotations

import asyncio
import os
from collections.abc import AsyncIterator, Awaitable, Callable
from pathlib import Path

import pytest
from ingesting import Place, place, write
from reindexing import back, change, check, count, find, places, two_embedders

from headrace.config.options import CollectionOptions, Config
from headrace.errors import BadRequest, UnknownCollection
from headrace.ingest.outcomes import Progress
from headrace.ingest.reindex import Wanted, kept, reindex
from headrace.ingest.stamps import Cut
from headrace.retrieval.collections import Collections
from headrace.retrieval.embedded import EmbeddedIndex
from headrace.retrieval.sides import PREVIOUS


@pytest.fixture
async def here(fast: Config, tmp_path: Path) -> AsyncIterator[Place]:
    async with place(two_embedders(fast), tmp_path / "in") as made:
        write(made.folder, **{f"f{i}": f"# Wheel {i}\n\nWheel {i} turns." for i in range(8)})
        await made.ingest()
        yield made


async def test_the_same_again_keeps_what_can_be_gone_back_to(here: Place) -> None:
    """Whoever is not sure whether it was finished starts it once more."""
    first = await change(here)
    again = await change(here)
    assert first.switched
    assert (again.switched, again.before, again.embedded) == (False, first.after, 0)
    assert (again.documents, again.chunks) == (8, 8)
    assert kept(here.index)[PREVIOUS].embedder == "echo-embedder"
    assert count(here.index, "chunks") == 16
    assert (await back(here)).after.embedder == "echo-embedder"
    await check(here, "echo-embedder")


async def test_the_same_again_if_that_is_wanted(here: Place) -> None:
    await change(here, "small", Cut("plain", 32))
    again = await change(here, "small", Cut("plain", 32), anew=True)
    assert again.switched
    await check(here, "small")


async def test_the_cut_of_another_configuration_is_not_what_a_reindexing_said(here: Place) -> None:
    """The configuration has changed since, and what was ingested by it is cut by it."""
    await change(here, cut=Cut("plain", 32))
    own = {"default": CollectionOptions(chunker="headings")}
    async with place(here.config.model_copy(update={"collections": own}), here.folder) as now:
        await now.ingest()
        done = await reindex(
            places(now), "default", Wanted("small", Cut("plain", 32), Cut("headings", 400))
        )
        assert done.switched
        assert done.before.chunker == "headings"
        assert {info.chunker for info in now.index.documents()} == {"plain"}
        assert (await now.ingest()).unchanged == 8


async def test_who_is_waited_for_is_told(here: Place) -> None:
    told: list[Progress] = []
    other = Collections(here.collections.folder)
    with other.writer("default"):
        changing = asyncio.create_task(change(here, progress=told.append))
        said = f"waiting for process {os.getpid()}"
        while not told or told[-1].current != said:  # noqa: ASYNC110
            await asyncio.sleep(0.02)
    other.close()
    assert (await changing).switched


def during(work: Callable[[], Awaitable[object]]) -> Callable[..., Awaitable[bool]]:
    """A comparison that does something else, and then takes the new index."""

    async def compare(before: EmbeddedIndex, after: EmbeddedIndex) -> bool:
        await work()
        return True

    return compare


async def test_a_collection_that_was_deleted_meanwhile(here: Place) -> None:
    async def delete() -> None:
        Collections(here.collections.folder).delete("default")

    with pytest.raises(UnknownCollection):
        await change(here, compare=during(delete))
    assert not (here.collections.folder / "default").exists()


async def test_a_collection_that_was_deleted_while_it_was_read(here: Place) -> None:
    def delete(now: Progress) -> None:
        if now.files_done == 2 and here.collections.names():
            Collections(here.collections.folder).delete("default")

    with pytest.raises(UnknownCollection):
        await change(here, progress=delete)
    assert here.collections.names() == []


async def test_a_collection_that_was_made_anew_meanwhile(here: Place) -> None:
    async def again() -> None:
        async with place(here.config, here.folder) as other:
            other.collections.delete("default")
            write(here.folder, f0="# Gate\n\nThe gate opens.")
            await other.ingest()

    with pytest.raises(BadRequest, match="made anew meanwhile"):
        await change(here, compare=during(again))
    await check(here, "echo-embedder")
    assert (await find(here, text="The gate opens")).hits[0].text == "The gate opens."
    assert kept(here.index) == {}
    folder = here.collections.folder / "default"
    used = {"lexical", "dense"}
    assert len([path for path in folder.iterdir() if path.name.split("-")[0] in used]) <= 2
