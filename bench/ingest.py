"""Ingestion of whole laws: articles found, characters lost, speed against the embedder's own.

The laws are ingested in groups. After each group, the batches that ingestion sent to the embedder
are sent again straight to the same worker, with as many in flight, so both sides see the same
texts and the same machine. The articles are then read back from the index and compared with a
corpus made independently.
"""

from __future__ import annotations

import asyncio
import tempfile
import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import NamedTuple

from bench.harness import Result, Table, shared_data
from bench.laws import Comparison, compare_articles, found_articles, unpack
from headrace.config.load import load
from headrace.config.options import Config
from headrace.engines.base import Vectors
from headrace.ingest.embedding import IN_FLIGHT
from headrace.ingest.jobs import Jobs
from headrace.ingest.outcomes import Report
from headrace.retrieval.collections import Collections
from headrace.retrieval.embedded import EmbeddedIndex
from headrace.serving.pool import Pool
from headrace.types import ALL_ACCESS, BULK, USER, Call, Chunk, EmbedKind, Filter

COLLECTION = "laws"
GROUPS = 6
QUICK_BYTES = 220_000
QUICK_GROUPS = 2


class Recording(Pool):
    """Remembers the batches of passages, and for how long there was at least one to work on."""

    batches: list[list[str]]
    busy = 0.0
    _in_flight = 0
    _since = 0.0

    async def embed(
        self,
        model: str,
        texts: Sequence[str],
        kind: EmbedKind,
        *,
        call: Call = USER,
    ) -> Vectors:
        self.batches.append(list(texts))
        if not self._in_flight:
            self._since = time.perf_counter()
        self._in_flight += 1
        try:
            return await super().embed(model, texts, kind, call=call)
        finally:
            self._in_flight -= 1
            if not self._in_flight:
                self.busy += time.perf_counter() - self._since


class Row(NamedTuple):
    """One group of files: texts embedded, seconds of ingestion, seconds of the embedder alone
    with the same texts, and seconds of ingestion in which the embedder had work."""

    texts: int
    ingestion: float
    alone: float
    busy: float


def run(quick: bool) -> Result:
    """Ingest the laws (a fixed subset, if `quick`) into a fresh data folder."""
    laws = shared_data() / "laws"
    with tempfile.TemporaryDirectory(prefix="headrace-bench-") as folder:
        paths = unpack(laws / "markdown.tar.gz", Path(folder) / "laws")
        if quick:
            paths = subset(paths, QUICK_BYTES)
        config = load().model_copy(update={"data_dir": Path(folder) / "data"})
        count = QUICK_GROUPS if quick else GROUPS
        rows, reports = asyncio.run(measure(config, [paths[i::count] for i in range(count)]))
        comparison = read_back(config, laws / "corpus.jsonl.gz")
    return result_of(rows, reports, comparison, len(paths))


def subset(paths: Sequence[Path], size: int) -> list[Path]:
    """Every third file that has articles and is not too long, until `size` bytes are reached:
    always the same ones."""
    chosen, total = [], 0
    for path in paths[::3]:
        length = path.stat().st_size
        if length < size // 4 and "第二条" in path.read_text(encoding="utf-8"):
            chosen.append(path)
            total += length
        if total >= size:
            break
    return chosen


async def measure(
    config: Config, groups: Sequence[Sequence[Path]]
) -> tuple[list[Row], list[Report]]:
    """One row per group of files."""
    rows: list[Row] = []
    reports: list[Report] = []
    embedder = config.defaults.embedder
    collections = Collections(config.data_dir / "collections")
    models = Recording(config)
    models.batches = []
    async with models:
        await models.embed(embedder, ["warm up"] * 32, "passage")
        jobs = Jobs(config, collections, models)
        for group in groups:
            models.batches, models.busy = [], 0.0
            began = time.perf_counter()
            reports.append(await jobs.run(COLLECTION, group))
            ingestion = time.perf_counter() - began
            batches, busy = list(models.batches), models.busy
            alone = await embed_straight(models, embedder, batches)
            rows.append(Row(sum(map(len, batches)), ingestion, alone, busy))
    collections.close()
    return rows, reports


async def embed_straight(models: Pool, embedder: str, batches: list[list[str]]) -> float:
    """Seconds that the embedder takes for the batches, as many in flight as ingestion has."""
    waiting = iter(batches)

    async def send() -> None:
        for batch in waiting:
            await models.embed(embedder, batch, "passage", call=BULK)

    began = time.perf_counter()
    async with asyncio.TaskGroup() as group:
        for _ in range(IN_FLIGHT):
            group.create_task(send())
    return time.perf_counter() - began


def read_back(config: Config, corpus: Path) -> Comparison:
    """Compare the articles that stand in the index with the corpus."""
    collections = Collections(config.data_dir / "collections")
    try:
        index = collections.open(COLLECTION)
        return compare_articles(found_articles(stored_chunks(index)), corpus)
    finally:
        collections.close()


def stored_chunks(index: EmbeddedIndex) -> Iterator[tuple[str, Chunk, str]]:
    with index.reading() as db:
        ids = [row[0] for row in db.execute("SELECT id FROM chunks ORDER BY id")]
    for start in range(0, len(ids), 500):
        some = {chunk_id: {"lexical": 0.0} for chunk_id in ids[start : start + 500]}
        for hit in index.get(some, Filter(access=ALL_ACCESS)):
            yield hit.source, Chunk(hit.span, hit.path), hit.text


def result_of(
    rows: Sequence[Row],
    reports: Sequence[Report],
    comparison: Comparison,
    files: int,
) -> Result:
    result = Result()
    texts = sum(row.texts for row in rows)
    seconds = sum(row.ingestion for row in rows)
    ours = texts / seconds
    alone = texts / sum(row.alone for row in rows)
    result.add("throughput_ratio", ours / alone, ">=", 0.85)
    result.add("passages_per_second", ours)
    result.add("embedder_passages_per_second", alone)
    result.add("embedder_busy_share", sum(row.busy for row in rows) / seconds)
    result.add("articles_equal_share", comparison.share, ">=", 0.99)
    result.add("articles_expected", comparison.expected)
    result.add("articles_equal", comparison.equal)
    result.add("characters", sum(report.characters for report in reports))
    result.add("characters_unaccounted", sum(report.unaccounted for report in reports), "<=", 0)
    result.add("documents", sum(report.added for report in reports))
    result.add("files_skipped", sum(report.skipped for report in reports))
    result.tables.append(
        Table(
            "Groups of laws",
            ("texts embedded", "ingestion s", "of it embedder busy s", "embedder alone s", "ratio"),
            [
                (
                    row.texts,
                    round(row.ingestion, 2),
                    round(row.busy, 2),
                    round(row.alone, 2),
                    round(row.alone / row.ingestion, 3),
                )
                for row in rows
            ],
        )
    )
    skipped = [file for report in reports for file in report.files if file.outcome == "skipped"]
    result.notes += [f"skipped {Path(file.source).name}: {file.reason}" for file in skipped]
    result.notes.append(f"{files} files; warm-up: 32 texts; the first group starts the reader")
    return result
