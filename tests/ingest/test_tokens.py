"""The token estimate against true counts, and the property that packing relies on."""

import json
from pathlib import Path

from hypothesis import given
from hypothesis import strategies as st

from headrace.ingest.chunkers.tokens import estimate_tokens, milli_tokens, runs

MIXED = st.text(alphabet=st.sampled_from("ab1。中文é\u0301 \n_-ﬁ٣😀"), max_size=60)


@given(MIXED, MIXED)
def test_joining_never_costs_more(first: str, second: str) -> None:
    assert milli_tokens(first + second) <= milli_tokens(first) + milli_tokens(second)


@given(st.text(max_size=80))
def test_runs_cover_every_character(text: str) -> None:
    assert "".join(text[run.start : run.end] for run in runs(text, 0, len(text))) == text
    assert sum(run.cost for run in runs(text, 0, len(text))) == milli_tokens(text)


def test_range_costs_what_its_text_costs() -> None:
    text = "第四十四条 Article 44 applies."
    assert milli_tokens(text, 6, 16) == milli_tokens(text[6:16])


def test_estimates_are_seldom_below_the_true_count(shared: Path) -> None:
    """The reference counts include the two special tokens and those of the prefix."""
    lines = (shared / "models/e5_small_reference.jsonl").read_text("utf-8").splitlines()
    ratios = []
    for sample in map(json.loads, lines):
        if 5 < len(sample["token_ids"]) < 512:
            prefix = f"{sample['kind']}: "
            ratios.append(estimate_tokens(prefix + sample["text"]) / (len(sample["token_ids"]) - 2))
    ratios.sort()
    assert ratios[0] > 0.75
    assert 1.0 <= ratios[len(ratios) // 2] < 1.5
