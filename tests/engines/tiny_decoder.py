"""A tiny Llama with random weights as a GGUF file, and the same network in numpy. Its tokens are
bytes, `yes`, `no` and three control tokens."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TypeAlias

import gguf
import numpy as np
import numpy.typing as npt

WIDTH, HEADS, INNER, POSITIONS = 32, 4, 64, 1024
EPSILON, BASE = 1e-5, 10000.0
SPECIAL = ["<|endoftext|>", "<|im_start|>", "<|im_end|>"]
TEMPLATE = (
    "{% for m in messages %}<|im_start|>{{ m.role }}\n{{ m.content }}<|im_end|>\n{% endfor %}"
    "{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}"
)

Matrix: TypeAlias = npt.NDArray[np.float32]


def _letters() -> list[str]:
    """The character that stands for each byte in vocabularies of GPT-2's kind."""
    plain = [*range(33, 127), *range(161, 173), *range(174, 256)]
    others = iter(range(256, 512))
    return [chr(byte if byte in plain else next(others)) for byte in range(256)]


LETTERS = _letters()
VOCABULARY = [*LETTERS, "ye", "yes", "no", *SPECIAL]
YES, NO = VOCABULARY.index("yes"), VOCABULARY.index("no")


def weights(seed: int = 5) -> dict[str, Matrix]:
    """By GGUF name; matrices are [out, in]."""
    chance = np.random.default_rng(seed)

    def normal(*shape: int) -> Matrix:
        return (chance.standard_normal(shape) * 0.3).astype(np.float32)

    square = {f"blk.0.attn_{name}.weight": normal(WIDTH, WIDTH) for name in ("q", "k", "v")}
    return square | {
        "token_embd.weight": normal(len(VOCABULARY), WIDTH),
        "output.weight": normal(len(VOCABULARY), WIDTH),
        "output_norm.weight": 1 + normal(WIDTH),
        "blk.0.attn_norm.weight": 1 + normal(WIDTH),
        "blk.0.ffn_norm.weight": 1 + normal(WIDTH),
        "blk.0.attn_output.weight": normal(WIDTH, WIDTH),
        "blk.0.ffn_gate.weight": normal(INNER, WIDTH),
        "blk.0.ffn_up.weight": normal(INNER, WIDTH),
        "blk.0.ffn_down.weight": normal(WIDTH, INNER),
    }


def write(path: Path, tensors: dict[str, Matrix], *, rerank_template: str = "") -> Path:
    writer = gguf.GGUFWriter(path, "llama")
    writer.add_context_length(POSITIONS)
    writer.add_embedding_length(WIDTH)
    writer.add_block_count(1)
    writer.add_feed_forward_length(INNER)
    writer.add_head_count(HEADS)
    writer.add_layer_norm_rms_eps(EPSILON)
    writer.add_rope_dimension_count(WIDTH // HEADS)
    writer.add_tokenizer_model("gpt2")
    writer.add_tokenizer_pre("gpt-2")
    writer.add_token_list(VOCABULARY)
    kinds = {True: gguf.TokenType.CONTROL, False: gguf.TokenType.NORMAL}
    writer.add_token_types([kinds[token in SPECIAL] for token in VOCABULARY])
    writer.add_token_merges(["y e", "ye s", "n o"])
    writer.add_bos_token_id(VOCABULARY.index("<|endoftext|>"))
    writer.add_eos_token_id(VOCABULARY.index("<|im_end|>"))
    writer.add_add_bos_token(False)
    writer.add_chat_template(TEMPLATE)
    if rerank_template:
        writer.add_string("tokenizer.chat_template.rerank", rerank_template)
    for name, values in tensors.items():
        writer.add_tensor(name, values)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    return path


def tokens(text: str) -> list[int]:
    """Of a text without control tokens."""
    ids = [VOCABULARY.index(LETTERS[byte]) for byte in text.encode()]
    letters = "".join(map(chr, ids))
    for word, id in (("yes", YES), ("no", NO)):
        coded = "".join(chr(VOCABULARY.index(letter)) for letter in word)
        letters = letters.replace(coded, chr(id))
    coded = "".join(chr(VOCABULARY.index(letter)) for letter in "ye")
    return [ord(c) for c in letters.replace(coded, chr(VOCABULARY.index("ye")))]


def framed(text: str) -> list[int]:
    """Of a text whose control tokens count."""
    for token in SPECIAL:
        if token in text:
            before, _, after = text.partition(token)
            return [*framed(before), VOCABULARY.index(token), *framed(after)]
    return tokens(text)


def logits(tensors: dict[str, Matrix], ids: Sequence[int]) -> Matrix:
    """float32 [vocabulary] for the token after `ids`."""
    x = tensors["token_embd.weight"][list(ids)]
    x = x + _attention(tensors, _norm(tensors["blk.0.attn_norm.weight"], x))
    inner = _norm(tensors["blk.0.ffn_norm.weight"], x)
    gate = inner @ tensors["blk.0.ffn_gate.weight"].T
    gate = gate / (1 + np.exp(-gate)) * (inner @ tensors["blk.0.ffn_up.weight"].T)
    x = x + gate @ tensors["blk.0.ffn_down.weight"].T
    last: Matrix = _norm(tensors["output_norm.weight"], x[-1])
    return tensors["output.weight"] @ last


def share_of_yes(tensors: dict[str, Matrix], ids: Sequence[int]) -> float:
    found = logits(tensors, ids)
    return float(1 / (1 + np.exp(found[NO] - found[YES])))


def _attention(tensors: dict[str, Matrix], x: Matrix) -> Matrix:
    size = WIDTH // HEADS
    q, k, v = (
        (x @ tensors[f"blk.0.attn_{name}.weight"].T).reshape(len(x), HEADS, size).swapaxes(0, 1)
        for name in "qkv"
    )
    shares = _turned(q) @ _turned(k).swapaxes(1, 2) / np.sqrt(size)
    shares = np.where(np.tril(np.ones(shares.shape[1:], bool)), shares, -np.inf)
    shares = np.exp(shares - shares.max(axis=2, keepdims=True))
    shares /= shares.sum(axis=2, keepdims=True)
    mixed: Matrix = (shares @ v).swapaxes(0, 1).reshape(len(x), WIDTH)
    return mixed @ tensors["blk.0.attn_output.weight"].T


def _turned(x: Matrix) -> Matrix:
    """Rotary positions of neighbouring pairs, [heads, tokens, size]."""
    size = x.shape[2]
    angles = np.arange(x.shape[1])[:, None] * BASE ** (-np.arange(0, size, 2) / size)
    even, odd = x[..., 0::2], x[..., 1::2]
    turned = np.empty_like(x)
    turned[..., 0::2] = even * np.cos(angles) - odd * np.sin(angles)
    turned[..., 1::2] = even * np.sin(angles) + odd * np.cos(angles)
    return turned


def _norm(weight: Matrix, x: Matrix) -> Matrix:
    scaled: Matrix = x / np.sqrt((x**2).mean(axis=-1, keepdims=True) + EPSILON) * weight
    return scaled
