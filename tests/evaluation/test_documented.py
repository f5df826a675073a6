"""What docs/evaluation.md shows is run, and what it lists is complete."""

from __future__ import annotations

import re
from pathlib import Path

import msgspec
from ruamel.yaml import YAML
from tests.evaluation.evaluating import handbook

from headrace.config.options import Config
from headrace.evaluation.format import Gold, Question, QuestionFile, SuiteFile
from headrace.evaluation.markdown import WORDS
from headrace.evaluation.running import run_suite
from headrace.evaluation.suite import load_suite

TEXT = (Path(__file__).resolve().parents[2] / "docs" / "evaluation.md").read_text(encoding="utf-8")


async def test_the_ten_lines_work(fast: Config, tmp_path: Path) -> None:
    found = re.search(r"<<'END'\n(.*?)^END$", TEXT, re.DOTALL | re.MULTILINE)
    assert found is not None
    path = tmp_path / "handbook.yaml"
    path.write_text(found[1].replace("collection: handbook", "collection: book"), encoding="utf-8")
    async with handbook(fast, tmp_path) as services:
        report = await run_suite(services, load_suite(path), tmp_path / "out")
    assert report.questions == 2
    assert report.metrics["failed"].value == 0.0


def test_the_mapping_is_one() -> None:
    (block,) = (
        block
        for block in re.findall(r"^```yaml\n(.*?)^```", TEXT, re.DOTALL | re.MULTILINE)
        if block.startswith("questions:")
    )
    given = YAML(typ="safe").load(block)["questions"]
    assert msgspec.convert(given, QuestionFile).gold is not None


def test_every_field_and_metric_is_explained() -> None:
    fields = {
        *SuiteFile.__struct_fields__,
        *Question.__struct_fields__,
        *Gold.__struct_fields__,
        *WORDS,
    }
    assert [
        name for name in sorted(fields) if f"`{name}`" not in TEXT and name != "answerable"
    ] == []
    assert "`answerable: false`" in TEXT
