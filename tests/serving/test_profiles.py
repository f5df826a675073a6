"""Sizes of models: guessed from their files, then measured and kept."""

from __future__ import annotations

from pathlib import Path

import msgspec
import pytest

from headrace.config.model_options import ModelOptions
from headrace.config.options import Config, DeviceOptions
from headrace.engines.base import ModelSpec
from headrace.serving.catalogue import catalogue, limits, model_specs
from headrace.serving.memory import Memory
from headrace.serving.profiles import FILE_NAME, MIB, Profiles, estimate, measured, outgrown
from headrace.types import Role


def spec(folder: Path, source: str = "", **options: object) -> ModelSpec:
    engine = "onnx" if source else "echo"
    return ModelSpec("e", Role.EMBEDDER, engine, source, str(folder), dict(options))


def test_a_guess_grows_with_the_weights(tmp_path: Path) -> None:
    profiles = []
    for name, size in (("small", MIB), ("large", 50 * MIB)):
        model = tmp_path / name / "model.onnx"
        model.parent.mkdir()
        model.write_bytes(b"graph")
        model.with_name("model.onnx_data").write_bytes(b"\0" * size)
        profiles.append(estimate(spec(tmp_path, f"file:{model}"), 0, ["cpu", "cuda:0"]))
    small, large = profiles
    assert large.serving["cpu"]["host"] - small.serving["cpu"]["host"] == 49 * MIB
    assert large.peak["cpu"]["host"] > large.serving["cpu"]["host"]
    assert large.serving["cuda:0"]["cuda:0"] > small.serving["cuda:0"]["cuda:0"]
    assert large.resume["cuda:0"] < large.load["cuda:0"]
    assert not small.measured


def test_a_hint_is_taken_as_it_is(tmp_path: Path) -> None:
    found = estimate(spec(tmp_path, "file:nowhere.onnx"), 123 * MIB, ["cpu"])
    assert found.serving == found.peak == {"cpu": {"host": 123 * MIB}}


def test_what_was_measured_is_known_to_the_next_server(tmp_path: Path) -> None:
    first = Profiles(tmp_path)
    guess = first.get(spec(tmp_path), 0, ["cpu"])
    real = msgspec.structs.replace(guess, serving={"cpu": {"host": 77 * MIB}}, measured=True)
    first.put(spec(tmp_path), real)
    again = Profiles(tmp_path)
    assert again.get(spec(tmp_path), 0, ["cpu"]) == real
    assert not again.get(spec(tmp_path, context=1), 0, ["cpu"]).measured
    assert "cuda:0" in again.get(spec(tmp_path), 0, ["cpu", "cuda:0"]).serving


@pytest.mark.parametrize("content", [b"", b"{", b'{"a": 1}', b"\xff\xfe"])
def test_a_damaged_file_is_told_and_replaced(
    tmp_path: Path, content: bytes, caplog: pytest.LogCaptureFixture
) -> None:
    (tmp_path / FILE_NAME).write_bytes(content)
    profiles = Profiles(tmp_path)
    assert "made anew" in caplog.text
    guess = profiles.get(spec(tmp_path), 0, ["cpu"])
    profiles.put(spec(tmp_path), msgspec.structs.replace(guess, measured=True))
    assert Profiles(tmp_path).get(spec(tmp_path), 0, ["cpu"]).measured


def test_options_of_the_schedule_are_none_of_the_workers() -> None:
    def configured(**options: object) -> Config:
        model = ModelOptions(role=Role.EMBEDDER, engine="echo", **options)  # type: ignore[arg-type]
        return Config(models={"e": model})

    plain = model_specs(configured())["e"]
    assert model_specs(configured(pin=True, give_back="never", device="cuda:1"))["e"] == plain
    assert model_specs(configured(replicas=2))["e"] != plain
    assert catalogue(configured(device="cuda"))["e"].setting.device == "cuda:0"
    assert catalogue(configured(size_hint="1.5GiB"))["e"].size_hint == 1536 * MIB


def test_limits_are_bytes() -> None:
    config = Config(devices={"host": DeviceOptions(limit="700MiB"), "cuda:0": DeviceOptions()})
    assert limits(config) == {"host": 700 * MIB}


def test_a_load_that_was_stopped_reserves_more_the_next_time(tmp_path: Path) -> None:
    guess = estimate(spec(tmp_path), 0, ["cpu"])
    larger = outgrown(guess, "cpu", 400 * MIB, 2000 * MIB)
    assert larger.peak["cpu"] == {"host": 500 * MIB}
    again = outgrown(larger, "cpu", 0, 2000 * MIB)
    assert again.peak["cpu"] == {"host": 625 * MIB}  # never the same again
    room = 508 * MIB  # 410 were seen and 513 do not fit, but the model may
    alone = outgrown(guess, "cpu", 410 * MIB, room)
    assert alone.peak["cpu"] == {"host": room}
    assert outgrown(alone, "cpu", 450 * MIB, room).peak["cpu"] == {"host": 635 * MIB}
    assert larger.serving == guess.serving


def test_what_serves_has_room_to_grow(tmp_path: Path) -> None:
    guess = estimate(spec(tmp_path, "file:nowhere.onnx"), 0, ["cpu"])
    memory = Memory({"host": 100 * MIB}, {"host": 300 * MIB})
    found = measured(guess, spec(tmp_path, "file:nowhere.onnx"), "cpu", memory, 2.0, parked=False)
    assert 100 * MIB < found.serving["cpu"]["host"] < found.peak["cpu"]["host"] == 300 * MIB
    assert (found.load["cpu"], found.resume) == (2.0, guess.resume)
    again = measured(found, spec(tmp_path), "cpu", memory, 0.5, parked=True)
    assert (again.load["cpu"], again.resume["cpu"]) == (2.0, 0.5)
