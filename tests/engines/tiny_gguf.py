"""A tiny BERT with random weights as a GGUF file, and the same network in numpy: what llama.cpp
computes can be checked to the third decimal.

llama.cpp adds the embedding of token type 0 to every token, also to those of a pair's second text.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TypeAlias

import gguf
import numpy as np
import numpy.typing as npt

SPECIAL = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]"]
WORDS = ["dog", "cat", "tax", "leash", "city", "water", "the", "of", "on", "in", "rent", "due"]
VOCABULARY = [*SPECIAL, *(f"\u2581{word}" for word in WORDS)]  # as the converter writes words
UNK, CLS, SEP = 1, 2, 3
WIDTH, HEADS, LAYERS, INNER, POSITIONS = 32, 4, 2, 64, 64
EPSILON = 1e-12

Matrix: TypeAlias = npt.NDArray[np.float32]


def weights(seed: int = 7) -> dict[str, Matrix]:
    """By GGUF name; matrices are [out, in]."""
    chance = np.random.default_rng(seed)

    def normal(*shape: int) -> Matrix:
        return (chance.standard_normal(shape) * 0.4).astype(np.float32)

    made = {
        "token_embd.weight": normal(len(VOCABULARY), WIDTH),
        "position_embd.weight": normal(POSITIONS, WIDTH),
        "token_types.weight": normal(2, WIDTH),
    }
    for name in ("token_embd_norm", *(f"blk.{i}.{n}" for i in range(LAYERS) for n in _NORMS)):
        made[f"{name}.weight"] = 1 + normal(WIDTH)
        made[f"{name}.bias"] = normal(WIDTH)
    for i in range(LAYERS):
        for name, out, into in _LINEAR:
            made[f"blk.{i}.{name}.weight"] = normal(out, into)
            made[f"blk.{i}.{name}.bias"] = normal(out)
    return made


def head(seed: int = 8) -> dict[str, Matrix]:
    """What makes it a cross-encoder of one score."""
    chance = np.random.default_rng(seed)
    shapes = {"cls.weight": (WIDTH, WIDTH), "cls.bias": (WIDTH,)}
    shapes |= {"cls.output.weight": (1, WIDTH), "cls.output.bias": (1,)}
    return {n: (chance.standard_normal(s) * 0.4).astype(np.float32) for n, s in shapes.items()}


_NORMS = ("attn_output_norm", "layer_output_norm")
_LINEAR = [
    ("attn_q", WIDTH, WIDTH),
    ("attn_k", WIDTH, WIDTH),
    ("attn_v", WIDTH, WIDTH),
    ("attn_output", WIDTH, WIDTH),
    ("ffn_up", INNER, WIDTH),
    ("ffn_down", WIDTH, INNER),
]


def write(
    path: Path,
    tensors: Mapping[str, Matrix],
    pooling: gguf.PoolingType | None,
    *,
    rerank_template: str = "",
) -> Path:
    writer = gguf.GGUFWriter(path, "bert")
    writer.add_name("tiny")
    writer.add_context_length(POSITIONS)
    writer.add_embedding_length(WIDTH)
    writer.add_block_count(LAYERS)
    writer.add_feed_forward_length(INNER)
    writer.add_head_count(HEADS)
    writer.add_layer_norm_eps(EPSILON)
    writer.add_causal_attention(False)
    if pooling is not None:
        writer.add_pooling_type(pooling)
    writer.add_tokenizer_model("bert")
    writer.add_tokenizer_pre("default")
    writer.add_token_list(VOCABULARY)
    kinds = {True: gguf.TokenType.CONTROL, False: gguf.TokenType.NORMAL}
    writer.add_token_types([kinds[token in SPECIAL] for token in VOCABULARY])
    writer.add_token_type_count(2)
    writer.add_unk_token_id(UNK)
    writer.add_bos_token_id(CLS)
    writer.add_sep_token_id(SEP)
    writer.add_eos_token_id(SEP)
    writer.add_pad_token_id(0)
    writer.add_mask_token_id(4)
    writer.add_add_bos_token(True)
    writer.add_add_eos_token(True)
    writer.add_add_sep_token(False)
    if rerank_template:
        writer.add_chat_template([{"name": "rerank", "template": rerank_template}])
    for name, values in tensors.items():
        writer.add_tensor(name, values)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    return path


def tokens(text: str) -> list[int]:
    """Of words with spaces between; without special ones."""
    known = {token: i for i, token in enumerate(VOCABULARY)}
    return [known.get(f"\u2581{word}", UNK) for word in text.lower().split()]


def pair(query: str, text: str) -> list[int]:
    """What a cross-encoder reads."""
    return [CLS, *tokens(query), SEP, *tokens(text), SEP]


@dataclass(frozen=True)
class Reference:
    """The network in numpy."""

    tensors: Mapping[str, Matrix]

    def score(self, ids: Sequence[int]) -> float:
        """The logit of a whole input, special tokens included."""
        first = self.states(ids)[0]
        return float(self._linear("cls.output", np.tanh(self._linear("cls", first)))[0])

    def embed(self, ids: Sequence[int], pooling: str) -> Matrix:
        """The L2-normalised vector of `[CLS] ids [SEP]`."""
        states = self.states([CLS, *ids, SEP])
        pooled = states[0] if pooling == "cls" else states.mean(axis=0)
        normalised: Matrix = pooled / np.linalg.norm(pooled)
        return normalised

    def states(self, ids: Sequence[int]) -> Matrix:
        """float32 [tokens, width] after the last layer."""
        given = self.tensors
        x = given["token_embd.weight"][list(ids)] + given["position_embd.weight"][: len(ids)]
        x = self._norm("token_embd_norm", x + given["token_types.weight"][0])
        for i in range(LAYERS):
            x = self._norm(f"blk.{i}.attn_output_norm", x + self._attention(i, x))
            inner = _gelu(self._linear(f"blk.{i}.ffn_up", x))
            x = self._norm(
                f"blk.{i}.layer_output_norm", x + self._linear(f"blk.{i}.ffn_down", inner)
            )
        return x

    def _attention(self, layer: int, x: Matrix) -> Matrix:
        q, k, v = (
            self._linear(f"blk.{layer}.attn_{name}", x)
            .reshape(len(x), HEADS, WIDTH // HEADS)
            .swapaxes(0, 1)
            for name in "qkv"
        )
        q, k, v = (_half(m) for m in (q, k, v))  # as llama.cpp's attention takes them
        logits = q @ k.swapaxes(1, 2) / np.sqrt(WIDTH // HEADS)
        shares = np.exp(logits - logits.max(axis=2, keepdims=True))
        shares /= shares.sum(axis=2, keepdims=True)
        return self._linear(
            f"blk.{layer}.attn_output", (shares @ v).swapaxes(0, 1).reshape(len(x), WIDTH)
        )

    def _linear(self, name: str, x: Matrix) -> Matrix:
        result: Matrix = x @ self.tensors[f"{name}.weight"].T + self.tensors[f"{name}.bias"]
        return result

    def _norm(self, name: str, x: Matrix) -> Matrix:
        centred = x - x.mean(axis=-1, keepdims=True)
        scaled = centred / np.sqrt((centred**2).mean(axis=-1, keepdims=True) + EPSILON)
        result: Matrix = scaled * self.tensors[f"{name}.weight"] + self.tensors[f"{name}.bias"]
        return result


def _gelu(x: Matrix) -> Matrix:
    """ggml's GELU: the approximation by tanh, from a table of half precision."""
    x = _half(x)
    return _half(0.5 * x * (1 + np.tanh(np.sqrt(2 / np.pi) * (x + 0.044715 * x**3))))


def _half(x: Matrix) -> Matrix:
    """Rounded to half precision."""
    return x.astype(np.float16).astype(np.float32)
