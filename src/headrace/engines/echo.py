"""An engine without weights: deterministic, for tests, for trying things out, for measuring what
everything around a model costs.

`generate` answers with the first sentence of the first numbered passage of the last user message
(`[1] ...`; a title in parentheses on its first line is left out) and cites it, or repeats the
message where there are no passages. `embed` hashes words and character bigrams, so that similar
texts have similar vectors. `score` is the share of the query's features that a text has;
`compress` is zlib's. A token
is a run of word characters, one CJK character, or one other sign.

The source holds settings with commas between them, each of which may be left out:

* `delay=SECONDS`: wait so long before each delta and each `embed` or `score`
* `dimensions=N`: vectors of that length, so another embedder
* `load=SECONDS`: take that long to load
* `memory=MIB`: hold that much while loaded
* `poison=WORD`: run out of memory over a text that has this word
* `crash=WORD`: over such a text, end the whole process
* `hang=WORD`: over such a text, do nothing for ever
"""

from __future__ import annotations

import asyncio
import os
import re
import signal
import threading
import time
import zlib
from collections.abc import AsyncGenerator, Iterator, Sequence
from typing import Annotated

import msgspec
import numpy as np

from headrace.engines.base import Engine, ModelInfo, ModelSpec, Pair, Passage, Vectors
from headrace.errors import ConfigError, PromptTooLong
from headrace.types import Delta, EmbedKind, FinishReason, GenerateParams, Message, Role, Usage

DIMENSIONS = 64
_CJK = "\u3040-\u30ff\u3400-\u9fff\uf900-\ufaff"
_TOKEN = re.compile(rf"[{_CJK}]|[^\W{_CJK}]+|[^\w\s]")
_PIECE = re.compile(rf"\s*(?:{_TOKEN.pattern})")
_PASSAGE = re.compile(r"^\[1\][ \t]*(?:\([^\n]*\)[ \t]*\n)?(.+?)(?=^\[\d+\]|\Z)", re.M | re.S)
_SENTENCE_END = re.compile(r"(?<=[。！？])|(?<=[.!?])(?=\s)")


class EchoEngine(Engine):
    """Implements all roles. See the module's text for what it answers."""

    def load(self, spec: ModelSpec, device: str = "cpu") -> ModelInfo:
        settings = _settings(spec.source)
        self._settings = settings
        self._delay, self._dimensions = settings.delay, settings.dimensions
        time.sleep(settings.load)
        self._weights = np.ones(settings.memory << 20, np.uint8)
        self._context = int(spec.options.get("context", 8192))
        return ModelInfo(
            name=spec.name,
            role=spec.role,
            engine="echo",
            fingerprint=f"echo-1:{self._dimensions}",
            dimensions=self._dimensions,
            context=self._context,
            compresses=spec.role is Role.RERANKER,
        )

    def unload(self) -> None:
        del self._weights

    async def generate(
        self, messages: Sequence[Message], params: GenerateParams
    ) -> AsyncGenerator[Delta]:
        if self._check([m.content for m in messages]):
            await asyncio.Event().wait()
        prompt_tokens = sum(self.count([m.content for m in messages]))
        if prompt_tokens >= self._context:
            raise PromptTooLong(
                f"the prompt has {prompt_tokens} tokens; the model's context holds {self._context}",
                field="messages",
            )
        answer = _cut_at_stop(_answer(messages), params.stop)
        pieces = _PIECE.findall(answer)
        cap = min(params.max_tokens, self._context - prompt_tokens)
        for piece in pieces[:cap]:
            await asyncio.sleep(self._delay)
            yield Delta(text=piece)
        reason: FinishReason = "length" if len(pieces) > cap else "stop"
        usage = Usage(prompt_tokens=prompt_tokens, completion_tokens=min(len(pieces), cap))
        yield Delta(finish_reason=reason, usage=usage)

    def embed(self, texts: Sequence[str], kind: EmbedKind) -> Vectors:
        self._wait(texts)
        vectors = np.zeros((len(texts), self._dimensions), dtype=np.float32)
        for row, text in zip(vectors, texts, strict=True):
            for feature in _features(text):
                value = zlib.crc32(feature.encode("utf-8", "surrogatepass"))
                row[value % self._dimensions] += 1.0 if value & 0x80000000 else -1.0
            if not row.any():  # nothing to hash, or all of it cancelled out
                row[0] = 1.0
            row /= np.linalg.norm(row)
        return vectors

    def score(self, pairs: Sequence[Pair]) -> Vectors:
        texts = [_text(passage) for _, passage in pairs]
        self._wait(texts)
        wanted = {query: set(_features(query)) for query in {pair.query for pair in pairs}}
        shares = [
            len(wanted[pair.query] & set(_features(text))) / max(len(wanted[pair.query]), 1)
            for pair, text in zip(pairs, texts, strict=True)
        ]
        return np.asarray(shares, dtype=np.float32)

    def compress(self, texts: Sequence[str]) -> list[bytes]:
        self._wait(texts)
        return [zlib.compress(text.encode("utf-8", "surrogatepass")) for text in texts]

    def count(self, texts: Sequence[str]) -> list[int]:
        return [len(_TOKEN.findall(text)) for text in texts]

    def _wait(self, texts: Sequence[str]) -> None:
        if self._delay:
            time.sleep(self._delay)
        if self._check(texts):
            threading.Event().wait()

    def _check(self, texts: Sequence[str]) -> bool:
        """Do what the texts' words ask for; True: hang."""

        def has(word: str) -> bool:
            return bool(word) and any(word in text for text in texts)

        if has(self._settings.poison):
            raise MemoryError
        if has(self._settings.crash):
            os.kill(os.getpid(), signal.SIGKILL)
        return has(self._settings.hang)


class _Settings(msgspec.Struct, forbid_unknown_fields=True):
    delay: float = 0.0
    dimensions: Annotated[int, msgspec.Meta(ge=1, le=9999)] = DIMENSIONS
    load: float = 0.0
    memory: Annotated[int, msgspec.Meta(ge=0)] = 0
    poison: str = ""
    crash: str = ""
    hang: str = ""


def _settings(source: str) -> _Settings:
    given = [part.partition("=") for part in source.split(",")] if source else []
    try:
        return msgspec.convert({name: value for name, _, value in given}, _Settings, strict=False)
    except msgspec.ValidationError as error:
        raise ConfigError(
            f"engine 'echo' has no source {source!r} ({error}); leave it empty or write "
            "delay=SECONDS, dimensions=N, load=SECONDS, memory=MIB, poison=WORD, crash=WORD, "
            "hang=WORD, or several of them with commas between"
        ) from error


def _answer(messages: Sequence[Message]) -> str:
    text = next((m.content for m in reversed(messages) if m.role == "user"), "")
    passage = _PASSAGE.search(text)
    if passage is None:
        return text.strip()
    body = passage.group(1).strip().split("\n\n")[0]
    return f"{_SENTENCE_END.split(body, maxsplit=1)[0].strip()} [1]"


def _cut_at_stop(text: str, stop: Sequence[str]) -> str:
    places = [text.find(s) for s in stop if s and s in text]
    return text[: min(places)] if places else text


def _text(passage: Passage) -> str:
    if isinstance(passage, str):
        return passage
    return zlib.decompress(passage).decode("utf-8", "surrogatepass")


def _features(text: str) -> Iterator[str]:
    """Words, and character bigrams inside them, in lower case."""
    for token in re.findall(r"\w+", text.lower()):
        yield token
        for start in range(len(token) - 1):
            yield token[start : start + 2]
