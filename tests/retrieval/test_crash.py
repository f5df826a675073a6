"""kill -9 at any moment: nothing that was promised is lost, nothing half done is seen."""

from __future__ import annotations

import random
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from headrace.engines.base import ModelInfo
from headrace.retrieval.collections import Collections
from headrace.types import ALL_ACCESS, Filter, Role

OWNER = Filter(access=ALL_ACCESS)
INFO = ModelInfo("toy", Role.EMBEDDER, "echo", "toy-1", 16)
ROUNDS = 8

_CHILD = """
import sys
from pathlib import Path
sys.path.insert(0, sys.argv[2])
from conftest import make_document
from headrace.retrieval import derived, embedded
from headrace.retrieval.collections import Collections
embedded.PERSIST_SECONDS = 0.05
derived.FLAT_ROWS = 40
derived.MERGE_SHARE = 0.2
collections = Collections(Path(sys.argv[1]))
with collections.writer("laws") as index:
    i = int(sys.argv[3])
    while True:
        texts = [f"word{j} of version {i}" for j in range(5)]
        index.upsert(*make_document(f"d{i % 40}", texts, seed=i))
        print("stored", i, flush=True)
        if i % 7 == 6:
            index.delete([f"d{(i - 3) % 40}"])
            print("deleted", i - 3, flush=True)
        if i % 31 == 30:
            index.rebuild()
        i += 1
"""


@pytest.mark.slow
def test_killed_at_random_moments(tmp_path: Path) -> None:
    """The child's last printed line may be behind what it committed by one operation."""
    folder = tmp_path / "collections"
    with_lock = Collections(folder)
    with_lock.create("laws", "toy", INFO)
    with_lock.close()
    chance = random.Random(7)
    present: dict[str, int] = {}
    following = 0
    for _ in range(ROUNDS):
        lines = _run_and_kill(folder, following, chance.uniform(0.1, 1.2))
        for verb, number in lines:
            if verb == "stored":
                present[f"d{number % 40}"] = number
                following = number + 1
            else:
                present.pop(f"d{number % 40}", None)
        collections = Collections(folder)
        index = collections.open("laws")
        stored = {info.id for info in index.documents()}
        assert len(stored ^ present.keys()) <= 1
        _every_document_is_whole(index, stored)
        report = collections.verify("laws")
        assert report.ok, report.differences
        present = {
            name: int(index.document(name).parsed.text.split()[3])  # type: ignore[union-attr]
            for name in stored
        }
        following = max([following, *(n + 1 for n in present.values())])
        collections.close()
    assert following > ROUNDS


def _run_and_kill(folder: Path, following: int, seconds: float) -> list[tuple[str, int]]:
    command = [
        sys.executable,
        "-c",
        _CHILD,
        str(folder),
        str(Path(__file__).parent),
        str(following),
    ]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as child:
        assert child.stdout is not None
        first = child.stdout.readline()
        assert first.startswith("stored"), "the child did not start"
        time.sleep(seconds)
        child.send_signal(signal.SIGKILL)
        rest = child.stdout.read()
    lines = [line.split() for line in (first + rest).split("\n") if " " in line]
    return [(verb, int(number)) for verb, number in lines if number]


def _every_document_is_whole(index: object, stored: set[str]) -> None:
    """All chunks of what is stored can be found, nothing else is, and texts are the documents'."""
    found = index.search_lexical("version", 1000, OWNER)  # type: ignore[attr-defined]
    hits = index.get({s.chunk_id: {} for s in found}, OWNER)  # type: ignore[attr-defined]
    by_document: dict[str, int] = {}
    for hit in hits:
        by_document[hit.document_id] = by_document.get(hit.document_id, 0) + 1
        document = index.document(hit.document_id)  # type: ignore[attr-defined]
        assert hit.span.of(document.parsed.text) == hit.text
    assert by_document == dict.fromkeys(stored, 5)
    assert len(found) == 5 * len(stored)
