"""Late interaction: how well the tokens of a passage answer to those of a query.

The score is the mean, over the query's tokens, of the best cosine with a token of the passage
(MaxSim: Khattab and Zaharia, ColBERT, 2020), each token being what the encoder makes of it in its
text. The token vectors of an encoder trained for mean pooling share a direction that says
nothing; the mean token vector of a few sentences is subtracted from all of them first.

A compressed passage has `BITS` bits for each dimension of a token and a factor, 98 bytes a token at
384 dimensions. The vectors are rotated by a fixed transform, after which their coordinates are
about normal, so that the quantiser needs no training (Max, 1960) and codes stay valid whatever is
added to a collection. The factor makes the estimated cosine unbiased (Gao and Long, RaBitQ, 2024).
"""

from __future__ import annotations

import hashlib
import threading
from collections import OrderedDict
from collections.abc import Callable, Sequence
from typing import TypeAlias

import numpy as np
import numpy.typing as npt

from headrace.engines.base import Pair, Vectors
from headrace.errors import BadRequest
from headrace.types import EmbedKind

VERSION = 1
"""Of the codes; part of the model's fingerprint."""
BITS = 2
_LEVELS = (-1.510, -0.4528, 0.4528, 1.510)
"""Best four for a normal variable: J. Max, Quantizing for minimum distortion, table I."""
_CUTS = (-0.9816, 0.0, 0.9816)
_FACTOR = 2  # bytes: a half-precision number

KEPT_QUERIES = 64
"""A question's passages may come in several batches; its own tokens are encoded once."""
SAMPLE = (
    "The tenant shall pay the rent on the first day of every month.",
    "Water boils at one hundred degrees; the machine stops by itself when it is empty.",
    "Who may open an account, and what does it cost per year?",
    "Version 2.4 of the interface adds three messages and removes one timer.",
    "She was born in 1967 in a small town by the sea and studied music in Vienna.",
    "民事主体从事民事活动，应当遵循自愿原则，按照自己的意思设立、变更、终止民事法律关系。",
    "用人单位自用工之日起超过一个月不满一年未与劳动者订立书面劳动合同的，应当支付二倍的工资。",
    "请问发烧三天还能不能打疫苗？需要带什么证件？",
    "本产品适用于室内环境，安装前请先切断电源，并由专业人员操作。",
    "昨天下午，三百多名学生在体育馆参加了比赛。",
)
"""Everyday sentences, whose tokens' mean stands for that of all texts."""

Tokens: TypeAlias = npt.NDArray[np.float32]
"""[tokens, dimensions], L2-normalised; may have no row."""
Encode: TypeAlias = Callable[[Sequence[str], EmbedKind], list[Tokens]]
"""Texts to the vectors of their own tokens: prefix and special ones left out."""


class LateInteraction:
    """Scores with the token vectors that `encode` gives; may be used by several threads."""

    def __init__(self, encode: Encode) -> None:
        self._encode = encode
        sample = np.concatenate(encode(SAMPLE, "passage"))
        self._mean: Tokens = sample.mean(axis=0)
        self._codec = Codec(sample.shape[1])
        self._known: OrderedDict[str, Tokens] = OrderedDict()
        self._lock = threading.Lock()

    def score(self, pairs: Sequence[Pair]) -> Vectors:
        """float32 [n], between -1 and 1; 0 where query or text has no token."""
        queries = self._queries(list(dict.fromkeys(pair.query for pair in pairs)))
        texts = list(dict.fromkeys(p.passage for p in pairs if isinstance(p.passage, str)))
        read = dict(zip(texts, self._tokens(texts, "passage"), strict=True))
        scores = np.empty(len(pairs), dtype=np.float32)
        for place, (query, given) in enumerate(pairs):
            passage = read[given] if isinstance(given, str) else self._codec.decode(given)
            scores[place] = _best_cosine(queries[query], passage)
        return scores

    def compress(self, texts: Sequence[str]) -> list[bytes]:
        return [self._codec.encode(tokens) for tokens in self._tokens(texts, "passage")]

    def _queries(self, queries: Sequence[str]) -> dict[str, Tokens]:
        with self._lock:
            found = {query: self._known[query] for query in queries if query in self._known}
        new = [query for query in queries if query not in found]
        found |= zip(new, self._tokens(new, "query"), strict=True)
        with self._lock:
            self._known |= found
            while len(self._known) > KEPT_QUERIES:
                self._known.popitem(last=False)
        return found

    def _tokens(self, texts: Sequence[str], kind: EmbedKind) -> list[Tokens]:
        """Centred, normalised and rotated, which leaves cosines as they are."""
        if not texts:
            return []
        return [self._codec.rotate(_unit(one - self._mean)) for one in self._encode(texts, kind)]


class Codec:
    """Unit vectors of a fixed number of dimensions to bytes and back."""

    def __init__(self, dimensions: int) -> None:
        self._dimensions = dimensions
        self._bytes = -(-dimensions * BITS // 8)
        self._rotation = _rotation(dimensions)
        levels = np.asarray(_LEVELS, np.float32) / np.sqrt(np.float32(dimensions))
        every = np.arange(256)[:, None] >> np.arange(0, 8, BITS) & (1 << BITS) - 1
        self._values = levels[every]  # [256, numbers in a byte]

    def rotate(self, tokens: Tokens) -> Tokens:
        rotated: Tokens = tokens @ self._rotation
        return rotated

    def encode(self, tokens: Tokens) -> bytes:
        """Of rotated vectors: a byte that says which version this is, the codes, the factors."""
        per_byte = 8 // BITS
        levels = np.zeros((len(tokens), self._bytes * per_byte), np.uint8)
        cuts = np.asarray(_CUTS, np.float32) / np.sqrt(np.float32(self._dimensions))
        levels[:, : self._dimensions] = np.searchsorted(cuts, tokens)
        shifted = levels.reshape(len(tokens), self._bytes, per_byte) << np.arange(0, 8, BITS)
        codes: npt.NDArray[np.uint8] = np.bitwise_or.reduce(shifted, axis=2).astype(np.uint8)
        products = (self._decoded(codes) * tokens).sum(axis=1)
        factors: npt.NDArray[np.float16] = (1.0 / np.maximum(products, 0.5)).astype("<f2")
        return bytes([VERSION]) + codes.tobytes() + factors.tobytes()

    def decode(self, given: bytes) -> Tokens:
        """Raises `BadRequest` for what another model or version has made."""
        count, rest = divmod(len(given) - 1, self._bytes + _FACTOR)
        if rest or given[0] != VERSION:
            raise BadRequest("a compressed passage is not of this reranker")
        end = 1 + count * self._bytes
        codes = np.frombuffer(given[1:end], np.uint8).reshape(count, self._bytes)
        factors = np.frombuffer(given[end:], "<f2").astype(np.float32)
        tokens: Tokens = self._decoded(codes) * factors[:, None]
        return tokens

    def _decoded(self, codes: npt.NDArray[np.uint8]) -> Tokens:
        width = self._bytes * 8 // BITS
        values: Tokens = self._values.take(codes, axis=0).reshape(len(codes), width)
        return values[:, : self._dimensions]


def _best_cosine(query: Tokens, passage: Tokens) -> float:
    """The mean over the query's tokens of the best product with one of the passage's. Passage by
    passage: products of this size take one thread of BLAS, which is quicker than waking all."""
    if not len(query) or not len(passage):
        return 0.0
    return float((passage @ query.T).max(axis=0).mean())


def _rotation(dimensions: int) -> Tokens:
    """An orthogonal matrix that mixes all coordinates: signs, then the discrete cosine transform.
    The same on every machine, since codes are kept."""
    bits = hashlib.shake_256(b"headrace").digest(dimensions // 8 + 1)
    signs = np.unpackbits(np.frombuffer(bits, np.uint8))[:dimensions] * 2.0 - 1.0
    row = np.arange(dimensions)
    cosines = np.cos(np.pi / dimensions * (row[:, None] + 0.5) * row)
    cosines *= np.sqrt(np.where(row == 0, 1.0, 2.0) / dimensions)
    rotation: Tokens = (signs[:, None] * cosines).astype(np.float32)
    return rotation


def _unit(tokens: Tokens) -> Tokens:
    unit: Tokens = tokens / np.maximum(np.linalg.norm(tokens, axis=1, keepdims=True), 1e-12)
    return unit
