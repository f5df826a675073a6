"""Laying a clause of a sentence over the clause of a source that is most like it.

The longest common subsequence of two token sequences, by bit-parallel arithmetic on whole numbers
(Hyyrö, *Bit-parallel LCS-length computation revisited*, 2004), with the rows kept so that the
alignment can be read off.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import lru_cache
from itertools import pairwise
from typing import NamedTuple

from headrace.pipeline.facts.kinds import Token

Clause = tuple[Token, ...]


SHORT = 4
"""Tokens below which a clause is joined to its neighbour."""

NEXT = 0.5
"""What it is worth, in tokens, that a clause follows the one that was found before."""


class Alignment(NamedTuple):
    """`pairs` are (place in the claim's clause, place in the source's), in order; `likeness` is
    the share of the claim's tokens that have a partner, in [0, 1]; `place` is the number of the
    source's clause."""

    claim: Clause
    source: Clause
    pairs: tuple[tuple[int, int], ...]
    likeness: float
    place: int = 0

    def gaps(self) -> list[tuple[Clause, Clause]]:
        """What differs, in order: the tokens of both between two neighbouring pairs, before the
        first and after the last."""
        ends = [(-1, -1), *self.pairs, (len(self.claim), len(self.source))]
        return [
            (self.claim[i + 1 : k], self.source[j + 1 : m]) for (i, j), (k, m) in pairwise(ends)
        ]


_END = Token("end", "\n", "\n")


@lru_cache(maxsize=8192)
def clauses(tokens: Clause) -> tuple[Clause, ...]:
    """The token sequence cut at its ends of clauses; within a sentence, one of fewer than
    `SHORT` tokens goes with the one before it, since it hardly says by itself of what it speaks."""
    joined: list[list[Token]] = []
    part: list[Token] = []
    apart = True
    for token in (*tokens, _END):
        if token.kind != "end":
            part.append(token)
            continue
        if part and not apart and (len(part) < SHORT or len(joined[-1]) < SHORT):
            joined[-1] += part
        elif part:
            joined.append(part)
        apart = (apart and not part) or token.text != ","
        part = []
    return tuple(map(tuple, joined))


def nearest(clause: Clause, source: Sequence[Clause], after: int = -1) -> Alignment | None:
    """The clause of the source, or the two neighbours, that share most with a clause; of equals
    the shortest, and that which follows number `after` before any other. `None` if no token is
    shared."""
    best: Clause = ()
    best_score, best_end = 0.0, -1
    keys = {token.key for token in clause}
    shared = [sum(token.key in keys for token in one) for one in source]
    for place, one in enumerate(source):
        follows = NEXT if place == after + 1 and after >= 0 else 0.0
        options = [(one, shared[place], place)]
        if place + 1 < len(source) and len(one) < len(clause):
            joined = one + source[place + 1]
            options.append((joined, shared[place] + shared[place + 1], place + 1))
        for option, most, end in options:
            if most + follows <= best_score:
                continue
            common = _rows(clause, option)[1]
            score = common - 0.02 * (len(option) - common) + follows
            if common and score > best_score:
                best, best_score, best_end = option, score, end
    return align(clause, best, best_end) if best else None


def align(claim: Clause, source: Clause, place: int = 0) -> Alignment:
    rows, _ = _rows(claim, source)
    pairs: list[tuple[int, int]] = []
    i, j = len(claim), len(source)
    while i and j:
        if rows[i - 1] >> (j - 1) & 1:
            j -= 1
        else:
            i -= 1
            if not i or rows[i - 1] >> (j - 1) & 1:
                j -= 1
                pairs.append((i, j))
    pairs.reverse()
    return Alignment(claim, source, tuple(pairs), len(pairs) / max(1, len(claim)), place)


def _rows(claim: Clause, source: Clause) -> tuple[list[int], int]:
    """The state after each token of the claim (a 0 bit: the subsequence grows here), and the
    length of the longest common subsequence."""
    masks: dict[object, int] = {}
    for place, token in enumerate(source):
        masks[token.key] = masks.get(token.key, 0) | 1 << place
    full = (1 << len(source)) - 1
    state = full
    rows = []
    for token in claim:
        matched = state & masks.get(token.key, 0)
        state = ((state + matched) | (state - matched)) & full
        rows.append(state)
    return rows, len(source) - state.bit_count()
