"""Real statutes and real technical documents, against what is known of them."""

from pathlib import Path

import pytest
from bench.laws import compare_articles, cut, found_articles, unpack

pytestmark = [pytest.mark.shared, pytest.mark.slow]


def test_articles_equal_the_corpus(shared: Path, tmp_path: Path) -> None:
    laws = list(cut(unpack(shared / "data/laws/markdown.tar.gz", tmp_path)))
    assert len(laws) >= 95
    assert sum(law.lost for law in laws) == 0
    found = found_articles(
        (str(law.path), chunk, chunk.span.of(law.parsed.text))
        for law in laws
        for chunk in law.chunks
    )
    result = compare_articles(found, shared / "data/laws/corpus.jsonl.gz")
    assert result.expected > 7000
    assert result.share >= 0.99, result.missing[:20]


def test_paths_name_law_book_chapter_article(shared: Path, tmp_path: Path) -> None:
    paths = unpack(shared / "data/laws/markdown.tar.gz", tmp_path)
    (law,) = cut(path for path in paths if path.stem == "合同编")
    path = next(chunk.path for chunk in law.chunks if chunk.path[-1] == "第四百六十三条")
    assert path == (
        "中华人民共和国民法典", "合同编", "第一分编 通则", "第一章 一般规定", "第四百六十三条",
    )  # fmt: skip


def test_technical_documents_lose_nothing(shared: Path, tmp_path: Path) -> None:
    paths = unpack(shared / "data/oran/docs.tar.gz", tmp_path)
    documents = list(cut(paths))
    assert len(documents) == len(paths)
    assert sum(document.lost for document in documents) == 0
    assert sum(bool(document.parsed.headings) for document in documents) > 0.8 * len(documents)
