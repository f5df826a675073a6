"""Which of two documents is the older version of the other."""

from __future__ import annotations

from typing import Any, cast

import pytest
from hits import hit

from headrace.pipeline.versions import base_title, current, dated
from headrace.retrieval.base import Index
from headrace.types import Document, Hit, Parsed


class Stored:
    """An index of documents with front matter by id."""

    def __init__(self, **front: dict[str, str]) -> None:
        self._front = front

    def document(self, document_id: str) -> Document | None:
        parsed = Parsed("", "text/plain", metadata=self._front.get(document_id, {}))
        return Document(document_id, document_id, "", parsed, "plain")


def preferred(*hits: Hit, **front: dict[str, str]) -> tuple[list[int], list[Any]]:
    found = current(hits, cast(Index, Stored(**front)))
    return [hit.chunk_id for hit in found.hits], [c.values for c in found.superseded]


@pytest.mark.parametrize(
    ("one", "other"),
    [
        ("采矿条例（2018年修订）", "采矿条例（2009年）"),
        ("采矿条例", "采矿条例(2018修正)"),
        ("Parking Code 2019", "Parking code (revised 2023)"),
        ("Safety Manual v1.2", "Safety Manual v2"),
    ],
)
def test_versions_have_one_title(one: str, other: str) -> None:
    assert base_title(one) == base_title(other)


@pytest.mark.parametrize(
    ("one", "other"),
    [
        ("采矿条例", "采矿条例实施细则"),
        ("刑法修正案（八）", "刑法修正案（九）"),
        ("Parking Code", "Parking Code for bicycles"),
    ],
)
def test_other_texts_have_others(one: str, other: str) -> None:
    assert base_title(one) != base_title(other)


@pytest.mark.parametrize("version", ["1..2", "9" * 5_000, "1" + ".1" * 3_000])
def test_a_version_that_is_no_number_dates_nothing(version: str) -> None:
    one, two = hit("A", 1, "Code", "1"), hit("B", 2, "Code", "2")
    assert preferred(one, two, d1={"version": version}, d2={"version": "1.1"}) == ([1, 2], [])
    titled = hit("A", 1, "Code", "1", title=f"Code v{version}")
    assert preferred(titled, hit("B", 2, "Code", "2", title="Code v1.1")) == ([1, 2], [])


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("2019年3月28日通过　2023年9月14日修订", (2023, 9, 14)),
        ("code-2019-03", (2019, 3)),
        ("（2018年）", (2018,)),
        ("Manual v2.10", (0, 2, 10)),
        ("Form 20231 of 3 pages", None),
        ("nothing", None),
    ],
)
def test_dates(text: str, value: tuple[int, ...] | None) -> None:
    found = dated(text)
    assert (found and found.value) == value


def test_the_newer_is_answered_from() -> None:
    old = hit("Fine 100.", 1, "Code", "Article 2", title="Code (2009)")
    new = hit("Fine 200.", 2, "Code", "Article 2", title="Code (2018)")
    other = hit("Else.", 3, "Code", "Article 9", title="Code (2009)", document_id="d1")
    assert preferred(old, other, new) == ([2, 3], [("2018", "2009")])


@pytest.mark.parametrize(
    "front",
    [
        {"d1": {"date": "2019-05-01"}, "d2": {"date": "2024-01-01"}},
        {"d1": {"version": "1"}, "d2": {"version": "2"}},
        {"d1": {"施行日期": "2019年5月1日"}, "d2": {"施行日期": "2024年1月1日"}},
    ],
)
def test_dates_of_the_front_matter(front: dict[str, dict[str, str]]) -> None:
    order, named = preferred(hit("A", 1), hit("B", 2), **front)
    assert order == [2]
    assert len(named) == 1


def test_dates_of_file_names() -> None:
    order, _ = preferred(hit("A", 1, source="x/code-2019.md"), hit("B", 2, source="x/code-2024.md"))
    assert order == [2]


@pytest.mark.parametrize(
    "front",
    [
        {},
        {"d2": {"date": "2024-01-01"}},
        {"d1": {"date": "2024"}, "d2": {"date": "2024-05-01"}},
        {"d1": {"date": "2024-01-01"}, "d2": {"date": "2024-01-01"}},
        {"d1": {"version": "3"}, "d2": {"date": "2024-01-01"}},
    ],
)
def test_without_two_dates_nothing_is_older(front: dict[str, dict[str, str]]) -> None:
    assert preferred(hit("A", 1), hit("B", 2), **front) == ([1, 2], [])
