"""Comparing the articles that ingestion finds with a corpus of articles made independently."""

from __future__ import annotations

import gzip
import json
import re
import tarfile
from collections import defaultdict
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import NamedTuple

from headrace.errors import ReadError
from headrace.ingest.chunkers import chunk, unaccounted
from headrace.ingest.readers import ReadLimits, read
from headrace.types import Chunk, Parsed

_ARTICLE = re.compile(r"第[零〇一二三四五六七八九十百千]+条(?:之[一二三四五六七八九十]+)?")
_YEAR = re.compile(r"（\d{4}年）$")

Articles = Mapping[tuple[str, str], set[str]]
"""(law, article) -> its texts without white space, one per version of the law."""


class Comparison(NamedTuple):
    """How many articles the corpus has for the laws that were read, how many of them were found
    with equal text, and which were not."""

    expected: int
    equal: int
    missing: list[tuple[str, str]]

    @property
    def share(self) -> float:
        return self.equal / max(1, self.expected)


class CutLaw(NamedTuple):
    """One file as ingestion sees it: parsed, cut, and how many characters got lost."""

    path: Path
    parsed: Parsed
    chunker: str
    chunks: tuple[Chunk, ...]
    lost: int


def unpack(archive: Path, folder: Path) -> list[Path]:
    """Unpack a tar archive and list its files in order."""
    with tarfile.open(archive) as tar:
        tar.extractall(folder, filter="data")
    return sorted(path for path in folder.rglob("*") if path.is_file())


def cut(paths: Iterable[Path], budget: int = 400) -> Iterator[CutLaw]:
    """Read and chunk every file; those without text (front matter alone) are left out."""
    for path in paths:
        try:
            parsed = read(path, ReadLimits())
        except ReadError:
            continue
        chunker, chunking = chunk(parsed, "auto", budget)
        lost = sum(len(span) for span in unaccounted(parsed, chunking))
        yield CutLaw(path, parsed, chunker, chunking.chunks, lost)


def found_articles(chunks: Iterable[tuple[str, Chunk, str]]) -> Articles:
    """The articles in (source, chunk, chunk's text), pieces joined. The corpus names a law by its
    title without the state's name and the year of an amendment."""
    pieces: dict[tuple[str, str, str], list[str]] = defaultdict(list)
    for source, piece, text in chunks:
        if piece.path and _ARTICLE.fullmatch(piece.path[-1]):
            law = _YEAR.sub("", piece.path[0].removeprefix("中华人民共和国"))
            pieces[source, law, piece.path[-1]].append(_squeezed(text))
    articles: dict[tuple[str, str], set[str]] = defaultdict(set)
    for (_, law, label), texts in pieces.items():
        articles[law, label].add("".join(texts).removeprefix(label))
    return articles


def compare_articles(found: Articles, corpus: Path) -> Comparison:
    """Compare modulo white space with `corpus` (gzip, one `{law, article, text}` a line), for the
    laws of which at least one article was found."""
    laws = {law for law, _ in found}
    expected = equal = 0
    missing = []
    with gzip.open(corpus, "rt", encoding="utf-8") as lines:
        for row in map(json.loads, lines):
            if row["law"] not in laws:
                continue
            expected += 1
            key = (row["law"], row["article"])
            if _squeezed(row["text"]) in found.get(key, ()):
                equal += 1
            else:
                missing.append(key)
    return Comparison(expected, equal, missing)


def _squeezed(text: str) -> str:
    return "".join(text.split())
