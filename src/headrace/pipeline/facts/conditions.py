"""What a source says under a condition, or with an exception, that a sentence leaves out.

A condition counts if it stands in the same sentence of the source, right before or after a clause
that the sentence repeats, and neither the sentence nor the question has anything of it. Statutes
mark conditions by 的 at the end of a clause (未经批准的，...), by 除...外, 但...除外, 经...同意;
English by `unless`, `except`, `if`, `provided that`.
"""

from __future__ import annotations

import re
from collections.abc import Iterator

from headrace.pipeline.facts.aligning import clauses
from headrace.pipeline.facts.kinds import Facts
from headrace.pipeline.facts.reading import normalised, read

REPEATED, ABSENT, EXCEPTED = 0.8, 0.15, 0.5
"""Shares of a clause's words: from the first on, the sentence repeats it; up to the second, it has
nothing of a condition, and up to the third of an exception, which names the parties again."""

FEWEST = 3
"""Words of a clause below which to have them all is chance."""

_OWN = re.compile(r"如果|若|(?:的|后|时|情况下)[,，]|(?i:\b(?:if|when|unless|except|after)\b)")

_SENTENCE = re.compile(r"[^。；;!?\n]+")
_CLAUSE = re.compile(
    r"[^,，。；;:：\n]+?(?=[,，。；;:：\n]|\Z|\s(?i:unless|except|provided\sthat|only\sif|if)\s)"
)
_EXCEPTION = re.compile(
    r"^\s*(?:但(?:是)?.{2,60}除外|除.{2,60}外)(?!.)"
    r"|^\s*(?i:unless|except|provided\sthat|only\sif)\b"
)
_SAVING = re.compile(r"另有|前款|前条|本条|本法|下列")
"""What hardly any answer repeats: that other law or an agreement may say otherwise, or that a list
of exceptions follows."""

_AS_A_RULE = re.compile(
    r"一般(?!保证)|原则上|通常|(?i:\b(?:generally|usually|as a rule|in principle)\b)"
)
"""By what an answer says that there are exceptions."""

_CONDITION = re.compile(
    r"^\s*(?:未?经.{2,30}|.{4,60})(?:的|情况下|情形下|同意|批准|许可)$|^\s*(?i:if)\b"
)


def dropped(claim: Facts, source: str, question: Facts) -> str:
    """The condition or exception that the claim leaves out; "" if there is none. A claim with a
    condition of its own is only asked for exceptions. Where several sentences of the source say
    what a clause of the claim says, the one that is most like the whole claim decides."""
    if _AS_A_RULE.search(claim.plain):
        return ""
    said = frozenset(token.key for token in claim.tokens)
    asked = frozenset(token.key for token in question.tokens)
    parts = [frozenset(token.key for token in part) for part in clauses(claim.tokens)]
    conditional = bool(_OWN.search(claim.plain))
    most: dict[int, tuple[int, str]] = {}
    for sentence in _SENTENCE.findall(normalised(source)):
        around = [clause.strip() for clause in _CLAUSE.findall(sentence) if clause.strip()]
        here: dict[int, str] = {}
        for place, clause in enumerate(around):
            for number in (n for n, part in enumerate(parts) if _repeats(clause, part)):
                left_out = (
                    other
                    for other, enough in _conditions(around, place, conditional)
                    if _share(other, said) <= enough and _share(other, asked) < 0.5
                )
                here[number] = here.get(number) or next(left_out, "")
        alike = len(said & _keys(sentence)) if here else 0
        for number, found in here.items():
            known = most[number][0] if number in most else 0
            if alike > known or (alike == known and not found):
                most[number] = alike, found
    condition = next((found for _, found in most.values() if found), "")
    return condition and f"the source says so only with: {condition}"


def _repeats(clause: str, part: frozenset[object]) -> bool:
    """Whether a clause of the claim says what one of the source does, its negation included."""
    keys = _keys(clause)
    return (
        len(keys) >= FEWEST and _share(clause, part) >= REPEATED and ("¬" in keys) == ("¬" in part)
    )


def _conditions(around: list[str], place: int, conditional: bool) -> Iterator[tuple[str, float]]:
    """Conditions and exceptions beside a clause, each with what a claim may have of it at most."""
    if place and not conditional and _CONDITION.search(around[place - 1]):
        yield around[place - 1], ABSENT
    for near in (place - 1, place + 1):
        if 0 <= near < len(around) and _excepts(around[near]):
            yield around[near], EXCEPTED


def _excepts(clause: str) -> bool:
    return bool(_EXCEPTION.search(clause)) and not _SAVING.search(clause)


def _keys(clause: str) -> set[object]:
    return {token.key for token in read(clause).tokens if token.kind not in ("must", "may", "end")}


def _share(clause: str, known: frozenset[object]) -> float:
    keys = _keys(clause)
    return len(keys & known) / len(keys) if keys else 1.0
