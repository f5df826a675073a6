"""The few sentences that Headrace says itself, in the question's language."""

from __future__ import annotations

from headrace.pipeline.language import language

_PHRASES = {
    "en": {
        "greeting": "Hello. Ask me about the documents in this collection.",
        "refusal": "The documents in this collection do not answer this question.",
        "unsupported": "[unsupported]",
        "fallback": "What the documents say:",
        "withheld": "[Withheld: sentences that the documents do not support.]",
        "contradiction": "The documents contradict each other ({values}):",
        "superseded": "From the newer version ({new}); an older one ({old}) is in the collection.",
    },
    "zh": {
        "greeting": "您好。您可以就本集合中的文档提问。",
        "refusal": "本集合中的文档没有回答这个问题。",
        "unsupported": "[无依据]",
        "fallback": "文档原文：",
        "withheld": "［文档没有依据的句子已被略去。］",
        "contradiction": "文档之间有矛盾（{values}）：",
        "superseded": "依据较新的版本（{new}）；集合中另有较旧的版本（{old}）。",
    },
}


def phrase(name: str, question: str) -> str:
    """The phrase in the language of `question` (English where there is no translation)."""
    return _PHRASES.get(language(question), _PHRASES["en"])[name]
