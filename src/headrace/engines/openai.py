"""Remote models behind OpenAI's protocol: vLLM, SGLang, trtllm-serve, Ollama, cloud services; for
rerank also Jina's, Cohere's and TEI's shapes.

The source is the base URL as OpenAI's clients take it, with its `/v1` where the server has one
(`http://127.0.0.1:8000/v1`); TEI's rerank has none (`http://127.0.0.1:8080`). `/chat/completions`,
`/embeddings` and `/rerank` are put behind it.

A stream has a connection of its own: a kept one that the server has just closed would fail an
answer, and connecting costs little beside generating. There is no tokenizer here, so `count` is
an estimate, and it never says too little by much: one token for three ASCII characters, and one
for every other character. Texts beyond `max_tokens` by that estimate are cut before embedding.
"""

from __future__ import annotations

import base64
import binascii
import os
import ssl
from collections.abc import AsyncGenerator, Mapping, Sequence
from typing import Any
from urllib.parse import urlsplit

import httpx
import numpy as np

from headrace.engines.base import Engine, ModelInfo, ModelSpec, Pair, Vectors, by_query
from headrace.engines.openai_wire import Peer, chat_body, stream_chat
from headrace.errors import ConfigError, HeadraceError
from headrace.types import Delta, EmbedKind, GenerateParams, Message, Role

_STEP = 32
"""Texts per request: TEI's default limit, and enough to fill a server's batch."""

_CONNECT_SECONDS = 10.0
_PATIENCE = 0.8  # of `timeout_seconds`: before the worker, which waits for nothing else, is killed
_PARALLEL = 8


class OpenAIEngine(Engine):
    """All three roles, at an upstream."""

    parallel = _PARALLEL

    def load(self, spec: ModelSpec, device: str = "cpu") -> ModelInfo:
        options = spec.options
        key = _key(options.get("api_key_env"))
        self._model = options.get("upstream_model") or spec.name
        self._shape = options.get("rerank_shape", "jina")
        self._window = int(options.get("max_tokens", 512))
        self._prefixes: dict[EmbedKind, str] = {
            "query": options.get("query_prefix", ""),
            "passage": options.get("passage_prefix", ""),
        }
        url = urlsplit(spec.source)
        place = url.netloc.rpartition("@")[2]  # without a name and password
        self._peer = Peer(f"{spec.name} at {place}{url.path}", secret=key)
        self._settings: dict[str, Any] = {
            "base_url": spec.source.rstrip("/"),
            "headers": {"Authorization": f"Bearer {key}"} if key else {},
            "timeout": httpx.Timeout(
                _PATIENCE * float(options.get("timeout_seconds", 120.0)), connect=_CONNECT_SECONDS
            ),
            "verify": ssl.create_default_context(),
        }
        try:
            self._client = httpx.Client(**self._settings)
        except (httpx.InvalidURL, ValueError) as error:
            raise ConfigError(f"{spec.name}: {spec.source!r} is not a base URL: {error}") from error
        self._dimensions = 0
        if spec.role is Role.EMBEDDER:
            try:
                self._dimensions = self.embed(["a"], "passage").shape[1]
            except HeadraceError:
                self._client.close()
                raise
        prefixes = "|".join(self._prefixes.values())
        return ModelInfo(
            name=spec.name,
            role=spec.role,
            engine="openai",
            fingerprint=f"openai:{self._model}:{self._dimensions}:{self._window}:{prefixes}",
            dimensions=self._dimensions,
            context=int(options.get("context", 0)) if spec.role is Role.GENERATOR else self._window,
            parallel=_PARALLEL,
        )

    def unload(self) -> None:
        self._client.close()

    async def generate(
        self, messages: Sequence[Message], params: GenerateParams
    ) -> AsyncGenerator[Delta]:
        body = chat_body(self._model, messages, params)
        async with httpx.AsyncClient(**self._settings) as client:
            async for delta in stream_chat(
                client, "/chat/completions", body, self._peer, self.step
            ):
                yield delta

    def embed(self, texts: Sequence[str], kind: EmbedKind) -> Vectors:
        inputs = [self._cut(self._prefixes[kind] + text) for text in texts]
        parts = [self._embed_step(inputs[i : i + _STEP]) for i in range(0, len(inputs), _STEP)]
        if not parts:
            return np.zeros((0, self._dimensions), dtype=np.float32)
        if len({part.shape[1] for part in parts}) > 1:
            raise self._peer.failure("sends vectors of different lengths")
        vectors = np.concatenate(parts)
        vectors /= np.maximum(np.linalg.norm(vectors, axis=1, keepdims=True), 1e-12)
        return vectors

    def score(self, pairs: Sequence[Pair]) -> Vectors:
        scores = np.empty(len(pairs), dtype=np.float32)
        for query, places, texts in by_query(pairs):
            for start in range(0, len(texts), _STEP):
                step = slice(start, start + _STEP)
                scores[places[step]] = self._score_step(query, texts[step])
        return scores

    def count(self, texts: Sequence[str]) -> list[int]:
        return [_estimate(text) for text in texts]

    def _embed_step(self, inputs: list[str]) -> Vectors:
        body = {"model": self._model, "input": inputs, "encoding_format": "base64"}
        answer = self._post("/embeddings", body)
        try:
            rows = {int(item["index"]): _vector(item["embedding"]) for item in answer["data"]}
            vectors = np.stack([rows[index] for index in range(len(inputs))])
        except (KeyError, TypeError, ValueError, binascii.Error) as error:
            raise self._peer.failure(f"sends no usable embeddings: {error!r}") from error
        if not np.isfinite(vectors).all():
            raise self._peer.failure("sends vectors that are not finite")
        return vectors

    def _score_step(self, query: str, texts: list[str]) -> Vectors:
        if self._shape == "tei":
            body: dict[str, Any] = {"query": query, "texts": texts, "truncate": True}
        else:
            body = {
                "model": self._model,
                "query": query,
                "documents": texts,
                "top_n": len(texts),
            }
            if self._shape == "jina":  # Cohere's second version refuses the option
                body["return_documents"] = False
        answer = self._post("/rerank", body)
        try:
            items = answer if self._shape == "tei" else answer["results"]
            name = "score" if self._shape == "tei" else "relevance_score"
            rows = {int(item["index"]): float(item[name]) for item in items}
            scores = np.array([rows[index] for index in range(len(texts))], dtype=np.float32)
        except (KeyError, TypeError, ValueError) as error:
            raise self._peer.failure(
                f"sends no usable scores in the shape {self._shape!r}: {error!r}"
            ) from error
        if not np.isfinite(scores).all():
            raise self._peer.failure("sends scores that are not finite")
        return scores

    def _post(self, path: str, body: Mapping[str, Any]) -> Any:
        try:
            response = self._client.post(path, json=body)
        except httpx.HTTPError as error:
            raise self._peer.unreachable(error) from error
        if response.status_code != 200:
            raise self._peer.refusal(response.status_code, response.text, response.headers)
        try:
            return response.json()
        except ValueError as error:
            raise self._peer.failure(f"sends something that is not JSON: {error}") from error

    def _cut(self, text: str) -> str:
        """The longest beginning of `text` that fits the window by the estimate."""
        if _estimate(text) <= self._window:
            return text
        low, high = 0, min(len(text), self._window * 3)
        while low < high:
            middle = (low + high + 1) // 2
            low, high = (
                (middle, high) if _estimate(text[:middle]) <= self._window else (low, middle - 1)
            )
        return text[:low]


def _key(variable: str | None) -> str:
    if not variable:
        return ""
    key = os.environ.get(variable, "")
    if not key:
        raise ConfigError(
            f"the environment variable {variable} is not set; it should hold the upstream's key",
            field="api_key_env",
        )
    return key


def _vector(given: str | list[float]) -> Vectors:
    """One embedding: base64 of little-endian float32, or a list of numbers."""
    if isinstance(given, str):
        return np.frombuffer(base64.b64decode(given, validate=True), dtype="<f4")
    return np.asarray(given, dtype=np.float32)


def _estimate(text: str) -> int:
    ascii_characters = len(text.encode("ascii", "ignore"))
    return -(-ascii_characters // 3) + len(text) - ascii_characters
