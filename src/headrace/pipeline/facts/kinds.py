"""The types of what a text states."""

from __future__ import annotations

from fractions import Fraction
from typing import Literal, NamedTuple, TypeAlias


class Number(NamedTuple):
    """`value` of `unit` (see `units`; "" for things counted); `noun` is the English word counted,
    as its stem, where the unit is none."""

    value: Fraction
    unit: str = ""
    noun: str = ""


class Date(NamedTuple):
    """0 stands for what is not said."""

    year: int
    month: int = 0
    day: int = 0


class Time(NamedTuple):
    """Minutes after midnight."""

    minutes: int


class Provision(NamedTuple):
    """第44条之1 of a law; `part` is 条, 款, 项, 章, 编 or 节, `law` "" where none is
    named."""

    part: str
    number: int
    sub: int = 0
    law: str = ""


class Identifier(NamedTuple):
    """A word of letters and digits, or an address, in lower case."""

    text: str


class Name(NamedTuple):
    """A person, place, organisation or work, as it is written."""

    text: str


Fact: TypeAlias = Number | Date | Time | Provision | Identifier | Name

Kind: TypeAlias = Literal["word", "party", "not", "must", "may", "by", "fact", "end"]


class Token(NamedTuple):
    """A word or a fact of a text. Tokens with equal keys mean the same: all negations have one key,
    and so have all words of duty and all of permission. `end` separates clauses. `text` is how it
    is written, `start` where, in the text as `normalised`."""

    kind: Kind
    key: str | Fact
    text: str
    start: int = 0


class Facts(NamedTuple):
    """A text taken apart. `written` says for each fact how the text writes it; `plain` is the text
    as it was compared: compatibility forms unified, white space kept."""

    tokens: tuple[Token, ...]
    written: dict[Fact, str]
    plain: str
