"""`kill -9` at any moment: nothing is lost, nothing is doubled, nothing is left running."""

from __future__ import annotations

import random
import subprocess
import sys
import time
from pathlib import Path

import psutil
import pytest
from ingesting import Place, place, with_ingest

from headrace.config.options import Config
from headrace.ingest.outcomes import JobState

ROUNDS = 8
FILES = 30
_PROGRAM = """
import asyncio, sys
from pathlib import Path
from headrace.serving.catalogue import model_specs
from headrace.config.options import Config
from headrace.ingest.jobs import Jobs
from headrace.retrieval.collections import Collections
from headrace.serving.local import LocalModels

async def main():
    config = Config.model_validate_json(sys.argv[1])
    collections = Collections(config.data_dir / "collections")
    jobs = Jobs(config, collections, LocalModels(model_specs(config)))
    print("begun", flush=True)
    await jobs.run("default", [Path(sys.argv[2])], prune=True)

asyncio.run(main())
"""


def text_of(number: int, version: int) -> str:
    parts = [f"# File {number}\n\nThis is version {version}."]
    parts += [f"## Part {i}\n\nIn file {number} wheel {i} turns." for i in range(12)]
    return "\n\n".join(parts) + "\n"


def killed_after(config: Config, folder: Path, seconds: float) -> None:
    command = [sys.executable, "-c", _PROGRAM, config.model_dump_json(), str(folder)]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == "begun\n"
        time.sleep(seconds)
        children = psutil.Process(process.pid).children(recursive=True)
        process.kill()
    deadline = time.monotonic() + 30
    while any(child.is_running() and child.status() != "zombie" for child in children):
        assert time.monotonic() < deadline, "a reader is still there"
        time.sleep(0.02)


def check(here: Place, texts: dict[str, str]) -> None:
    """What is stored is whole, and is a version that the folder had."""
    assert here.collections.verify("default").differences == ()
    for info in here.index.documents():
        document = here.index.document(info.id)
        assert document is not None
        assert info.chunks == 13
        assert info.characters == len(document.parsed.text)
    assert len({info.source for info in here.index.documents()}) == len(here.index.documents())
    assert set(here.stored()) <= set(texts)


@pytest.mark.slow
async def test_killed_at_random_moments(fast: Config, tmp_path: Path) -> None:
    chance = random.Random(20)
    folder = tmp_path / "文件"
    folder.mkdir()
    model = fast.models["echo-embedder"].model_copy(update={"source": "delay=0.01"})
    models = {**fast.models, "echo-embedder": model}
    config = with_ingest(fast.model_copy(update={"models": models}), batch_texts=4)
    texts: dict[str, str] = {}
    for number in range(FILES):
        texts[f"{number:02}.md"] = text_of(number, 0)
    for version in range(1, ROUNDS + 1):
        for name, text in texts.items():
            (folder / name).write_text(text, encoding="utf-8")
        killed_after(config, folder, chance.uniform(0.1, 1.5))
        changed = chance.randrange(FILES)
        texts[f"{changed:02}.md"] = text_of(changed, version)
    for name, text in texts.items():
        (folder / name).write_text(text, encoding="utf-8")
    async with place(config, folder) as here:
        check(here, texts)
        states = {job.state for job in await here.jobs.list()}
        assert states <= {JobState.INTERRUPTED, JobState.DONE}
        await here.ingest(prune=True)
        check(here, texts)
        assert here.stored() == texts
        again = await here.ingest(prune=True)
        assert (again.unchanged, again.embedded, again.files) == (FILES, 0, ())
        with here.index.reading() as db:
            (vectors,) = db.execute("SELECT count(*) FROM vectors").fetchone()
            (used,) = db.execute("SELECT count(DISTINCT vector) FROM chunks").fetchone()
        assert vectors == used
