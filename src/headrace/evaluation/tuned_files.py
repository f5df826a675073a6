"""What a tuning run leaves: the configuration it found, and the evidence for it."""

from __future__ import annotations

from pathlib import Path

import msgspec

from headrace.config.edit import with_values
from headrace.errors import BadRequest, StorageError
from headrace.evaluation.journal import OTHER_FOLDER, Identity
from headrace.evaluation.markdown import table
from headrace.evaluation.metrics import LOWER_IS_BETTER
from headrace.evaluation.tuner import Evidence, Tuned
from headrace.retrieval.database import translated
from headrace.retrieval.files import replace_file

CONFIG, EVIDENCE, DATA = "headrace.yaml", "evidence.md", "tuned.json"


def write_tuned(tuned: Tuned, text: str, folder: Path) -> None:
    """The three files in `folder`. `text` is the configuration file that it began with; its order
    and its comments stay. Blocks. Raises `StorageError`."""
    for name, content in (
        (CONFIG, with_values(text, dict(tuned.values))),
        (EVIDENCE, evidence(tuned)),
        (DATA, msgspec.json.encode(tuned).decode()),
    ):
        with translated(folder, OTHER_FOLDER):
            folder.mkdir(parents=True, exist_ok=True)
            replace_file(folder / name, content.encode())


def earlier(folder: Path, identity: Identity) -> Tuned | None:
    """What an earlier run of the same found in `folder`, if there was one. Blocks. Raises
    `BadRequest` if it measured another thing, `StorageError` if it cannot be read."""
    path = folder / DATA
    try:
        found = msgspec.json.decode(path.read_bytes(), type=Tuned)
    except FileNotFoundError:
        return None
    except OSError as error:
        raise StorageError(f"{path}: cannot be read: {error.strerror}; {OTHER_FOLDER}") from error
    except msgspec.DecodeError as error:
        raise StorageError(
            f"{path} is damaged, or of another version of headrace ({error}); --fresh begins anew"
        ) from error
    changed = identity.changes(found.identity) if found.identity else "all of it"
    if changed:
        raise BadRequest(
            f"{path} holds {len(found.evidence)} trials from before {changed} changed, and results "
            "of two states must not be mixed: --fresh begins anew, another --out keeps both"
        )
    return found


def evidence(tuned: Tuned) -> str:
    """Markdown for a reader who was not there."""
    before, after = tuned.before.total, tuned.after.total
    share = after.p95 / before.p95
    how = "measured in turns at the end" if tuned.checked else "not measured side by side"
    parts = [
        "# A faster configuration",
        f"95 % of the answers came within {after.p95:.0f} ms, {share:.2f} of the "
        f"{before.p95:.0f} ms of the configuration it began with ({how}). The target "
        f"of {tuned.target_ms:.0f} ms is {'reached' if tuned.reached else 'not reached'}. "
        f"{tuned.questions} questions, {tuned.asked} answers in {tuned.seconds:.0f} s; it ended "
        f"because {tuned.ended or 'it was stopped'}.",
        "## Times and quality",
        _sides(tuned),
        "## What was tried",
        "A trial is the slower half of the questions under both configurations in turns; *ratio* "
        "is the new time divided by the old one. What was faster answered the whole suite.",
        table(
            ("lever", "change", "ratio", "p95, ms", "verdict"),
            [_row(one) for one in tuned.evidence],
        ),
    ]
    if tuned.values:
        lines = [f"- `{'.'.join(path)}: {_plain(value)}`" for path, value in tuned.values]
        parts += ["## What was kept", "\n".join(lines)]
    return "\n\n".join(parts) + "\n"


def _sides(tuned: Tuned) -> str:
    before, after = tuned.before, tuned.after
    rows = [
        (f"answer, {name} in ms", f"{getattr(before.total, name):.0f}", f"{now:.0f}")
        for name in ("p50", "p95")
        if (now := getattr(after.total, name)) is not None
    ]
    for name, old in before.metrics.items():
        new = after.metrics.get(name)
        better = " (lower is better)" if name in LOWER_IS_BETTER else ""
        rows.append((name + better, f"{old.value:.3f}", "-" if new is None else f"{new.value:.3f}"))
    return table(("", "before", "after"), rows)


def _row(one: Evidence) -> tuple[str, str, str, str, str]:
    worse = ", ".join(
        f"{name} {old:g} → {'absent' if new is None else f'{new:g}'}"
        for name, (old, new) in one.worse.items()
    )
    why = one.why or worse
    verdict = f"{one.verdict}: {why}" if why else one.verdict
    if one.verdict == "kept":
        verdict = f"kept; can harm: {one.harms}"
    return (
        one.lever,
        one.change,
        "-" if one.ratio is None else f"{one.ratio:.2f}",
        "-" if one.after is None else f"{one.after.total.p95:.0f}",
        verdict,
    )


def _plain(value: object) -> str:
    return "null" if value is None else str(value)
