"""`hf:` and `ms:` against stand-ins on a real socket."""

from __future__ import annotations

import os
from pathlib import Path

import pytest
from standin import StandIn

from headrace import sources
from headrace.errors import SourceError

GGUF = os.urandom(500_000)
ENCODER = {
    "onnx/model.onnx": b"graph",
    "onnx/model.onnx_data": b"weights",
    "onnx/model_int8.onnx": b"small graph",
    "tokenizer.json": b"{}",
    "config.json": b"{}",
    "pytorch_model.bin": b"a pickle",
    "README.md": b"words",
}


@pytest.mark.parametrize("kind", ["hf", "ms"])
class TestHubs:
    @pytest.fixture
    def hub(self, kind: str, remote: StandIn) -> StandIn:
        add = remote.huggingface if kind == "hf" else remote.modelscope
        add("org/llm", {"model.Q8_0.gguf": GGUF, "README.md": b"words"})
        add("org/many", {"a.gguf": b"a", "b.gguf": b"b"})
        add("org/encoder", ENCODER)
        add("org/torch", {"pytorch_model.bin": b"a pickle", "tokenizer.json": b"{}"})
        add("org/evil", {"../../../evil.gguf": b"x"})
        return remote

    def test_the_only_gguf_file(self, hub: StandIn, kind: str, tmp_path: Path) -> None:
        told: list[tuple[str, int, int | None]] = []
        path = sources.resolve(
            f"{kind}:org/llm", cache_dir=tmp_path, progress=lambda *args: told.append(args)
        )
        assert path.read_bytes() == GGUF
        assert told[-1] == ("model.Q8_0.gguf", len(GGUF), len(GGUF))
        count = len(hub.requests)
        assert sources.resolve(f"{kind}:org/llm", cache_dir=tmp_path) == path
        assert len(hub.requests) == count

    def test_it_resumes(self, hub: StandIn, kind: str, tmp_path: Path) -> None:
        base = "/org/llm/resolve/c0ffee/" if kind == "hf" else "/api/v1/models/org/llm/repo?"
        hub.cut[f"{base}model.Q8_0.gguf"] = [100_000]
        source = f"{kind}:org/llm/model.Q8_0.gguf"
        assert sources.resolve(source, cache_dir=tmp_path).read_bytes() == GGUF
        assert hub.asked(f"{base}model.Q8_0.gguf") == [None, "bytes=100000-"]

    def test_a_changed_file_is_refused(self, hub: StandIn, kind: str, tmp_path: Path) -> None:
        base = "/org/llm/resolve/c0ffee/" if kind == "hf" else "/api/v1/models/org/llm/repo?"
        hub.files[f"{base}model.Q8_0.gguf"] = GGUF[:-1] + b"!" + GGUF[-1:]
        with pytest.raises(SourceError, match="SHA-256"):
            sources.resolve(f"{kind}:org/llm", cache_dir=tmp_path)

    def test_an_encoder_comes_with_its_companions(
        self, hub: StandIn, kind: str, tmp_path: Path
    ) -> None:
        folder = sources.resolve(f"{kind}:org/encoder", cache_dir=tmp_path)
        found = {p.relative_to(folder).as_posix() for p in folder.rglob("*") if p.is_file()}
        wanted = {"onnx/model.onnx", "onnx/model.onnx_data", "tokenizer.json", "config.json"}
        assert found == {*wanted, "manifest.json"}
        path = sources.resolve(f"{kind}:org/encoder/onnx/model_int8.onnx", cache_dir=tmp_path)
        assert path.read_bytes() == b"small graph"
        assert (path.parent.parent / "tokenizer.json").is_file()

    @pytest.mark.parametrize(
        ("source", "says"),
        [
            ("org/many", r"2 GGUF files.*a\.gguf, b\.gguf"),
            ("org/many/c.gguf", r"no such file.*a\.gguf"),
            ("org/torch", "no ONNX encoder.*usable files: none"),
            ("org/absent", "does not give it.*file:PATH"),
            ("org/evil", "usable files: none"),
        ],
    )
    def test_what_is_not_there(
        self, hub: StandIn, kind: str, tmp_path: Path, source: str, says: str
    ) -> None:
        with pytest.raises(SourceError, match=says):
            sources.resolve(f"{kind}:{source}", cache_dir=tmp_path)

    def test_no_network(
        self, hub: StandIn, kind: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        name = "HF_ENDPOINT" if kind == "hf" else "MODELSCOPE_ENDPOINT"
        monkeypatch.setenv(name, "http://127.0.0.1:9")
        with pytest.raises(SourceError, match="Check the name"):
            sources.resolve(f"{kind}:org/llm", cache_dir=tmp_path)


def test_the_token_is_sent(
    remote: StandIn, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    remote.huggingface("org/private", {"model.gguf": b"x"})
    monkeypatch.setenv("HF_TOKEN", "hf_secret")
    sources.resolve("hf:org/private", cache_dir=tmp_path)
    assert {authorization for _, _, authorization in remote.requests} == {"Bearer hf_secret"}
