"""The corpora of the evaluation suites, written as documents that `headrace ingest` reads.

python -m bench.eval_corpora hotpot DIR    994 passages, one Markdown file each
python -m bench.eval_corpora oran DIR      documents of the O-RAN Software Community
python -m bench.eval_corpora laws DIR      58,594 articles, one Markdown file a law
"""

from __future__ import annotations

import json
import re
import sys
import tarfile
from itertools import groupby
from pathlib import Path

from bench.harness import shared_data
from bench.law_corpus import articles


def hotpot(folder: Path) -> int:
    """One file a passage: its title as heading, then its sentences."""
    path = shared_data() / "multihop" / "hotpotqa_train_corpus.json"
    corpus: dict[str, list[str]] = json.loads(path.read_text(encoding="utf-8"))
    for number, (title, sentences) in enumerate(corpus.items()):
        text = f"# {title}\n\n{''.join(sentences).strip()}\n"
        (folder / f"{number:04}-{_name(title)}.md").write_text(text, encoding="utf-8")
    return len(corpus)


def oran(folder: Path) -> int:
    with tarfile.open(shared_data() / "oran" / "docs.tar.gz") as archive:
        archive.extractall(folder, filter="data")
        return sum(member.isfile() for member in archive)


def laws(folder: Path) -> int:
    """One file a law, an article a paragraph, in the order of the corpus."""
    count = 0
    for law, group in groupby(articles(), key=lambda article: article.law):
        members = list(group)
        parts = [f"# {law}", *(f"{one.name} {one.text}" for one in members)]
        name = f"{members[0].number:05}-{_name(law)}.md"
        (folder / name).write_text("\n\n".join(parts) + "\n", encoding="utf-8")
        count += 1
    return count


def _name(title: str) -> str:
    """A title as a file's name."""
    return re.sub(r"[^\w-]+", "-", title).strip("-")[:60] or "untitled"


CORPORA = {"hotpot": hotpot, "oran": oran, "laws": laws}


def main(arguments: list[str]) -> None:
    if len(arguments) != 2 or arguments[0] not in CORPORA:
        raise SystemExit(f"usage: python -m bench.eval_corpora {'|'.join(CORPORA)} DIR")
    folder = Path(arguments[1])
    folder.mkdir(parents=True, exist_ok=True)
    count = CORPORA[arguments[0]](folder)
    print(f"{count} files in {folder}")


if __name__ == "__main__":
    main(sys.argv[1:])
