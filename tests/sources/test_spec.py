"""Source strings, local files, and pip's settings."""

from __future__ import annotations

import hashlib
import os
from pathlib import Path

import pytest
from unearth import PackageFinder

from headrace import sources
from headrace.errors import ConfigError, SourceError
from headrace.sources import index_settings
from headrace.sources.spec import Source


@pytest.mark.parametrize(
    ("text", "parts"),
    [
        ("pypi:name", Source("pypi", "name")),
        ("pypi:a-b.c==1.2.3+x", Source("pypi", "a-b.c", "1.2.3+x")),
        ("pypi:name==1/pkg/w.bin", Source("pypi", "name", "1", "pkg/w.bin")),
        ("pypi:name/pkg/w.bin", Source("pypi", "name", "", "pkg/w.bin")),
        ("hf:Qwen/Qwen3-0.6B-GGUF", Source("hf", "Qwen/Qwen3-0.6B-GGUF")),
        ("ms:o/r/onnx/model.onnx", Source("ms", "o/r", "", "onnx/model.onnx")),
        ("file:~/x y.gguf", Source("file", "~/x y.gguf")),
    ],
)
def test_sources_parse_and_print(text: str, parts: Source) -> None:
    assert sources.parse(text) == parts
    assert str(parts) == text


@pytest.mark.parametrize(
    "text",
    [
        "",
        "pypi:",
        "hf:org",
        "name",
        "http://x/y",
        "pypi:x/../../y",
        "hf:o/r/../x",
        "pypi:x/a\\b",
        "file:",
    ],
)
def test_other_strings_are_refused(text: str) -> None:
    with pytest.raises(ConfigError):
        sources.parse(text)


def test_local_files(tmp_path: Path) -> None:
    path = tmp_path / "model.gguf"
    with pytest.raises(SourceError, match="there is no"):
        sources.resolve(f"file:{path}", cache_dir=tmp_path)
    path.write_text("x")
    assert sources.resolve(f"file:{path}", cache_dir=tmp_path) == path
    assert sources.is_cached(f"file:{path}", cache_dir=tmp_path) == path
    assert sources.forget(f"file:{path}", cache_dir=tmp_path) is False
    assert path.exists()


LISTING = """
:env:.extra-index-url='https://env/simple'
:env:.default-timeout='7'
global.index-url='https://user:p=w@files/simple'
global.extra-index-url='https://one/simple\\nhttps://two/simple'
global.find-links='/wheels'
download.proxy='http://proxy:3128'
global.trusted-host='a b'
install.index-url='https://not-this/simple'
"""


def test_pips_settings() -> None:
    settings = index_settings.from_pip(LISTING, {"UV_INDEX_URL": "https://uv/simple"})
    assert settings.index_urls == ("https://user:p=w@files/simple", "https://env/simple")
    assert settings.find_links == ("/wheels",)
    assert settings.trusted_hosts == ("a", "b")
    assert settings.proxy == "http://proxy:3128"
    assert settings.timeout == 7.0


def test_uvs_settings_where_pips_say_nothing() -> None:
    uv = {"UV_DEFAULT_INDEX": "https://uv/simple", "UV_EXTRA_INDEX_URL": "https://more/simple"}
    assert index_settings.from_pip("", uv).index_urls == (
        "https://uv/simple",
        "https://more/simple",
    )
    (default,) = index_settings.from_pip("", {}).index_urls
    assert default == PackageFinder().sources[0]["url"]
    assert index_settings.from_pip("global.no-index='true'", uv).index_urls == ()


def test_a_local_file_must_have_its_checksum_and_is_never_deleted(tmp_path: Path) -> None:
    path = tmp_path / "weights.gguf"
    path.write_bytes(b"weights")
    right = hashlib.sha256(b"weights").hexdigest()
    assert sources.resolve(f"file:{path}", cache_dir=tmp_path, sha256=right) == path
    with pytest.raises(SourceError, match=f"{right}, not 0000"):
        sources.resolve(f"file:{path}", cache_dir=tmp_path, sha256="0" * 64)
    assert path.read_bytes() == b"weights"
    with pytest.raises(SourceError, match="is a folder"):
        sources.resolve(f"file:{tmp_path}", cache_dir=tmp_path, sha256=right)


def test_a_pipe_is_no_source(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe.gguf")
    with pytest.raises(SourceError, match="neither a file nor a folder"):
        sources.resolve(f"file:{tmp_path / 'pipe.gguf'}", cache_dir=tmp_path)
