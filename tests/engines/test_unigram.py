"""The small tokenizer against the library whose work it does."""

from __future__ import annotations

import random
from pathlib import Path

import pytest
from tokenizers import Tokenizer

from headrace.config.model_options import default_models
from headrace.engines import encoder_files, unigram
from headrace.engines.windows import Windows
from headrace.errors import SourceError
from headrace.sources import resolve

WORDS = ["▁", "a", "b", "ab", "▁a", "▁ab", "榨", "榨油", "油"]
PIECES = [
    ("<s>", 0.0),
    ("<pad>", 0.0),
    ("</s>", 0.0),
    ("<unk>", 0.0),
    *((text, -2.0 - cost) for cost, text in enumerate(WORDS)),
]
ODD = [
    "",
    " ",
    "  two  spaces ",
    "tab\tnew\nline\r\n\u00a0fixed",
    "\u3000全角　ＡＢＣ①②",
    "ﬁ ligature, e\u0301 combining, \u200b nothing, \x00 zero",
    "▁under and a▁▁b",
    "😀😀 𒀀𒀀 unknown",
    "第四十四条 O-RAN.WG4.CUS.0-v10.00 38.401",
    "<mask> <unk> and other words that are pieces",
    "x" * 3000,
]


def written(folder: Path) -> unigram.Unigram:
    path = folder / unigram.FILE_NAME
    unigram.write(path, PIECES, bos=0, eos=2, pad=1, unk=3)
    return unigram.Unigram(path)


def test_the_likeliest_pieces_are_taken(tmp_path: Path) -> None:
    model = written(tmp_path)
    assert (model.bos, model.eos, model.pad) == (0, 2, 1)
    names = [[PIECES[id][0] for id in ids] for ids in model.encode(["abba", "榨油 ab", "?", ""])]
    assert names == [["▁ab", "b", "a"], ["▁", "榨油", "▁ab"], ["▁", "<unk>"], []]


def test_special_tokens_around_texts_and_pairs_and_the_window(tmp_path: Path) -> None:
    written(tmp_path)
    windows = Windows(tmp_path / "tokenizer.json", 6)
    assert windows.encode(["ab"]) == [([0, 9, 2], [0, 0, 0])]
    assert windows.encode([("ab", "b")])[0][0] == [0, 9, 2, 2, 4, 2]  # cut, but for the end
    assert windows.count(["ab ab", ""]) == [2, 0]
    assert windows.pad == 1


def test_a_file_that_is_none(tmp_path: Path) -> None:
    (tmp_path / unigram.FILE_NAME).write_bytes(b"\xff\xff nothing")
    with pytest.raises(SourceError, match=r"unigram\.model"):
        Windows(tmp_path / "tokenizer.json", 8)


@pytest.mark.models
@pytest.mark.slow
def test_the_default_embedders_texts_are_cut_as_by_its_tokenizer_json(model_cache: Path) -> None:
    path = resolve(default_models()["e5-small"].source, cache_dir=model_cache)
    files = encoder_files.find(path, model_cache, "int8")
    assert files.tokenizer.with_name(unigram.FILE_NAME).is_file()
    reference = Tokenizer.from_file(str(files.tokenizer))
    chance = random.Random(5)
    alphabet = "abc deéèü ,.-'0123456789 第条规定的人民法院　中华 かなカナ 한국어 русский שלום 😀"
    texts = ODD + ["".join(chance.choices(alphabet, k=chance.randrange(200))) for _ in range(500)]
    texts = [text for text in texts if "<mask>" not in text]  # in a text it is no special token
    expected = [e.ids for e in reference.encode_batch(texts)]
    assert [ids for ids, _ in Windows(files.tokenizer, 10_000).encode(texts)] == expected
    pairs = list(zip(texts[:50], texts[50:100], strict=True))
    expected = [e.ids for e in reference.encode_batch(pairs)]
    assert [ids for ids, _ in Windows(files.tokenizer, 10_000).encode(pairs)] == expected
