"""The OpenAPI document and docs/api.md say what the server does."""

from __future__ import annotations

import json
import re
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from http_app import Live, live

from headrace.config.model_options import DefaultModels
from headrace.config.options import Config
from headrace.http.app import create_app
from headrace.pipeline.services import Services

ROOT = Path(__file__).resolve().parents[2]
API = (ROOT / "docs" / "api.md").read_text(encoding="utf-8")


def test_every_route_is_in_the_reference(services: Services) -> None:
    paths = create_app(services).openapi()["paths"]
    routes = [f"{m.upper()} {path}" for path, methods in paths.items() for m in methods]
    assert len(routes) > 20
    assert [route for route in routes if f"`{route}`" not in API] == []


def test_every_route_of_the_reference_exists(services: Services) -> None:
    paths = create_app(services).openapi()["paths"]
    named = re.findall(r"`(GET|POST|PUT|DELETE) (/[^`?]*)`", API)
    known = {(m.upper(), path) for path, methods in paths.items() for m in methods}
    assert set(named) - {("GET", "/openapi.json")} == known


def test_examples_in_the_reference_are_json() -> None:
    for block in re.findall(r"```json\n(.*?)```", API, re.S):
        json.loads(block)


def test_example_requests_of_the_document_are_valid(services: Services) -> None:
    from headrace.http import requests

    for name in ("ChatRequest", "RagChatRequest", "SearchRequest", "EmbeddingsRequest"):
        model = getattr(requests, name)
        examples = model.model_json_schema()["examples"]
        assert examples
        for example in examples:
            model.model_validate(example)


@pytest.fixture
def server(filled_copy: Path, echo: dict[str, object]) -> Iterator[Live]:
    defaults = DefaultModels(generator="echo-generator", embedder="echo-embedder")
    config = Config(data_dir=filled_copy, models=echo, defaults=defaults)  # type: ignore[arg-type]
    with live(config) as running:
        yield running


@pytest.mark.slow
def test_server_keeps_its_contract_under_generated_requests(server: Live, tmp_path: Path) -> None:
    """No answer is a server error, and every one is as the OpenAPI document says."""
    import subprocess

    program = Path(sys.executable).with_name("schemathesis")
    done = subprocess.run(
        [
            str(program),
            "run",
            f"{server.url}/openapi.json",
            "--max-examples",
            "12",
            "--phases",
            "examples,fuzzing",
            "--checks",
            "not_a_server_error,status_code_conformance,content_type_conformance,"
            "response_schema_conformance",
            "--seed",
            "1",
            "--workers",
            "1",
            "--generation-database",
            "none",
            "--no-color",
        ],
        cwd=tmp_path,
        capture_output=True,
        text=True,
        timeout=300,
        check=False,
    )
    assert done.returncode == 0, done.stdout[-6000:] + done.stderr[-2000:]
