"""A disk that fills up, by way of the system's limit on the size of files."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

from ingesting import place, write

from headrace.config.options import Config
from headrace.retrieval.embedded import STORE_FILE

_PROGRAM = """
import asyncio, resource, sys
from pathlib import Path
from headrace.serving.catalogue import model_specs
from headrace.config.options import Config
from headrace.errors import StorageError
from headrace.ingest.jobs import Jobs
from headrace.retrieval.collections import Collections
from headrace.serving.local import LocalModels

async def main():
    config = Config.model_validate_json(sys.argv[1])
    collections = Collections(config.data_dir / "collections")
    jobs = Jobs(config, collections, LocalModels(model_specs(config)))
    limit = int(sys.argv[3])
    resource.setrlimit(resource.RLIMIT_FSIZE, (limit, limit))
    try:
        await jobs.run("default", [Path(sys.argv[2])], prune=True)
    except StorageError as error:
        print("refused:", error)

asyncio.run(main())
"""


def limited(config: Config, folder: Path, largest_file: int) -> str:
    """What ingestion prints when no file may become larger."""
    command = [sys.executable, "-c", _PROGRAM, config.model_dump_json(), str(folder)]
    done = subprocess.run(
        [*command, str(largest_file)], capture_output=True, text=True, check=False
    )
    return done.stdout + done.stderr


async def test_a_full_disk_leaves_the_index_as_it_was(fast: Config, tmp_path: Path) -> None:
    folder = tmp_path / "in"
    async with place(fast, folder) as here:
        write(folder, small="# Small\n\nThe gate is open.")
        await here.ingest()
    size = (fast.data_dir / "collections" / "default" / STORE_FILE).stat().st_size
    words = "\n\n".join(f"# Part {i}\n\nWheel {i} turns {i * i} times." for i in range(3000))
    write(folder, large=words)
    assert limited(fast, folder, size + 200_000).startswith("refused:")
    async with place(fast, folder) as here:
        assert set(here.stored()) == {"small.md"}
        assert here.collections.verify("default").differences == ()
        report = await here.ingest()
        assert (report.added, report.unchanged) == (1, 1)
        assert here.collections.verify("default").differences == ()
