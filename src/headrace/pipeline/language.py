"""Which language a text is in, by its script: enough to choose a generator and set phrases."""

from __future__ import annotations

import re

_SCRIPTS = {
    "ja": re.compile(r"[\u3040-\u30ff]"),
    "ko": re.compile(r"[\uac00-\ud7af]"),
    "zh": re.compile(r"[\u3400-\u9fff\uf900-\ufaff\U00020000-\U0003134f]"),
    "ru": re.compile(r"[\u0400-\u04ff]"),
    "ar": re.compile(r"[\u0600-\u06ff]"),
    "en": re.compile(r"[A-Za-z]"),
}
_WEIGHT = {"ja": 3.0, "en": 0.3}
"""A kana is a stronger sign than a Han character, which Japanese has too; a Latin letter is a
weaker one, since names and codes are written in it in every language."""


def language(text: str) -> str:
    """The language code with the most letters of its script; `en` stands for all that is written
    in Latin letters, and for a text without letters."""
    counts = {
        code: len(script.findall(text)) * _WEIGHT.get(code, 1.0)
        for code, script in _SCRIPTS.items()
    }
    best = max(counts, key=lambda code: counts[code])
    return best if counts[best] else "en"
