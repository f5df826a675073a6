"""Models uploaded over HTTP: what is kept, and what is refused before it can do anything."""

from __future__ import annotations

import io
import json
import pickle
import stat
import struct
import tarfile
import zipfile
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import gguf
import httpx
import numpy as np
import onnx
import pytest
from http_app import connect
from onnx import TensorProto, helper

from headrace.config.options import Config
from headrace.errors import InvalidField
from headrace.http.model_files import keep, remove_files
from headrace.ingest.outcomes import Upload
from headrace.pipeline.services import Services

# ruff: noqa: ASYNC240  (a few files are looked at)


def gguf_file(folder: Path) -> bytes:
    path = folder / "made.gguf"
    writer = gguf.GGUFWriter(path, "llama")
    writer.add_tensor("token_embd.weight", np.ones((8, 32), np.float32))
    writer.add_tensor("output.weight", np.ones((4, 32), np.float16))
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    return path.read_bytes()


def onnx_file(external: str | None = None, size: int = 16) -> bytes:
    weights = helper.make_tensor("w", TensorProto.FLOAT, [4], [1.0, 2.0, 3.0, 4.0])
    if external is not None:
        weights.ClearField("float_data")
        weights.data_location = TensorProto.EXTERNAL
        for key, value in (("location", external), ("offset", "0"), ("length", str(size))):
            entry = weights.external_data.add()
            entry.key, entry.value = key, value
    graph = helper.make_graph(
        [helper.make_node("Add", ["x", "w"], ["y"])],
        "g",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, [4])],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, [4])],
        [weights],
    )
    model: bytes = helper.make_model(graph).SerializeToString()
    return model


def safetensors_file(claimed: int = 16) -> bytes:
    header = json.dumps({"w": {"dtype": "F32", "shape": [4], "data_offsets": [0, claimed]}})
    return struct.pack("<Q", len(header)) + header.encode() + bytes(16)


Files = dict[str, bytes]


def encoder() -> Files:
    return {"model.onnx": onnx_file(), "tokenizer.json": b"{}", "config.json": b'{"a": 1}'}


def tarred(files: Files, kind: bytes = tarfile.REGTYPE, link: str = "") -> bytes:
    out = io.BytesIO()
    with tarfile.open(fileobj=out, mode="w") as archive:
        for name, content in files.items():
            info = tarfile.TarInfo(name)
            info.size, info.type, info.linkname = len(content), kind, link
            if kind != tarfile.REGTYPE:
                info.size = 0
            archive.addfile(info, io.BytesIO(content))
    return out.getvalue()


def zipped(files: Files, mode: int = 0, method: int = zipfile.ZIP_STORED) -> bytes:
    out = io.BytesIO()
    with zipfile.ZipFile(out, "w", method) as archive:
        for name, content in files.items():
            info = zipfile.ZipInfo(name)
            info.external_attr = mode << 16
            info.compress_type = method
            archive.writestr(info, content)
    return out.getvalue()


async def send(client: httpx.AsyncClient, files: Files, name: str = "mine") -> httpx.Response:
    parts = [("files", (path, content)) for path, content in files.items()]
    return await client.post(f"/admin/models/{name}/files", files=parts)


@pytest.fixture
def store(town: Config) -> Path:
    return town.data_dir / "models"


async def test_a_gguf_file_is_kept_under_its_checksum(
    client: httpx.AsyncClient, store: Path, tmp_path: Path
) -> None:
    content = gguf_file(tmp_path)
    kept = await send(client, {"tiny.gguf": content})
    assert kept.status_code == 201, kept.text
    body = kept.json()
    path = Path(body["source"].removeprefix("file:"))
    assert path.read_bytes() == content
    assert (path.parent.parent, path.parent.name[:5]) == (store, "mine-")
    assert body["sha256"] == body["digests"]["tiny.gguf"]
    assert body["checks"] == {"tiny.gguf": "GGUF, 2 tensors, all there"}
    again = await send(client, {"tiny.gguf": content})
    assert again.json() == body
    assert len(list(store.iterdir())) == 1
    assert list((store.parent / "incoming").iterdir()) == []


@pytest.mark.parametrize("pack", [None, tarred, zipped])
async def test_a_folder_is_kept_with_its_names(
    client: httpx.AsyncClient, pack: Callable[[Files], bytes] | None
) -> None:
    files = {f"e5/onnx/{name}": content for name, content in encoder().items()}
    files["e5/onnx/model.onnx_data"] = bytes(16)
    files["e5/onnx/model.onnx"] = onnx_file("model.onnx_data")
    suffix = "" if pack is None else f".{pack.__name__[:3]}"
    sent = files if pack is None else {f"e5{suffix}": pack(files)}
    kept = await send(client, sent)
    assert kept.status_code == 201, kept.text
    folder = Path(kept.json()["source"].removeprefix("file:"))
    found = {p.relative_to(folder).as_posix(): p.read_bytes() for p in folder.rglob("*.*")}
    wanted = {name.removeprefix("e5/"): content for name, content in files.items()}
    assert found in (wanted, {n.removeprefix("onnx/"): c for n, c in wanted.items()})
    assert kept.json()["sha256"] is None


def truncated(content: bytes, left_out: int) -> bytes:
    return content[:-left_out]


def bomb(pack: Callable[..., bytes]) -> bytes:
    return pack({"model.onnx": onnx_file(), "a.txt": bytes(9_000_000)}, method=zipfile.ZIP_DEFLATED)


def flagged(archive: bytes) -> bytes:
    """Marked as encrypted, in both places."""
    raw = bytearray(archive)
    raw[raw.index(b"PK\x03\x04") + 6] |= 1
    raw[raw.index(b"PK\x01\x02") + 8] |= 1
    return bytes(raw)


SYMLINK = stat.S_IFLNK | 0o777
GOOD = encoder()
HOSTILE: dict[str, tuple[Files, str]] = {
    "a pickle by name": (GOOD | {"pytorch_model.bin": b"x"}, "pickle"),
    "a pickle in another name": (GOOD | {"vocab.model": pickle.dumps([1])}, "pickle"),
    "a zip in another name": (GOOD | {"vocab.model": zipped({"a": b""})}, "archive"),
    "a program in another name": (GOOD | {"vocab.model": b"\x7fELF1"}, "program"),
    "code": (GOOD | {"modeling.py": b"print()"}, "it is code"),
    "a library": (GOOD | {"kernel.so": b"x"}, "it is code"),
    "something else": (GOOD | {"notes.pdf": b"x"}, "not of a kind"),
    "no weights": ({"tokenizer.json": b"{}"}, "there are no weights"),
    "no json": (GOOD | {"config.json": b"{"}, "config.json: it is not JSON"),
    "deep json": (GOOD | {"config.json": b"[" * 200_000}, "config.json"),
    "no text": (GOOD | {"vocab.txt": b"\xff\xfe"}, "vocab.txt"),
    "truncated onnx": (GOOD | {"model.onnx": truncated(onnx_file(), 9)}, "model.onnx: it ends"),
    "no onnx": (GOOD | {"model.onnx": b"hello"}, "model.onnx"),
    "empty onnx": (GOOD | {"model.onnx": b""}, "no ONNX graph"),
    "weights elsewhere": (GOOD | {"model.onnx": onnx_file("../../etc/passwd")}, "was not sent"),
    "weights at the root": (GOOD | {"model.onnx": onnx_file("/etc/passwd")}, "was not sent"),
    "weights left out": (GOOD | {"model.onnx": onnx_file("w.onnx_data")}, "was not sent"),
    "short weights": (
        GOOD | {"model.onnx": onnx_file("w.onnx_data"), "w.onnx_data": bytes(15)},
        "15 bytes of the 16",
    ),
    "truncated safetensors": ({"m.safetensors": safetensors_file()[:-1]}, "its tensors end at"),
    "lying safetensors": ({"m.safetensors": safetensors_file(2**60)}, "its tensors end at"),
    "huge safetensors header": ({"m.safetensors": b"\xff" * 99}, "longer than the file"),
    "not gguf": ({"m.gguf": b"GGML" + bytes(64)}, "m.gguf: it starts with b'GGML'"),
    "a huge count": ({"m.gguf": b"GGUF" + struct.pack("<IQQ", 3, 2**60, 2**60)}, "m.gguf: "),
    "a name upwards": (GOOD | {"../x.txt": b"a"}, "leads out"),
    "a name at the root": (GOOD | {"/x.txt": b"a"}, "leads out"),
    "a name with a drive": (GOOD | {"c:x.txt": b"a"}, "leads out"),
    "a long name": (GOOD | {f"{'x' * 300}.txt": b"a"}, "longer than"),
    "a deep name": (GOOD | {"x/" * 20 + "a.txt": b"a"}, "too deep"),
    "a file in a file": (GOOD | {"config.json/a.txt": b"a"}, "a file and a folder"),
    "a name twice": (GOOD | {"CONFIG.json": b"{}"}, "twice"),
    "tar: upwards": ({"m.tar": tarred(GOOD | {"../x.txt": b"a"})}, "leads out"),
    "tar: control character": ({"m.tar": tarred(GOOD | {"a\nb.txt": b"a"})}, "control character"),
    "tar: a link": ({"m.tar": tarred({"m.txt": b""}, tarfile.SYMTYPE, "/etc")}, "a link"),
    "tar: a hard link": ({"m.tar": tarred({"m.txt": b""}, tarfile.LNKTYPE, "/etc")}, "a link"),
    "tar: a device": ({"m.tar": tarred({"m.txt": b""}, tarfile.CHRTYPE)}, "a link, a device"),
    "tar: truncated": ({"m.tar": tarred({"m.txt": bytes(9999)})[:5000]}, "m.tar"),
    "tar: no tar": ({"m.tar": b"hello"}, "not a whole archive"),
    "tar: too many": ({"m.tar": tarred({f"{i}.txt": b"" for i in range(1001)})}, "more than 1000"),
    "zip: upwards": ({"m.zip": zipped(GOOD | {"../x.txt": b"a"})}, "leads out"),
    "zip: backwards": ({"m.zip": zipped(GOOD | {"..\\x.txt": b"a"})}, "leads out"),
    "zip: a link": ({"m.zip": zipped({"m.txt": b"/etc"}, SYMLINK)}, "a link"),
    "zip: a bomb": ({"m.zip": bomb(zipped)}, "times smaller"),
    "zip: encrypted": ({"m.zip": flagged(zipped({"m.txt": b"a"}))}, "encrypted"),
    "zip: truncated": ({"m.zip": zipped(GOOD)[:-40]}, "not a whole archive"),
    "zip: no zip": ({"m.zip": b"hello"}, "not a whole archive"),
    "zip: a zip in it": ({"m.zip": zipped(GOOD | {"n.zip": zipped({})})}, "n.zip"),
    "zip: a pickle in it": ({"m.zip": zipped(GOOD | {"w.pt": b"a"})}, "pickle"),
}


@pytest.mark.parametrize("case", HOSTILE)
def test_what_could_do_harm_is_refused_and_nothing_is_kept(tmp_path: Path, case: str) -> None:
    files, message = HOSTILE[case]
    incoming, data = tmp_path / "data" / "incoming", tmp_path / "data"
    incoming.mkdir(parents=True)
    uploads = []
    for number, (name, content) in enumerate(files.items()):
        path = incoming / f"{number:04d}"
        path.write_bytes(content)
        uploads.append(Upload(name, path))
    with pytest.raises(InvalidField) as refused:
        keep(uploads, incoming, data, "mine", 1 << 30)
    assert message in refused.value.message
    assert [path.name for path in data.iterdir()] == ["incoming"]
    assert [path.name for path in tmp_path.iterdir()] == ["data"]


async def test_a_refusal_leaves_nothing(client: httpx.AsyncClient, store: Path) -> None:
    for case in ("a pickle by name", "tar: upwards", "truncated safetensors"):
        files, message = HOSTILE[case]
        refused = await send(client, files)
        assert refused.status_code == 422, refused.text
        assert message in refused.json()["error"]["message"]
    assert not store.exists()
    assert list((store.parent / "incoming").iterdir()) == []


async def test_every_truncation_of_a_gguf_file_is_refused(
    client: httpx.AsyncClient, store: Path, tmp_path: Path
) -> None:
    content = gguf_file(tmp_path)
    assert (await send(client, {"m.gguf": content})).status_code == 201
    for length in (3, 20, 60, len(content) // 2, len(content) - 200, len(content) - 1):
        refused = await send(client, {"m.gguf": content[:length]})
        assert refused.status_code == 422, length
    (kept,) = store.iterdir()
    assert (kept / "m.gguf").read_bytes() == content


async def test_packed_or_not_an_upload_stays_within_its_limit(
    services: Services, store: Path
) -> None:
    server = services.config.server.model_copy(update={"max_model_mib": 1, "max_body_mib": 4})
    config = services.config.model_copy(update={"server": server})
    async with connect(replace(services, config=config)) as client:
        packed = zipped(GOOD | {"a.txt": b"ab" * 600_000}, method=zipfile.ZIP_DEFLATED)
        refused = await send(client, {"m.zip": packed})
        assert refused.status_code == 422
        assert "times smaller" in refused.json()["error"]["message"]
        rng = np.random.default_rng(1)
        text = bytes(rng.integers(97, 123, 1_200_000, np.uint8))
        packed = zipped(GOOD | {"a.txt": text}, method=zipfile.ZIP_DEFLATED)
        assert len(packed) < 1 << 20
        refused = await send(client, {"m.zip": packed})
        assert refused.status_code == 422
        assert "more than 1048576 bytes" in refused.json()["error"]["message"]
        large = await send(client, {"model.onnx": bytes(1 << 20)})
        assert large.status_code == 413
        assert "server.max_model_mib" in large.json()["error"]["message"]


async def test_models_may_be_larger_than_other_bodies(services: Services, tmp_path: Path) -> None:
    server = services.config.server.model_copy(update={"max_body_mib": 1})
    config = services.config.model_copy(update={"server": server})
    content = GOOD | {"big.onnx_data": bytes(3 << 20)}
    async with connect(replace(services, config=config)) as client:
        assert (await send(client, content)).status_code == 201
        parts = [("files", ("a.txt", bytes(3 << 20)))]
        sent = await client.post("/api/collections/town/documents", files=parts)
        assert sent.status_code == 413


@pytest.mark.parametrize("name", ["a b", "-x", "x" * 70, "a%00b"])
async def test_a_name_that_no_model_can_have(client: httpx.AsyncClient, name: str) -> None:
    assert (await send(client, GOOD, name)).status_code == 422


async def test_an_upload_goes_with_its_model_unless_another_uses_it(
    client: httpx.AsyncClient, store: Path
) -> None:
    source = (await send(client, GOOD)).json()["source"]
    other = (await send(client, GOOD, "mine-too")).json()["source"]
    assert {source, other} == {f"file:{path}" for path in store.iterdir()}
    folder = store.parent
    assert remove_files(folder, "mine", [f"{source}/model.onnx"]) == ()
    assert remove_files(folder, "mine", [f"{source}0"]) == (source.removeprefix("file:"),)
    assert [f"file:{path}" for path in store.iterdir()] == [other]
    entry = {"role": "reranker", "engine": "onnx", "source": other}
    assert (await client.put("/admin/models/mine-too", json=entry)).is_success
    removed = await client.delete("/admin/models/mine-too", params={"files": True})
    assert removed.json()["files"] == [other.removeprefix("file:")]
    assert list(store.iterdir()) == []


def test_the_onnx_of_these_tests_is_right() -> None:
    onnx.checker.check_model(onnx.load_from_string(onnx_file()))


def test_sizes_of_quantised_blocks_are_those_of_the_format() -> None:
    from headrace.engines.gguf_header import _BLOCKS

    sizes = {int(kind): size for kind, size in gguf.GGML_QUANT_SIZES.items()}
    assert {kind: sizes[kind] for kind in _BLOCKS} == _BLOCKS
