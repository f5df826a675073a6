"""A generator as a reranker: does this document meet the query, yes or no?

The prompt is that of Qwen3-Reranker (its model card): instruction, query and document in the user's
turn of the model's own chat template, thinking switched off, which for Qwen3 closes an empty block
of thoughts. The score is the share of `yes` in the probabilities of `yes` and `no` for the next
token. A file that brings a template named `rerank` is asked by that.

Only the frame may hold control tokens: a document that says `<|im_end|>` says just these letters.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, TypeAlias

import numpy as np

from headrace.engines.base import Pair, Vectors, texts_of
from headrace.errors import ConfigError, SourceError

SYSTEM = (
    "Judge whether the Document meets the requirements based on the Query and the Instruct "
    'provided. Note that the answer can only be "yes" or "no".'
)
TASK = "Given a web search query, retrieve relevant passages that answer the query"
_CONTENT = f"<Instruct>: {TASK}\n<Query>: {{query}}\n<Document>: {{document}}"
_MARK = "\u2063headrace\u2063"  # no template has it
_LEAST_ROOM = 16  # tokens of query and document together, for an answer to mean anything
_STEP = 16  # prompts of one request
_BIAS = 100.0  # raises both answers above all other tokens, and leaves their ratio as it is

Post: TypeAlias = Callable[[str, dict[str, Any]], Any]
"""A path of llama.cpp's server and a body, to the reply."""


class YesNo:
    """Asks the model behind `post`, whose requests may have `window` tokens each."""

    def __init__(self, name: str, post: Post, window: int, template: str) -> None:
        """`template`: the file's own for reranking, with `{query}` and `{document}`, or empty.
        Raises `ConfigError` where the frame leaves no room, `SourceError` for a model that cannot
        be asked."""
        self._post = post
        self._answers = [self._answer(word) for word in ("yes", "no")]
        if len(set(self._answers)) < 2:
            raise SourceError("it does not tell `yes` from `no`: it has no such words")
        before, self._content, after = self._frame(template)
        self._before = self._tokens(before, frame=True, begin=True)
        self._after = self._tokens(after, frame=True)
        self._fixed = len(self._tokens(_filled(self._content, "", "")))
        around = len(self._before) + self._fixed + len(self._after)
        self._room = window - around - 1  # the answer's
        if self._room < _LEAST_ROOM:
            raise ConfigError(
                f"{name}: its prompt takes {window - self._room} of {window} tokens; raise "
                "`max_tokens` of the model"
            )

    def score(self, pairs: Sequence[Pair], shorten: Callable[[str, int], str]) -> Vectors:
        """float32 [n], between 0 and 1. `shorten` cuts a text to a number of tokens: a query at
        half of the room, a document at the rest."""
        queries: dict[str, tuple[str, int]] = {}
        prompts = []
        for query, document in texts_of(pairs):
            if query not in queries:
                short = shorten(query, self._room // 2)
                queries[query] = short, self._room - len(self._tokens(short))
            short, room = queries[query]
            content = _filled(self._content, short, shorten(document, room))
            # Side by side, texts may have a few tokens more than alone.
            middle = self._tokens(content)[: self._fixed + self._room]
            prompts.append([*self._before, *middle, *self._after])
        scores = np.empty(len(prompts), dtype=np.float32)
        for start in range(0, len(prompts), _STEP):
            step = prompts[start : start + _STEP]
            scores[start : start + len(step)] = self._asked(step)
        return scores

    def _asked(self, prompts: list[list[int]]) -> list[float]:
        yes = self._answers[0]
        answer = self._post(
            "/completion",
            {
                "prompt": prompts,
                "n_predict": 1,
                "logit_bias": [[token, _BIAS] for token in self._answers],
                "samplers": ["temperature"],
                "temperature": 1.0,
                "n_probs": 2,
                "post_sampling_probs": True,
                # What was computed for another pair would be taken over with the rounding of that
                # batch: 0.853 alone and 0.842 after another one, on 4-bit weights.
                "cache_prompt": False,
            },
        )
        shares = [0.0] * len(prompts)
        for one in answer if isinstance(answer, list) else [answer]:
            chances = one["completion_probabilities"][0]["top_probs"]
            shares[one["index"]] = next((c["prob"] for c in chances if c["id"] == yes), 0.0)
        return shares

    def _frame(self, template: str) -> tuple[str, str, str]:
        """What stands before, in and after the part that the caller's texts fill."""
        if template:
            start = template.find("{query}")
            end = template.find("{document}") + len("{document}")
            if not 0 <= start < end - len("{document}"):
                raise SourceError("its template `rerank` has no {query} before a {document}")
            return template[:start], template[start:end], template[end:]
        messages = [{"role": "system", "content": SYSTEM}, {"role": "user", "content": _MARK}]
        body = {"messages": messages, "chat_template_kwargs": {"enable_thinking": False}}
        before, mark, after = self._post("/apply-template", body)["prompt"].partition(_MARK)
        if not mark:
            raise SourceError("its chat template does not repeat what the user says")
        return before, _CONTENT, after

    def _answer(self, word: str) -> int:
        tokens = self._tokens(word)
        if len(tokens) != 1:
            raise SourceError(f"{word!r} is {len(tokens)} tokens of this model and must be one")
        return tokens[0]

    def _tokens(self, text: str, *, frame: bool = False, begin: bool = False) -> list[int]:
        body = {"content": text, "add_special": begin, "parse_special": frame}
        tokens: list[int] = self._post("/tokenize", body)["tokens"]
        return tokens


def _filled(content: str, query: str, document: str) -> str:
    before, _, rest = content.partition("{query}")
    between, _, after = rest.partition("{document}")
    return f"{before}{query}{between}{document}{after}"
