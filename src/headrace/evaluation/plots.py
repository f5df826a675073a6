"""Plots of a report, as SVG files."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

from headrace.evaluation.metrics import CUTOFFS, STAGES
from headrace.evaluation.report import Report

if TYPE_CHECKING:
    from matplotlib.figure import Figure

SIZE = (7.0, 3.6)


def plot(report: Report, folder: Path) -> list[str]:
    """Writes what there is to plot, and gives the names of the files. Blocks."""
    import matplotlib as mpl

    kinds: dict[str, Callable[[Report], Figure | None]] = {
        "recall-by-stage.svg": _recall,
        "metrics.svg": _bars,
        "time-per-stage.svg": _times,
    }
    written = []
    # Without a date and with fixed ids, equal results are equal files.
    with mpl.rc_context({"svg.hashsalt": "headrace", "font.family": "DejaVu Sans"}):
        for name, kind in kinds.items():
            figure = kind(report)
            if figure is not None:
                figure.savefig(folder / name, metadata={"Date": None})
                written.append(name)
    return written


def _axes(title: str) -> tuple[Figure, Any]:
    """A figure of its own: pyplot would keep every one for ever, and look for a screen."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=SIZE, layout="constrained")
    axes = figure.add_subplot()
    axes.set_title(title)
    axes.grid(axis="x" if title.startswith("Time") else "y", alpha=0.3)
    return figure, axes


def _recall(report: Report) -> Figure | None:
    stages = [stage for stage in STAGES if f"{stage}.R@1" in report.metrics]
    if not stages:
        return None
    figure, axes = _axes("Recall of gold passages by stage")
    for stage in stages:
        points = [
            (k, report.metrics[f"{stage}.R@{k}"].value)
            for k in CUTOFFS
            if f"{stage}.R@{k}" in report.metrics
        ]
        axes.plot(*zip(*points, strict=True), marker="o", label=stage)
    axes.set_xscale("log")
    axes.set_xticks(CUTOFFS, [str(k) for k in CUTOFFS])
    axes.minorticks_off()
    axes.set_xlabel("first k hits")
    axes.set_ylim(0, 1)
    axes.legend()
    return figure


def _bars(report: Report) -> Figure | None:
    """What is a share, of quotes, answers, refusals and choices."""
    names = [
        name
        for name, metric in report.metrics.items()
        if name.split(".")[0] in ("quotes", "answers", "refusal", "choice")
        and name != "answers.unsupported"
        and 0 <= metric.value <= 1
    ]
    if not names:
        return None
    figure, axes = _axes("Quotes, answers, refusals")
    values = [report.metrics[name].value for name in names]
    bars = axes.bar(names, values)
    axes.bar_label(bars, fmt="%.2f")
    axes.set_ylim(0, 1.1)
    axes.tick_params(axis="x", rotation=30)
    return figure


def _times(report: Report) -> Figure | None:
    if not report.times:
        return None
    figure, axes = _axes("Time per stage")
    stages = list(report.times)[::-1]
    for shift, which in ((0.2, "p50"), (-0.2, "p95")):
        places = [place + shift for place in range(len(stages))]
        values = [max(getattr(report.times[stage], which), 0.01) for stage in stages]
        axes.barh(places, values, 0.4, label=which)
    axes.set_yticks(range(len(stages)), stages)
    axes.set_xscale("log")
    axes.set_xlabel("milliseconds, logarithmic")
    axes.legend()
    figure.set_figheight(max(SIZE[1], 0.32 * len(stages) + 1.2))
    return figure
