"""Corrupted twins say something else, and paraphrases do not."""

from __future__ import annotations

import random

import pytest
from bench.corruptions import CHINESE, ENGLISH, arabic, chinese, in_arabic

ZH = (
    "根据《劳动法》第四十四条，用人单位不得克扣劳动者工资；"
    "自2021年3月5日起，未在三十日内支付的，处五百元罚款。"
)
EN = (
    "Under Article 12, Ada Byron is paid 30 days after 5 March 2021 by John Murray, unless the "
    "house of Murray has not agreed."
)


@pytest.mark.parametrize("kind", sorted(CHINESE))
@pytest.mark.parametrize(("text", "kinds"), [(ZH, CHINESE), (EN, ENGLISH)], ids=["zh", "en"])
def test_a_twin_differs_and_is_the_same_every_time(
    kind: str, text: str, kinds: dict[str, object]
) -> None:
    change = kinds[kind]
    assert callable(change)
    twins = {change(text, random.Random(seed)) for seed in range(5)}
    assert text not in twins
    assert None not in twins
    assert change(text, random.Random(3)) == change(text, random.Random(3))


@pytest.mark.parametrize("value", [1, 10, 15, 20, 105, 110, 1005, 1500, 10_000, 15_000, 30_200])
def test_numerals_there_and_back(value: int) -> None:
    assert arabic(chinese(value)) == value


def test_a_paraphrase_has_digits() -> None:
    assert in_arabic("第四十四条规定三十日内支付百分之三百") == "第44条规定30日内支付300%"
