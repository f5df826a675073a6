"""An evaluation of 13,952 questions that is killed with SIGKILL three times and goes on each time.

The questions are ORAN-Bench's, the documents those of the O-RAN Software Community, the models
`echo` engines, so what is measured is everything around the models. The run is killed when a
quarter, a half and three quarters of the questions are answered, and started again with the same
command. `lost` counts records that were committed before a kill and are missing or different at the
end, `missing` questions without a record. That no question has two is a property of the journal's
primary key; `records` says that there are as many as questions.
"""

from __future__ import annotations

import os
import signal
import sqlite3
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from bench.eval_corpora import oran
from bench.harness import ROOT, Result, Table, shared_data
from headrace.evaluation.journal import FILE
from headrace.evaluation.report import read
from headrace.evaluation.suite import load_suite

CONFIG = """\
data_dir: data
models:
  talk: {role: generator, engine: echo}
  vectors: {role: embedder, engine: echo}
defaults: {generator: talk, embedder: vectors}
"""
SUITE = ROOT / "examples" / "eval" / "oran.yaml"
KILLS = (0.25, 0.5, 0.75)
QUICK_QUESTIONS = 300

Records = dict[str, bytes]


def run(quick: bool) -> Result:
    """`quick` asks 300 questions."""
    asked = load_suite(SUITE, shared_data())
    if quick:
        asked = asked.some(QUICK_QUESTIONS)
    wanted = {question.id for question in asked.questions}
    result = Result()
    with tempfile.TemporaryDirectory(prefix="headrace-bench-") as name:
        folder = Path(name)
        (folder / "headrace.yaml").write_text(CONFIG, encoding="utf-8")
        (folder / "docs").mkdir()
        oran(folder / "docs")
        _headrace(folder, "ingest", "docs", "-C", "oran").check_returncode()
        limit = ["--limit", str(len(wanted))] if quick else []
        command = ["eval", "run", str(SUITE), "--data", str(shared_data()), "-o", "out", *limit]
        journal = folder / "out" / FILE
        began = time.perf_counter()
        kept, rows = _killed(folder, command, journal, len(wanted))
        start = time.perf_counter()
        done = _headrace(folder, *command)
        done.check_returncode()
        rows.append(("to the end", len(wanted), time.perf_counter() - start))
        result.add("seconds", time.perf_counter() - began)
        final = _records(journal)
        report = read(folder / "out")
        size = journal.stat().st_size
    result.add("questions", len(wanted))
    result.add("kills", len(KILLS), ">=", 3)
    result.add("records", len(final), ">=", len(wanted))
    result.add("missing", len(wanted - final.keys()), "<=", 0)
    result.add("lost", sum(final.get(name) != record for name, record in kept.items()), "<=", 0)
    result.add("failed", report.metrics["failed"].value, "<=", 0)
    result.add("reported", report.questions, ">=", len(wanted))
    result.add("journal_mib", size / 2**20)
    result.add("total_p50_ms", report.times["total"].p50)
    result.add("accuracy", report.metrics["choice.accuracy"].value)
    result.tables.append(Table("Sessions", ("session", "answered at its end", "seconds"), rows))
    result.notes.append("echo engines: the accuracy says nothing but that answers were judged")
    return result


def _killed(
    folder: Path, command: list[str], journal: Path, total: int
) -> tuple[Records, list[tuple[object, ...]]]:
    """Start and kill; what had been committed by then, and a row for each session."""
    kept: Records = {}
    rows: list[tuple[object, ...]] = []
    for share in KILLS:
        start = time.perf_counter()
        process = _start(folder, *command)
        while _count(journal) < share * total:
            if process.poll() is not None:
                raise SystemExit(f"the run ended by itself with {process.returncode}")
            time.sleep(0.02)
        process.send_signal(signal.SIGKILL)
        process.wait()
        kept |= _records(journal)
        rows.append((f"killed at {share:.0%}", len(kept), time.perf_counter() - start))
    return kept, rows


def _start(folder: Path, *arguments: str) -> subprocess.Popen[bytes]:
    environment = {k: v for k, v in os.environ.items() if not k.startswith("HEADRACE_")}
    command = [sys.executable, "-m", "headrace", *arguments]
    return subprocess.Popen(
        command, cwd=folder, env=environment, stdout=subprocess.DEVNULL, stdin=subprocess.DEVNULL
    )


def _headrace(folder: Path, *arguments: str) -> subprocess.CompletedProcess[bytes]:
    process = _start(folder, *arguments)
    return subprocess.CompletedProcess(arguments, process.wait())


def _count(journal: Path) -> int:
    """Committed records; 0 until there is a journal."""
    if not journal.exists():
        return 0
    db = sqlite3.connect(f"file:{journal}?mode=ro", uri=True, timeout=10)
    try:
        return int(db.execute("SELECT count(*) FROM records").fetchone()[0])
    except sqlite3.OperationalError:  # the table is about to be made
        return 0
    finally:
        db.close()


def _records(journal: Path) -> Records:
    db = sqlite3.connect(journal, timeout=10)
    try:
        return dict(db.execute("SELECT id, record FROM records"))
    finally:
        db.close()
