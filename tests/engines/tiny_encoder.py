"""A small BERT-like ONNX encoder with a word-level tokenizer, made on the spot: an embedding table
whose rows say which token they are, so that what comes out can be computed by hand."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper
from tokenizers import Tokenizer, pre_tokenizers, processors
from tokenizers.models import WordLevel

WORDS = ["[PAD]", "[CLS]", "[SEP]", "[UNK]", "dog", "cat", "tax", "leash", "city", "water"]
TABLE = np.random.default_rng(7).standard_normal((len(WORDS), 16)).astype(np.float32)


def write(folder: Path, *, cross: bool = False, classes: int = 1, positions: int = 12) -> Path:
    """An encoder with `last_hidden_state` = the table's rows; or a cross-encoder with `logits` =
    the first `classes` columns of the masked mean of the rows."""
    folder.mkdir(parents=True, exist_ok=True)
    _tokenizer().save(str(folder / "tokenizer.json"))
    config = {"model_type": "bert", "max_position_embeddings": positions}
    (folder / "config.json").write_text(json.dumps(config))
    nodes = [helper.make_node("Gather", ["table", "input_ids"], ["rows"])]
    if cross:
        nodes += [
            helper.make_node("Cast", ["attention_mask"], ["mask"], to=TensorProto.FLOAT),
            helper.make_node("Unsqueeze", ["mask", "last"], ["mask3"]),
            helper.make_node("Mul", ["rows", "mask3"], ["masked"]),
            helper.make_node("ReduceSum", ["masked", "one"], ["total"], keepdims=0),
            helper.make_node("ReduceSum", ["mask", "one"], ["count"], keepdims=1),
            helper.make_node("Div", ["total", "count"], ["mean"]),
            helper.make_node("MatMul", ["mean", "head"], ["logits"]),
        ]
        output = helper.make_tensor_value_info("logits", TensorProto.FLOAT, ["b", classes])
    else:
        nodes.append(helper.make_node("MatMul", ["rows", "identity"], ["last_hidden_state"]))
        output = helper.make_tensor_value_info(
            "last_hidden_state", TensorProto.FLOAT, ["b", "t", TABLE.shape[1]]
        )
    tensors = {
        "table": TABLE,
        "identity": np.eye(TABLE.shape[1], dtype=np.float32),
        "head": np.eye(TABLE.shape[1], classes, dtype=np.float32) * 4,
        "last": np.array([2], dtype=np.int64),
        "one": np.array([1], dtype=np.int64),
    }
    inputs = [
        helper.make_tensor_value_info(name, TensorProto.INT64, ["b", "t"])
        for name in ("input_ids", "attention_mask", "token_type_ids")
    ]
    initializers = [numpy_helper.from_array(value, name) for name, value in tensors.items()]
    graph = helper.make_graph(nodes, "tiny", inputs, [output], initializers)
    opsets = [helper.make_opsetid("", 17)]
    onnx.save(helper.make_model(graph, opset_imports=opsets, ir_version=9), folder / "model.onnx")
    return folder


def _tokenizer() -> Tokenizer:
    made = Tokenizer(WordLevel({word: i for i, word in enumerate(WORDS)}, unk_token="[UNK]"))
    made.pre_tokenizer = pre_tokenizers.Whitespace()
    made.post_processor = processors.TemplateProcessing(
        single="[CLS] $A [SEP]",
        pair="[CLS] $A [SEP] $B:1 [SEP]:1",
        special_tokens=[("[CLS]", 1), ("[SEP]", 2)],
    )
    return made


def rows(*words: str) -> np.ndarray:
    return TABLE[[WORDS.index(word) for word in words]]
