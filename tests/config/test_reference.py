"""What is derived from the options: schema, document, and the file that `config init` writes."""

from __future__ import annotations

import json
import re
from pathlib import Path

import make_docs
from headrace.config import reference
from headrace.config.load import read_text
from headrace.config.options import Config


def test_the_documents_are_up_to_date() -> None:
    assert make_docs.outdated() == [], "run scripts/make_docs.py"


def test_every_option_has_help() -> None:
    schema = reference.json_schema()
    sections = {"Config": schema, **schema["$defs"]}
    silent = [
        f"{section}.{name}"
        for section, node in sections.items()
        for name, option in node.get("properties", {}).items()
        if not reference.resolve(option).get("description")
    ]
    assert silent == []


def test_the_commented_file_loads_to_the_defaults() -> None:
    text = reference.commented_file()
    assert read_text(text, "f.yaml", Path("/")) == Config()


def test_the_commented_file_loads_to_the_defaults_with_every_option_uncommented() -> None:
    text = re.sub("^# ", "", reference.commented_file(), flags=re.MULTILINE)
    assert read_text(text, "f.yaml", Path("/")) == Config()
    for section in ("server", "retrieval", "answer", "ingest"):
        for option in getattr(Config(), section).__class__.model_fields:
            assert re.search(f"^  {option}:", text, flags=re.MULTILINE), option


def test_the_schema_is_json_and_every_default_has_the_expected_type() -> None:
    schema = json.loads(json.dumps(reference.json_schema()))
    assert schema["properties"]["server"]["default"]["port"] == 8017
    assert "a value" not in reference.markdown()


def test_the_document_names_no_folder_of_this_machine() -> None:
    assert str(Path.home()) not in reference.markdown()
