"""The few sentences that Headrace says itself, in the question's language."""

from __future__ import annotations

from headrace.pipeline.language import language

_PHRASES = {
    "en": {
        "refusal": "The documents in this collection do not answer this question.",
        "unsupported": "[unsupported]",
        "fallback": "What the documents say:",
        "withheld": "[Withheld: sentences that the documents do not support.]",
    },
    "zh": {
        "refusal": "本集合中的文档没有回答这个问题。",
        "unsupported": "[无依据]",
        "fallback": "文档原文：",
        "withheld": "［文档没有依据的句子已被略去。］",
    },
}


def phrase(name: str, question: str) -> str:
    """The phrase in the language of `question` (English where there is no translation)."""
    return _PHRASES.get(language(question), _PHRASES["en"])[name]
