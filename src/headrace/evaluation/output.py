"""The folder that a run leaves: JSON for programs, Markdown and plots for people."""

from __future__ import annotations

from pathlib import Path

from headrace.evaluation.journal import OTHER_FOLDER
from headrace.evaluation.markdown import markdown
from headrace.evaluation.plots import plot
from headrace.evaluation.report import Report, write
from headrace.retrieval.database import translated
from headrace.retrieval.files import replace_file

MARKDOWN = "report.md"


def write_all(report: Report, folder: Path) -> None:
    """`report.json`, `questions.jsonl`, `report.md` and the plots that it shows. Blocks. Raises
    `StorageError`."""
    write(report, folder)
    with translated(folder, OTHER_FOLDER):
        plots = plot(report, folder)
        replace_file(folder / MARKDOWN, markdown(report, plots).encode())
