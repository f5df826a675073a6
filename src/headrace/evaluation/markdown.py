"""A report for a reader who was not there."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from headrace.evaluation.gate import met, value_of
from headrace.evaluation.metrics import CUTOFFS, STAGES
from headrace.evaluation.report import P99_NEEDS, Report, Row

WORST = 20
"""Questions shown of each sort that went wrong."""

STAGE_WORDS = {
    "dense": "by vectors",
    "lexical": "by words (BM25)",
    "fused": "both lists joined",
    "ranked": "ordered by what was fitted for the collection",
    "rerank": "in the reranker's order",
    "answered": "what the answer was made from",
}
WORDS = {
    "quotes.identical": "quotes that equal the stored document to the byte",
    "quotes.precision": "quotes that stand in gold passages",
    "quotes.recall": "gold passages that are quoted",
    "answers.exact": "answers equal to a gold answer",
    "answers.f1": "F1 with the best gold answer (Han characters, other words)",
    "answers.unsupported": "sentences marked as unsupported, per answer (lower is better)",
    "refusal.correct": "refused without an answer in the documents, answered with one",
    "refusal.false": "answerable questions that were refused (lower is better)",
    "refusal.missed": "unanswerable questions that were answered (lower is better)",
    "choice.accuracy": "right options chosen",
    "choice.chosen": "answers that mean an option at all",
    "failed": "questions that ended in an error (lower is better)",
}


def markdown(report: Report, plots: Sequence[str] = ()) -> str:
    """`plots` are file names beside the report."""
    parts = [
        _head(report),
        _retrieval(report),
        _others(report),
        _thresholds(report),
        _plots(plots),
        _times(report),
        _notes(report),
        _wrong(report.rows),
    ]
    return "\n\n".join(part for part in parts if part) + "\n"


def table(head: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    """A Markdown table; the columns after the first are numbers, to the right."""
    ruler = ["---", *(["--:"] * (len(head) - 1))]
    return "\n".join("| " + " | ".join(map(_cell, row)) + " |" for row in [head, ruler, *rows])


def _cell(text: str) -> str:
    return " ".join(text.split()).replace("|", "\\|")


def _head(report: Report) -> str:
    models = ", ".join(f"{role} `{name}`" for role, name in report.models.items())
    lines = [
        f"# Evaluation: {report.name}",
        report.about.strip(),
        f"{report.questions} questions ({', '.join(report.kinds)}) to collection "
        f"`{report.collection}` at generation {report.generation}, {report.concurrency} at once, "
        f"in the bulk lane. {report.date}, headrace {report.program}, {report.machine}.",
        f"Models: {models}. Configuration `{report.config_version}`, suite `{report.suite}`.",
    ]
    return "\n\n".join(line for line in lines if line)


def _retrieval(report: Report) -> str:
    stages = [stage for stage in STAGES if f"{stage}.RR@10" in report.metrics]
    if not stages:
        return ""
    names = [*(f"R@{k}" for k in CUTOFFS), "nDCG@10", "RR@10", "All@10"]
    names = [n for n in names if any(f"{stage}.{n}" in report.metrics for stage in stages)]
    rows = []
    for stage in stages:
        found = [report.metrics.get(f"{stage}.{name}") for name in names]
        rows.append([stage, *("" if one is None else f"{one.value:.3f}" for one in found)])
    asked = report.metrics[f"{stages[0]}.RR@10"].n
    words = "; ".join(f"*{stage}*: {STAGE_WORDS[stage]}" for stage in stages)
    return (
        f"## Finding\n\nOver the {asked} questions with gold passages. R@k is the share of a "
        f"question's gold passages among the first k; All@10 the share of the questions with "
        f"several gold passages that have all of them among the first 10.\n\n"
        f"{table(['stage', *names], rows)}\n\n{words}."
    )


def _others(report: Report) -> str:
    rows = [
        [f"{name}: {WORDS[name]}", f"{metric.value:.3f}", str(metric.n)]
        for name, metric in report.metrics.items()
        if name in WORDS
    ]
    return "## Answering\n\n" + table(["metric", "mean", "questions"], rows)


def _thresholds(report: Report) -> str:
    if not report.thresholds:
        return ""
    rows = []
    for name, threshold in report.thresholds.items():
        found = value_of(report, name)
        value = "absent" if found is None else f"{found:.3f}"
        rows.append([name, threshold, value, "yes" if met(report, name, threshold) else "**no**"])
    return "## Thresholds of the suite\n\n" + table(["metric", "wanted", "is", "met"], rows)


def _plots(plots: Sequence[str]) -> str:
    return "\n\n".join(f"![{name.split('.')[0].replace('-', ' ')}]({name})" for name in plots)


def _times(report: Report) -> str:
    if not report.times:
        return ""
    rows = [
        [
            stage,
            f"{found.p50:.1f}",
            f"{found.p95:.1f}",
            "" if found.p99 is None else f"{found.p99:.1f}",
            str(found.n),
        ]
        for stage, found in report.times.items()
    ]
    short = any(found.p99 is None for found in report.times.values())
    note = f" p99 is left out below {P99_NEEDS} questions." if short else ""
    return (
        "## Time per stage\n\nMilliseconds, waiting for other questions included."
        f"{note}\n\n{table(['stage', 'p50', 'p95', 'p99', 'questions'], rows)}"
    )


def _notes(report: Report) -> str:
    notes = [f"* {count} x skipped: {what}" for what, count in sorted(report.skipped.items())]
    notes += [f"* {count} x failed: {what}" for what, count in sorted(report.failures.items())]
    notes += [f"* {note}" for note in report.notes]
    if report.chosen_by:
        ways = ", ".join(f"{way} {count}" for way, count in sorted(report.chosen_by.items()))
        notes.append(f"* options recognised by: {ways}")
    return "## Notes\n\n" + "\n".join(notes) if notes else ""


# What went wrong ---------------------------------------------------------------------------------


def _wrong(rows: Sequence[Row]) -> str:
    """The questions to look at first, by sort."""
    sorts = {
        "Failed": [row for row in rows if row.values.get("failed")],
        "Refused though answerable": [row for row in rows if row.values.get("refusal.false")],
        "Answered though not answerable": [row for row in rows if row.values.get("refusal.missed")],
        "Quotes that are not in the document": [
            row for row in rows if row.values.get("quotes.identical", 1.0) < 1.0
        ],
        "Gold passage not among the first 10": [
            row
            for row in rows
            if row.values.get("rerank.R@10", row.values.get("fused.R@10", 1.0)) == 0.0
        ],
        "Gold passage not quoted": [
            row for row in rows if row.values.get("quotes.recall") == 0.0 and not row.record.refusal
        ],
    }
    parts = [_sort(title, found) for title, found in sorts.items() if found]
    return "## What to look at\n\n" + "\n\n".join(parts) if parts else ""


def _sort(title: str, rows: Sequence[Row]) -> str:
    shown = [
        f"* `{row.id}` {_short(row.text, 120)}"
        + (f" → {_short(row.record.failed or row.record.answer, 160)}" if _said(row) else "")
        for row in rows[:WORST]
    ]
    more = f"\n* ... and {len(rows) - WORST} more in questions.jsonl" if len(rows) > WORST else ""
    return f"### {title} ({len(rows)})\n\n" + "\n".join(shown) + more


def _said(row: Row) -> bool:
    return bool(row.record.failed or row.record.answer)


def _short(text: str, characters: int) -> str:
    line = " ".join(text.split()).replace("`", "'").replace("|", "\\|")
    return line if len(line) <= characters else line[: characters - 1] + "…"
