"""An ONNX graph of a BERT encoder, made from an `E5File` without torch.

Inputs `input_ids` and `attention_mask`, int [batch, tokens]; output `last_hidden_state`, float32
[batch, tokens, hidden]. The encoder is post-norm with exact GELU, learned positions and one token
type. onnxruntime's own fused operators do the work; the word embeddings stay in the 4-bit blocks
of the file (60 MB where float32 would take 384), which loses nothing.

`int8` multiplies weights of 7 bits, one scale per output column, with activations quantised per
call. (With 8 bits, processors without VNNI overflow their 16-bit sums; the eighth bit is worth
only 0.0005 of cosine.)
`float32` uses the weights as the file has them.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import numpy.typing as npt
import onnx
from onnx import TensorProto, helper, numpy_helper

from headrace.engines.e5_format import BLOCK, E5File

_MICROSOFT = "com.microsoft"
_WEIGHT_LIMIT = 63


def build(weights: E5File, precision: str) -> onnx.ModelProto:
    """The model, with all initialisers inside. `precision` is `int8` or `float32`."""
    return _Builder(weights, precision).build()


class _Builder:
    def __init__(self, weights: E5File, precision: str) -> None:
        self.weights = weights
        self.shape = weights.shape
        self.linear = {"int8": self._linear_int8, "float32": self._linear_float32}[precision]
        self.nodes: list[onnx.NodeProto] = []
        self.initializers: list[onnx.TensorProto] = []

    def build(self) -> onnx.ModelProto:
        hidden = self._embed()
        for layer in range(self.shape.layers):
            hidden = self._layer(f"l{layer}", hidden)
        self.nodes[-1].output[0] = "last_hidden_state"
        tokens = ["batch", "tokens"]
        graph = helper.make_graph(
            self.nodes,
            "encoder",
            [
                helper.make_tensor_value_info("input_ids", TensorProto.INT64, tokens),
                helper.make_tensor_value_info("attention_mask", TensorProto.INT64, tokens),
            ],
            [
                helper.make_tensor_value_info(
                    "last_hidden_state", TensorProto.FLOAT, [*tokens, self.shape.hidden]
                )
            ],
            self.initializers,
        )
        opsets = [helper.make_opsetid("", 20), helper.make_opsetid(_MICROSOFT, 1)]
        return helper.make_model(graph, opset_imports=opsets, ir_version=10)

    # Parts of the encoder ------------------------------------------------------------------

    def _embed(self) -> str:
        """Word + position + type embeddings, normalised."""
        shape = self.shape
        words = self._word_embeddings()
        positions = self.weights.tensor("emb.pos", shape.positions, shape.hidden)
        positions += self.weights.tensor("emb.type", shape.types, shape.hidden)[0]
        table = self._constant("emb.pos", positions)
        size = self._node("Shape", ["input_ids"], start=1, end=2)
        zero, one = (self._constant(f"int{n}", np.array([n], dtype=np.int64)) for n in (0, 1))
        here = self._node("Slice", [table, zero, size, zero, one])
        self._node("Cast", ["attention_mask"], "mask", to=TensorProto.INT32)
        total = self._node("Add", [words, here])
        return self._node(
            "LayerNormalization", [total, *self._norm("emb.ln")], axis=-1, epsilon=shape.epsilon
        )

    def _word_embeddings(self) -> str:
        blocks = self.weights.blocks("emb.word", self.shape.vocabulary, self.shape.hidden)
        low, high = blocks.nibbles & 0x0F, blocks.nibbles >> 4
        values = np.concatenate([low, high], axis=-1).reshape(self.shape.vocabulary, -1)
        packed = values[:, 0::2] | (values[:, 1::2] << 4)
        inputs = [
            self._constant("emb.word", packed),
            "input_ids",
            self._constant("emb.word.scale", blocks.scales.astype(np.float32)),
        ]
        return self._fused("GatherBlockQuantized", inputs, bits=4, block_size=BLOCK)

    def _layer(self, name: str, hidden: str) -> str:
        size, inner = self.shape.hidden, self.shape.feed_forward
        qkv = self._join([f"{name}.{part}" for part in "qkv"], size)
        query, key, value = self._split(self.linear(f"{name}.qkv", hidden, *qkv))
        mixed = self._fused(
            "MultiHeadAttention", [query, key, value, "", "mask"], num_heads=self.shape.heads
        )
        mixed = self.linear(f"{name}.ao", mixed, *self._dense(f"{name}.ao", size, size))
        hidden = self._add_norm(mixed, hidden, f"{name}.aln")
        wide = self.linear(f"{name}.fi", hidden, *self._dense(f"{name}.fi", inner, size))
        wide = self._fused("Gelu", [wide])
        narrow = self.linear(f"{name}.fo", wide, *self._dense(f"{name}.fo", size, inner))
        return self._add_norm(narrow, hidden, f"{name}.oln")

    def _add_norm(self, hidden: str, skip: str, norm: str) -> str:
        """Not by the fused `SkipLayerNormalization`, which takes seven times as long on a CPU: an
        eighth of the whole encoder."""
        total = self._node("Add", [hidden, skip])
        return self._node(
            "LayerNormalization", [total, *self._norm(norm)], axis=-1, epsilon=self.shape.epsilon
        )

    def _split(self, joined: str) -> Sequence[str]:
        outputs = [f"{joined}.{part}" for part in "qkv"]
        self.nodes.append(helper.make_node("Split", [joined], outputs, axis=-1, num_outputs=3))
        return outputs

    # Weights -------------------------------------------------------------------------------

    def _dense(self, name: str, rows: int, columns: int) -> tuple[Any, Any]:
        """Weight [in, out] and bias [out] of a linear layer."""
        weight = self.weights.tensor(f"{name}.w", rows, columns)
        return weight.T, self.weights.tensor(f"{name}.b", rows)

    def _join(self, names: Sequence[str], size: int) -> tuple[Any, Any]:
        parts = [self._dense(name, size, size) for name in names]
        return np.hstack([w for w, _ in parts]), np.concatenate([b for _, b in parts])

    def _norm(self, name: str) -> list[str]:
        size = self.shape.hidden
        return [
            self._constant(f"{name}.{part}", self.weights.tensor(f"{name}.{part}", size))
            for part in "wb"
        ]

    def _linear_float32(self, name: str, x: str, weight: Any, bias: Any) -> str:
        product = self._node("MatMul", [x, self._constant(f"{name}.w", weight)])
        return self._node("Add", [product, self._constant(f"{name}.b", bias)])

    def _linear_int8(self, name: str, x: str, weight: Any, bias: Any) -> str:
        scale = (np.abs(weight).max(axis=0) / _WEIGHT_LIMIT).astype(np.float32)
        scale = np.where(scale == 0, np.float32(1), scale)
        inputs = [
            x,
            self._constant(f"{name}.w", np.rint(weight / scale).astype(np.int8)),
            self._constant(f"{name}.scale", scale),
            "",
            self._constant(f"{name}.b", bias),
        ]
        return self._fused("DynamicQuantizeMatMul", inputs)

    # Graph ---------------------------------------------------------------------------------

    def _constant(self, name: str, value: npt.NDArray[Any]) -> str:
        self.initializers.append(numpy_helper.from_array(np.ascontiguousarray(value), name))
        return name

    def _node(
        self, operator: str, inputs: Sequence[str], output: str = "", **attributes: Any
    ) -> str:
        output = output or f"n{len(self.nodes)}"
        self.nodes.append(helper.make_node(operator, inputs, [output], **attributes))
        return output

    def _fused(self, operator: str, inputs: Sequence[str], **attributes: Any) -> str:
        return self._node(operator, inputs, domain=_MICROSOFT, **attributes)
