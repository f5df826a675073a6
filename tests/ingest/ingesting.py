"""What tests of ingestion share: a data folder with an echo embedder."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path

from headrace.config.options import Config
from headrace.engines.base import Vectors
from headrace.errors import ModelFailed
from headrace.ingest.jobs import Jobs
from headrace.ingest.outcomes import Report
from headrace.retrieval.collections import Collections
from headrace.retrieval.embedded import EmbeddedIndex
from headrace.serving.catalogue import model_specs
from headrace.serving.local import LocalModels
from headrace.types import USER, Call, EmbedKind


class CountingModels(LocalModels):
    """Remembers what was embedded; refuses texts that hold `poison`."""

    poison = "\0never"
    texts: list[str]

    async def embed(
        self, model: str, texts: object, kind: EmbedKind, *, call: Call = USER
    ) -> Vectors:
        assert isinstance(texts, list | tuple)
        self.texts.extend(texts)
        if any(self.poison in text for text in texts):
            raise ModelFailed("the engine choked")
        return await super().embed(model, texts, kind, call=call)


@dataclass
class Place:
    """A data folder, and what works on it."""

    config: Config
    collections: Collections
    models: CountingModels
    jobs: Jobs
    folder: Path

    async def ingest(self, *paths: Path, prune: bool = False) -> Report:
        return await self.jobs.run("default", paths or (self.folder,), prune=prune)

    @property
    def index(self) -> EmbeddedIndex:
        return self.collections.open("default")

    def stored(self) -> dict[str, str]:
        """Text by file name."""
        found = {}
        for info in self.index.documents():
            document = self.index.document(info.id)
            assert document is not None
            found[info.source.rpartition("/")[2]] = document.parsed.text
        return found


@asynccontextmanager
async def place(config: Config, folder: Path) -> AsyncIterator[Place]:
    models = CountingModels(model_specs(config))
    models.texts = []
    collections = Collections(config.data_dir / "collections")
    try:
        folder.mkdir(exist_ok=True)  # noqa: ASYNC240 - a test may wait
        yield Place(config, collections, models, Jobs(config, collections, models), folder)
    finally:
        collections.close()
        await models.close()


def with_ingest(config: Config, **options: object) -> Config:
    return config.model_copy(update={"ingest": config.ingest.model_copy(update=options)})


def write(folder: Path, **texts: str) -> None:
    """Markdown files by name."""
    for name, text in texts.items():
        (folder / f"{name}.md").write_text(text, encoding="utf-8")
