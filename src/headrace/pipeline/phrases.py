"""The few sentences that Headrace says itself, in the question's language."""

from __future__ import annotations

from headrace.pipeline.language import language

_PHRASES = {
    "en": {
        "greeting": "Hello. Ask me about the documents in this collection.",
        "refusal": "The documents in this collection do not answer this question.",
        "unsupported": "[unsupported]",
        "fallback": "What the documents say:",
    },
    "zh": {
        "greeting": "您好。您可以就本集合中的文档提问。",
        "refusal": "本集合中的文档没有回答这个问题。",
        "unsupported": "[无依据]",
        "fallback": "文档原文：",
    },
}


def phrase(name: str, question: str) -> str:
    """The phrase in the language of `question` (English where there is no translation)."""
    return _PHRASES.get(language(question), _PHRASES["en"])[name]
