"""A tiny BERT cross-encoder with random weights, as an ONNX graph and in numpy: two layers of
attention, two token types, a pooler and one score."""

from __future__ import annotations

import math
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import onnx
import tiny_encoder
from onnx import TensorProto, helper, numpy_helper

WIDTH, HEADS, LAYERS, INNER, POSITIONS = 32, 4, 2, 64, 64
EPSILON = 1e-12
Weights = dict[str, np.ndarray]


def weights(seed: int = 11) -> Weights:
    chance = np.random.default_rng(seed)

    def normal(*shape: int) -> np.ndarray:
        return (chance.standard_normal(shape) * 0.5).astype(np.float32)

    made = {
        "words": normal(len(tiny_encoder.WORDS), WIDTH),
        "positions": normal(POSITIONS, WIDTH),
        "types": normal(2, WIDTH),
    }
    linear = {"pooler": (WIDTH, WIDTH), "head": (WIDTH, 1)}
    norms = ["start"]
    for i in range(LAYERS):
        linear |= {f"{name}{i}": (WIDTH, WIDTH) for name in ("q", "k", "v", "o")}
        linear |= {f"up{i}": (WIDTH, INNER), f"down{i}": (INNER, WIDTH)}
        norms += [f"mid{i}", f"end{i}"]
    for name, shape in linear.items():
        made |= {f"{name}.w": normal(*shape), f"{name}.b": normal(shape[1])}
    for name in norms:
        made |= {f"{name}.w": 1 + normal(WIDTH), f"{name}.b": normal(WIDTH)}
    return made


def score(given: Weights, first: Sequence[str], second: Sequence[str]) -> float:
    """The sigmoid of the logit of a pair of texts, given as words."""
    words = ["[CLS]", *first, "[SEP]", *second, "[SEP]"]
    types = [0] * (len(first) + 2) + [1] * (len(second) + 1)
    ids = [tiny_encoder.WORDS.index(word) for word in words]
    x = given["words"][ids] + given["positions"][: len(ids)] + given["types"][types]
    x = _norm(given, "start", x)
    for i in range(LAYERS):
        q, k, v = (
            _linear(given, f"{n}{i}", x).reshape(len(ids), HEADS, -1).swapaxes(0, 1) for n in "qkv"
        )
        shares = np.exp(q @ k.swapaxes(1, 2) / math.sqrt(WIDTH // HEADS))
        shares /= shares.sum(axis=2, keepdims=True)
        mixed = (shares @ v).swapaxes(0, 1).reshape(len(ids), WIDTH)
        x = _norm(given, f"mid{i}", x + _linear(given, f"o{i}", mixed))
        inner = _linear(given, f"up{i}", x)
        inner = inner * 0.5 * (1 + np.vectorize(math.erf)(inner / math.sqrt(2)))
        x = _norm(given, f"end{i}", x + _linear(given, f"down{i}", inner))
    logit = _linear(given, "head", np.tanh(_linear(given, "pooler", x[0])))
    return float(1 / (1 + np.exp(-logit[0])))


def _linear(given: Weights, name: str, x: np.ndarray) -> np.ndarray:
    return x @ given[f"{name}.w"] + given[f"{name}.b"]


def _norm(given: Weights, name: str, x: np.ndarray) -> np.ndarray:
    centred = x - x.mean(axis=-1, keepdims=True)
    scaled = centred / np.sqrt((centred**2).mean(axis=-1, keepdims=True) + EPSILON)
    return scaled * given[f"{name}.w"] + given[f"{name}.b"]


def write(folder: Path, given: Weights) -> Path:
    folder = tiny_encoder.write(folder, positions=POSITIONS)  # its tokenizer and configuration
    graph = _Graph(given)
    x = graph.add("Gather", "words", "input_ids")
    x = graph.add("Add", x, graph.add("Gather", "positions", "position_ids"))
    x = graph.add("Add", x, graph.add("Gather", "types", "token_type_ids"))
    x = graph.norm("start", x)
    mask = graph.add("Cast", "attention_mask", to=TensorProto.FLOAT)
    mask = graph.add("Mul", graph.add("Sub", mask, "one"), "many")
    mask = graph.add("Unsqueeze", mask, "middle")
    for i in range(LAYERS):
        q, k, v = (
            graph.add(
                "Transpose", graph.add("Reshape", graph.linear(f"{n}{i}", x), "split"), perm=p
            )
            for n, p in (("q", [0, 2, 1, 3]), ("k", [0, 2, 3, 1]), ("v", [0, 2, 1, 3]))
        )
        logits = graph.add("Div", graph.add("MatMul", q, k), "root")
        shares = graph.add("Softmax", graph.add("Add", logits, mask), axis=-1)
        mixed = graph.add("Transpose", graph.add("MatMul", shares, v), perm=[0, 2, 1, 3])
        mixed = graph.add("Reshape", mixed, "joined")
        x = graph.norm(f"mid{i}", graph.add("Add", x, graph.linear(f"o{i}", mixed)))
        inner = graph.linear(f"up{i}", x)
        bell = graph.add("Add", graph.add("Erf", graph.add("Div", inner, "root2")), "one")
        inner = graph.add("Mul", graph.add("Mul", inner, bell), "half")
        x = graph.norm(f"end{i}", graph.add("Add", x, graph.linear(f"down{i}", inner)))
    pooled = graph.add("Tanh", graph.linear("pooler", graph.add("Gather", x, "zero", axis=1)))
    graph.save(folder / "model.onnx", graph.linear("head", pooled))
    return folder


class _Graph:
    def __init__(self, given: Weights) -> None:
        self._nodes: list[onnx.NodeProto] = []
        self._tensors = given | {
            "one": np.float32(1),
            "half": np.float32(0.5),
            "many": np.float32(1e4),
            "root": np.float32(math.sqrt(WIDTH // HEADS)),
            "root2": np.float32(math.sqrt(2)),
            "zero": np.int64(0),
            "middle": np.array([1, 2]),
            "split": np.array([0, 0, HEADS, WIDTH // HEADS]),
            "joined": np.array([0, 0, WIDTH]),
        }

    def add(self, kind: str, *inputs: str, **attributes: object) -> str:
        made = f"n{len(self._nodes)}"
        self._nodes.append(helper.make_node(kind, inputs, [made], **attributes))
        return made

    def linear(self, name: str, x: str) -> str:
        return self.add("Add", self.add("MatMul", x, f"{name}.w"), f"{name}.b")

    def norm(self, name: str, x: str) -> str:
        return self.add("LayerNormalization", x, f"{name}.w", f"{name}.b", epsilon=EPSILON)

    def save(self, path: Path, output: str) -> None:
        self._nodes.append(helper.make_node("Identity", [output], ["logits"]))
        names = ("input_ids", "attention_mask", "token_type_ids", "position_ids")
        inputs = [helper.make_tensor_value_info(n, TensorProto.INT64, ["b", "t"]) for n in names]
        outputs = [helper.make_tensor_value_info("logits", TensorProto.FLOAT, ["b", 1])]
        tensors = [numpy_helper.from_array(np.asarray(v), n) for n, v in self._tensors.items()]
        graph = helper.make_graph(self._nodes, "bert", inputs, outputs, tensors)
        opsets = [helper.make_opsetid("", 17)]
        onnx.save(helper.make_model(graph, opset_imports=opsets, ir_version=9), path)
