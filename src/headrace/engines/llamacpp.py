"""GGUF models on llama.cpp, in this process: generation, embedding, rerank.

xllamacpp runs llama.cpp's server on threads of its own. Its Python calls block, and cannot be
stopped before the first token; its HTTP side can, and is asynchronous. So this engine talks to it
over HTTP, on a Unix socket in a folder that only this user can enter: no port is opened. Closing
a response stops its slot within one batch of `_BATCH` tokens.

Slots share the context evenly: a request may have `context / slots` tokens, prompt and answer.
xllamacpp has no `close`: its destructor, on `unload`, ends the threads and frees the memory.
"""

from __future__ import annotations

import os
import shutil
import tempfile
from collections.abc import AsyncGenerator, Sequence
from pathlib import Path
from typing import Any

import httpx
import numpy as np

# llama.cpp's threads spin at barriers; on busy cores, by default for so long that it writes one
# token a second. Spinning 2,000 times costs nothing on idle cores. libgomp reads this as it loads.
os.environ.setdefault("GOMP_SPINCOUNT", "2000")

import xllamacpp

from headrace import sources
from headrace.engines import fingerprint, gguf_header
from headrace.engines.base import Engine, ModelInfo, ModelSpec, Pair, Vectors, by_query
from headrace.engines.machine import cores
from headrace.engines.openai_wire import Peer, chat_body, stream_chat
from headrace.engines.yes_no import YesNo
from headrace.errors import ConfigError, HeadraceError, SourceError
from headrace.types import Delta, EmbedKind, GenerateParams, Message, Role

_BATCH = 512
_HOST = "http://llama.cpp"
_LEAST_ROOM = 16  # tokens of query and text together, for a score to mean anything
_SLACK = 4  # a text within a reranker's prompt may have a few tokens more than alone
_STEP = 16  # texts of one request: after each the engine has made a step
_CHARACTERS_PER_TOKEN = 64  # beyond what any token covers; longer texts are cut before tokenizing
_POOLINGS = {
    "mean": xllamacpp.llama_pooling_type.LLAMA_POOLING_TYPE_MEAN,
    "cls": xllamacpp.llama_pooling_type.LLAMA_POOLING_TYPE_CLS,
}
_ATTENTION = {
    "auto": xllamacpp.llama_flash_attn_type.LLAMA_FLASH_ATTN_TYPE_AUTO,
    "flash": xllamacpp.llama_flash_attn_type.LLAMA_FLASH_ATTN_TYPE_ENABLED,
    "plain": xllamacpp.llama_flash_attn_type.LLAMA_FLASH_ATTN_TYPE_DISABLED,
}


class LlamaCppEngine(Engine):
    """All three roles, by the model's kind. `score` gives what the model's head gives: a logit
    for cross-encoders, a probability for models with a head for yes and no; with `scoring:
    yes_no`, a generator's probability of saying yes.

    llama.cpp gives both texts of a pair the first token type. Cross-encoders with one type only
    (XLM-RoBERTa, as bge-reranker-v2-m3) score as in their own library; those trained with two
    (BERT, as the MS MARCO MiniLM ones) do not: run them on the engine `onnx`."""

    def load(self, spec: ModelSpec, device: str = "cpu") -> ModelInfo:
        path = sources.resolve(spec.source, cache_dir=spec.cache, sha256=spec.options.get("sha256"))
        if path.is_dir():
            raise SourceError(f"{spec.source} is a folder; name its .gguf file")
        header = gguf_header.read(path)
        asked = spec.role is Role.RERANKER and spec.options.get("scoring") == "yes_no"
        if spec.role is Role.RERANKER and not asked:
            _check_head(path)
        params = _parameters(path, header, spec, device)
        self._folder = Path(tempfile.mkdtemp(prefix="headrace-"))
        params.hostnames = [str(self._folder / "llama.sock")]
        try:
            self._server = xllamacpp.Server(params)
        except (RuntimeError, ValueError) as error:
            shutil.rmtree(self._folder, ignore_errors=True)
            raise SourceError(f"llama.cpp cannot load {path}: {error}") from error
        timeout = float(spec.options.get("timeout_seconds", 120.0))
        # A stream may have to wait while the others go on; if none does, `steps` says so.
        self._waiting = httpx.Timeout(timeout, read=None)
        self._peer = Peer(f"llama.cpp ({spec.name})", local=True)
        self._client = httpx.Client(
            transport=httpx.HTTPTransport(uds=params.hostnames[0], verify=False),
            base_url=_HOST,
            timeout=timeout,
        )
        self._socket = params.hostnames[0]
        self._name = spec.name
        self._prefixes: dict[EmbedKind, str] = {
            "query": spec.options.get("query_prefix", ""),
            "passage": spec.options.get("passage_prefix", ""),
        }
        self._window = params.n_ctx // params.n_parallel
        self._dimensions = 0
        self._around = 0
        self._yes_no: YesNo | None = None
        try:
            if spec.role is Role.EMBEDDER:
                self._dimensions = self.embed(["a"], "passage").shape[1]
            elif asked:
                template = gguf_header.text(path, "tokenizer.chat_template.rerank")
                self._yes_no = YesNo(spec.name, self._post, self._window, template)
            elif spec.role is Role.RERANKER:
                self._around = self._tokens_around_pair()
        except HeadraceError:
            self.unload()
            raise
        settings = (sorted(self._prefixes.items()), int(params.pooling_type), self._window)
        return ModelInfo(
            name=spec.name,
            role=spec.role,
            engine="llamacpp",
            fingerprint=fingerprint.of_files([path], *settings),
            dimensions=self._dimensions,
            context=self._window,
            slots=params.n_parallel,
        )

    def unload(self) -> None:
        self._client.close()
        del self._server  # its destructor waits for its threads
        shutil.rmtree(self._folder, ignore_errors=True)

    async def generate(
        self, messages: Sequence[Message], params: GenerateParams
    ) -> AsyncGenerator[Delta]:
        body = chat_body(self._name, messages, params)
        body["return_progress"] = True  # an event for every batch of a long prompt
        transport = httpx.AsyncHTTPTransport(uds=self._socket, verify=False)
        async with httpx.AsyncClient(
            transport=transport, base_url=_HOST, timeout=self._waiting
        ) as client:
            url = "/v1/chat/completions"
            async for delta in stream_chat(client, url, body, self._peer, self.step):
                yield delta

    def embed(self, texts: Sequence[str], kind: EmbedKind) -> Vectors:
        prefix = self._prefixes[kind]
        whole = [self._cut(prefix + text) or " " for text in texts]  # no tokens would be refused
        rows = [self._fit(self._tokens(text, special=True)) for text in whole]
        if not rows:
            return np.zeros((0, self._dimensions), dtype=np.float32)
        vectors = np.concatenate(
            [self._embed_step(rows[i : i + _STEP]) for i in range(0, len(rows), _STEP)]
        )
        vectors /= np.maximum(np.linalg.norm(vectors, axis=1, keepdims=True), 1e-12)
        return vectors

    def _embed_step(self, rows: list[list[int]]) -> Vectors:
        answer = self._post("/v1/embeddings", {"input": rows, "encoding_format": "float"})
        vectors = np.empty((len(rows), len(answer["data"][0]["embedding"])), dtype=np.float32)
        for item in answer["data"]:
            vectors[item["index"]] = item["embedding"]
        return vectors

    def score(self, pairs: Sequence[Pair]) -> Vectors:
        if self._yes_no is not None:
            return self._yes_no.score(pairs, self._shorten)
        scores = np.empty(len(pairs), dtype=np.float32)
        for query, places, texts in by_query(pairs):
            scores[places] = self._score(query, texts)
        return scores

    def _score(self, query: str, texts: Sequence[str]) -> Vectors:
        room = self._window - self._around - _SLACK
        query = self._shorten(query, room // 2)
        room -= len(self._tokens(query))
        documents = [self._shorten(text, room) for text in texts]
        scores = np.empty(len(documents), dtype=np.float32)
        for start in range(0, len(documents), _STEP):
            step = documents[start : start + _STEP]
            body = {"query": query, "documents": step, "top_n": len(step)}
            for item in self._post("/v1/rerank", body)["results"]:
                scores[start + item["index"]] = item["relevance_score"]
        return scores

    def count(self, texts: Sequence[str]) -> list[int]:
        return [len(self._tokens(text)) for text in texts]

    def _tokens(self, text: str, *, special: bool = False) -> list[int]:
        tokens: list[int] = self._post("/tokenize", {"content": text, "add_special": special})[
            "tokens"
        ]
        return tokens

    def _fit(self, tokens: list[int]) -> list[int]:
        """Cut to the window; the last token, which may be a closing one, stays."""
        return tokens if len(tokens) <= self._window else [*tokens[: self._window - 1], tokens[-1]]

    def _cut(self, text: str) -> str:
        """Without what is surely beyond the window, and without lone surrogates, which JSON can
        carry and UTF-8 cannot."""
        text = text[: self._window * _CHARACTERS_PER_TOKEN]
        return text if text.isascii() else text.encode("utf-8", "replace").decode()

    def _shorten(self, text: str, most: int) -> str:
        """The text's beginning of at most that many tokens. Not the text of its first tokens: an
        unknown word's token says `[UNK]`, which is several tokens itself."""
        text = self._cut(text)
        while (count := len(self._tokens(text))) > most:
            text = text[: min(len(text) - 1, len(text) * most // count)]
        return text

    def _tokens_around_pair(self) -> int:
        """Tokens that a reranker's prompt has beside the query and the text: special ones, or
        the instructions of a model that is prompted."""
        answer = self._post("/v1/rerank", {"query": "a", "documents": ["a"]})
        around: int = answer["usage"]["prompt_tokens"] - 2 * len(self._tokens("a"))
        if self._window - around < _LEAST_ROOM:
            raise ConfigError(
                f"{self._name}: its prompt takes {around} of {self._window} tokens; raise "
                "`max_tokens` of the model"
            )
        return around

    def _post(self, path: str, body: dict[str, Any]) -> Any:
        try:
            response = self._client.post(path, json=body)
        except httpx.HTTPError as error:
            raise self._peer.unreachable(error) from error
        if response.status_code != 200:
            raise self._peer.refusal(response.status_code, response.text, response.headers)
        self.step()
        return response.json()


def _check_head(path: Path) -> None:
    """Without a classification head, llama.cpp takes the first number of a vector for a score."""
    if not any(name.startswith("cls.") for name in gguf_header.tensors(path)):
        raise SourceError(
            f"{path} has no classification head (weights named `cls.`), so it cannot score; take a "
            "reranker, or give this model the role embedder"
        )


def _parameters(path: Path, header: dict[str, Any], spec: ModelSpec, device: str) -> Any:
    """llama.cpp's parameters for this model and role."""
    options = spec.options
    threads = int(options.get("threads", 0)) or cores()
    slots = int(options.get("slots", 4))
    architecture = header.get("general.architecture", "")
    trained = int(header.get(f"{architecture}.context_length", 0)) or 1 << 20

    params = xllamacpp.CommonParams()
    params.model.path = str(path)
    params.n_parallel = slots
    _place(params, spec.name, device)
    params.cpuparams.n_threads = threads
    params.cpuparams_batch.n_threads = threads
    params.fit_params = False  # the context is what the configuration says
    params.warmup = False
    params.cache_ram_mib = 0  # no copies of old prompts beside the slots' own
    params.enable_reasoning = 0  # a model that thinks aloud spends the answer's tokens on it
    params.ui = False
    params.endpoint_slots = False
    params.verbosity = 0
    window = min(int(options.get("max_tokens", 512)), trained)
    if spec.role is Role.GENERATOR:
        params.flash_attn_type = _ATTENTION[options.get("attention", "auto")]
    if spec.role is Role.GENERATOR or options.get("scoring") == "yes_no":
        context = int(options.get("context", 8192)) if spec.role is Role.GENERATOR else 0
        params.n_ctx = min(context, trained * slots) or window * slots
        params.n_batch = params.n_ubatch = _BATCH
        return params
    params.embedding = True
    params.n_ctx = window * slots
    params.n_batch = params.n_ubatch = window  # an input must fit one physical batch
    if spec.role is Role.RERANKER:
        params.pooling_type = xllamacpp.llama_pooling_type.LLAMA_POOLING_TYPE_RANK
    elif f"{architecture}.pooling_type" not in header:
        params.pooling_type = _POOLINGS[options.get("pooling", "mean")]
    return params


def _place(params: Any, name: str, device: str) -> None:
    """Compute on this device and no other. Raises `ConfigError` where llama.cpp does not see it."""
    if device == "cpu":
        params.n_gpu_layers = 0
        params.no_kv_offload = params.no_op_offload = True
        return
    gpu = xllamacpp.ggml_backend_dev_type.GGML_BACKEND_DEVICE_TYPE_GPU
    found = sum(one["type"] == gpu for one in xllamacpp.get_device_info())
    index = int(device.partition(":")[2] or 0)
    if index >= found:
        raise ConfigError(
            f"model {name!r} cannot run on {device}: the installed xllamacpp sees {found} GPUs; "
            "its wheels with CUDA are on its own index, see its documentation",
            field="device",
        )
    params.n_gpu_layers = -1  # all
    params.split_mode = xllamacpp.llama_split_mode.LLAMA_SPLIT_MODE_NONE
    params.main_gpu = index
