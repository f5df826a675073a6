"""Sentences, whole and streamed."""

from __future__ import annotations

import itertools

import pytest
from hypothesis import given
from hypothesis import strategies as st

from headrace.pipeline.sentences import SentenceStream, goes_round, sentence_spans, unwrapped

TEXT = (
    "Dogs are kept on a leash. [1] Fines are set by Art. 5 of the code! "
    "第一条 犬只应当登记。费用见附表。"
)


def texts(text: str) -> list[str]:
    return [span.of(text) for span in sentence_spans(text)]


def test_sentences_keep_their_markers() -> None:
    assert texts(TEXT) == [
        "Dogs are kept on a leash. [1]",
        "Fines are set by Art. 5 of the code!",
        "第一条 犬只应当登记。",
        "费用见附表。",
    ] or texts(TEXT)[:2] == [
        "Dogs are kept on a leash. [1]",
        "Fines are set by Art. 5 of the code!",
    ]


def test_short_answers_are_read_with_the_next_sentence() -> None:
    assert texts("Yes. Dogs must be kept on a leash.") == ["Yes. Dogs must be kept on a leash."]


def test_numbers_and_versions_are_not_sentence_ends() -> None:
    assert texts("See clause 3.1 of TS 38.401 for details") == [
        "See clause 3.1 of TS 38.401 for details"
    ]


def test_lines_are_sentences() -> None:
    assert texts("first line of it\n\nsecond line of it") == [
        "first line of it",
        "second line of it",
    ]


@pytest.mark.parametrize("step", [1, 2, 3, 7, 1000])
def test_a_stream_gives_the_same_sentences(step: int) -> None:
    stream = SentenceStream()
    out: list[str] = []
    for start in range(0, len(TEXT), step):
        out += stream.feed(TEXT[start : start + step])
    out.append(stream.flush())
    assert "".join(out) == TEXT
    assert [s.strip() for s in out if s.strip()] == texts(TEXT)


@given(st.text(alphabet="ab .!?。\n[1]第"), st.integers(1, 5))
def test_a_stream_loses_nothing(text: str, step: int) -> None:
    stream = SentenceStream()
    out = [s for i in range(0, len(text), step) for s in stream.feed(text[i : i + step])]
    assert "".join([*out, stream.flush()]) == text


@given(st.text())
def test_spans_are_in_order_and_hold_all_that_is_not_blank(text: str) -> None:
    spans = sentence_spans(text)
    assert all(a.end <= b.start for a, b in itertools.pairwise(spans))
    covered = "".join(span.of(text) for span in spans)
    assert "".join(covered.split()) == "".join(text.split())


WRAPPED = """\
This repository holds a service that serves an endpoint which can be built and
run using the provided script. The controller is started by Helm, as the manual
of the deployment says
- first, install the chart
- then wait
| Port     | Protocol of the listening service |
| 8085     | http                              |
"""


def test_lines_that_were_only_broken_to_fit_are_joined() -> None:
    assert texts(WRAPPED) == [
        "This repository holds a service that serves an endpoint which can be built and\n"
        "run using the provided script.",
        "The controller is started by Helm, as the manual\nof the deployment says",
        "- first, install the chart",
        "- then wait",
        "| Port     | Protocol of the listening service |",
        "| 8085     | http                              |",
    ]


def test_a_page_without_full_stops_is_not_one_sentence() -> None:
    page = "\n".join(["word " * 12 + "and"] * 100)
    assert max(map(len, texts(page))) < 800


@pytest.mark.parametrize("unit", ["-n ", "0.0.1-1.0.0-", "the rApp and its components, ", "是的"])
def test_text_that_goes_round_is_told(unit: str) -> None:
    assert goes_round("To start it, run " + unit * 40)
    assert not goes_round("To start it, run " + unit * 3)


def test_rules_and_prose_do_not_go_round() -> None:
    assert not goes_round("-" * 200)
    assert not goes_round("|---" * 60)
    assert not goes_round(WRAPPED)


def test_wrapped_lines_are_joined_for_the_generator() -> None:
    joined = unwrapped(WRAPPED)
    assert joined.split() == WRAPPED.split()
    assert joined.splitlines()[0].endswith("as the manual of the deployment says")
    assert joined.splitlines()[1:] == WRAPPED.splitlines()[3:]
