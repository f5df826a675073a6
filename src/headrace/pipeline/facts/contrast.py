"""Where a sentence and a source that speak of the same differ in what may not differ.

Each clause of the sentence is laid over the clause of the source that is most like it. Where they
are alike enough, what stands in one place of both is compared:

1. a number, date, time or provision against another one of its kind;
2. a negation against none;
3. a word against its opposite, a lower bound against an upper one;
4. a duty against a permission;
5. one party or name against another one of the source: who does what to whom.

A denial counts for the sentence as a whole: it may be turned round (`_denied`, `_excepted`,
`_only_if`).
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from itertools import pairwise

from headrace.pipeline.facts.aligning import Alignment, Clause, clauses, nearest
from headrace.pipeline.facts.kinds import Facts, Number, Provision, Token
from headrace.pipeline.facts.missing import same
from headrace.pipeline.facts.wording import (
    ANYBODY,
    COUNTERPARTS,
    GENERAL,
    GRANTED,
    LEAVE,
    ONLY_IF,
    OPPOSITES,
)

ALIKE, FEWEST = 0.5, 3
"""Share and number of a clause's tokens that must have a partner before differences mean
anything."""

LEAD = 4
"""Tokens at the beginning of a sentence among which it says where it has it from."""

SAME_WORDS = 0.85
"""Share of a clause's tokens that the source's clause has in whatever order, from which a party
that has no partner stands in another place."""


def contrast(claim: Facts, source: Facts, over: Facts) -> str:
    """The first difference, in words; "" if there is none. A claim that begins with the provision
    `over` the source says where it has it from, and nothing there is that provision's rival."""
    own = {fact[:3] for fact in over.written if isinstance(fact, Provision)}
    lead = [token for token in claim.tokens[:LEAD] if isinstance(token.key, Provision)]
    cited = lead[0] if lead and lead[0].key[:3] in own else None
    said = tuple(token for token in claim.tokens if token is not cited)
    there = clauses(source.tokens)
    known = frozenset(token.key for token in source.tokens if token.kind == "party")
    place = -1
    found = []
    for clause in clauses(said):
        alignment = nearest(clause, there, place)
        if alignment is not None:
            place = alignment.place
            found.append(alignment)
    reason = next((reason for one in found for reason in _differences(one, known)), "")
    if reason or _only_if(claim) or _excepted(found, there):
        return reason
    return _denied(found) or next((why for one in found if _close(one) for why in _duties(one)), "")


def _close(alignment: Alignment) -> bool:
    return alignment.likeness >= ALIKE and len(alignment.pairs) >= FEWEST


def _denied(found: Sequence[Alignment]) -> str:
    """A negation that one of both has and the other has not. Where the claim has one more and one
    less, it turns the sentence round (who can prove it is not liable, who cannot is)."""
    added = [why for one in found if _close(one) for why in _added(one)]
    removed = [why for one in found if _close(one) for why in _removed(one)]
    return next(iter(added or removed), "") if not (added and removed) else ""


def _excepted(found: Sequence[Alignment], there: Sequence[Clause]) -> bool:
    """Whether the claim speaks of an item of a list of exceptions (但是有下列情形之一的除外: ...),
    for which the contrary of the rule before the list holds."""
    lists = [
        place
        for place, clause in enumerate(there)
        if {"下列", "除外"} <= {token.text for token in clause}
    ]
    return any(one.place > lists[0] and one.likeness >= ALIKE for one in found if lists)


def _only_if(claim: Facts) -> bool:
    """Whether it says `only if` where a source may say `not unless`: 须经同意, 未经同意不得."""
    return any(token.text.lower() in ONLY_IF for token in claim.tokens) or any(
        one.kind == "must" and other.text in LEAVE for one, other in pairwise(claim.tokens)
    )


def _differences(alignment: Alignment, known: frozenset[object]) -> Iterator[str]:
    """All but those of denial, duty and permission."""
    turned = any(t.kind == "by" for t in alignment.claim) != any(
        t.kind == "by" for t in alignment.source
    )
    if not turned:
        yield from _displaced(alignment)
    if not _close(alignment):
        return
    gaps = alignment.gaps()
    for mine, theirs in gaps:
        yield from _glued(mine, theirs)
        yield from _values(mine, theirs)
        yield from _opposites(mine, theirs)
    if not turned:
        yield from _parties(gaps, known)


def _values(mine: Clause, theirs: Clause) -> Iterator[str]:
    for token in mine:
        if token.kind != "fact":
            continue
        rivals = [other for other in theirs if _rival(token, other)]
        if rivals and not any(same(token.key, other.key) for other in rivals):  # type: ignore[arg-type]
            yield f"{token.text}: the source says {rivals[0].text} there"


def _rival(token: Token, other: Token) -> bool:
    if other.kind != "fact" or type(token.key) is not type(other.key):
        return False
    if isinstance(token.key, Provision) and isinstance(other.key, Provision):
        return token.key.part == other.key.part
    if isinstance(token.key, Number) and isinstance(other.key, Number):
        return token.key.unit == other.key.unit
    return True


def _opposites(mine: Clause, theirs: Clause) -> Iterator[str]:
    there = {other.text.lower() for other in theirs}
    bounds = {other.key for other in theirs} & {"≤", "≥"}
    for token in mine:
        word = token.text.lower()
        if clash := OPPOSITES.get(word, frozenset()) & there:
            yield f"{token.text}: the source says {min(clash)} there"
        elif token.key in ("≤", "≥") and bounds and token.key not in bounds:
            yield f"{token.text}: the source bounds it the other way"


def _added(alignment: Alignment) -> Iterator[str]:
    """Negations of the claim whose next word has a partner that is not denied, nor refused at the
    end of its clause (请求..., 人民法院不予支持). What the source does not speak of may be denied
    (不同于...)."""
    partners = dict(alignment.pairs)
    for place in _alone(alignment.claim, partners):
        partner = partners.get(place + 1)
        if partner is None or _denied_before(alignment.source, partner):
            continue
        if not _refused(alignment.source[partner:]):
            yield f"{alignment.claim[place].text}: the source does not deny it"


def _removed(alignment: Alignment) -> Iterator[str]:
    """Negations of the source whose next word has a partner that is not denied."""
    partners = {there: here for here, there in alignment.pairs}
    for place in _alone(alignment.source, partners):
        partner = partners.get(place + 1)
        if partner is not None and not _denied_before(alignment.claim, partner):
            yield f"the source says {alignment.source[place].text} there"


def _glued(mine: Clause, theirs: Clause) -> Iterator[str]:
    """协商一致 is one word and 协商不一致 are three."""
    for one, other in ((mine, theirs), (theirs, mine)):
        denied = "".join(token.text for token in other if token.kind != "not")
        glued = len(other) > 1 and denied == "".join(token.text for token in one)
        if len(denied) > 1 and glued and any(token.kind == "not" for token in other):
            yield f"{denied}: one of both denies it"


def _alone(clause: Clause, partners: Mapping[int, int]) -> Iterator[int]:
    """Places of negations without a partner."""
    return (i for i, token in enumerate(clause) if token.kind == "not" and i not in partners)


def _refused(clause: Clause) -> bool:
    return any(one.kind == "not" and other.text in GRANTED for one, other in pairwise(clause))


def _denied_before(clause: Clause, place: int) -> bool:
    return any(token.kind == "not" for token in clause[max(0, place - 3) : place])


def _duties(alignment: Alignment) -> Iterator[str]:
    for mine, theirs in alignment.gaps():
        here, there = {t.kind for t in mine}, {t.kind for t in theirs}
        for one, other in (("must", "may"), ("may", "must")):
            if one in here and other in there and one not in there and other not in here:
                said = next(t.text for t in mine if t.kind == one)
                yield f"{said}: the source says {next(t.text for t in theirs if t.kind == other)}"


def _parties(gaps: Sequence[tuple[Clause, Clause]], known: frozenset[object]) -> Iterator[str]:
    """One party in the place of another: of one that the source knows, or of its counterpart, or
    of another role with a name of its own in law."""
    for mine, theirs in gaps:
        here, there = {token.key for token in mine}, {token.key for token in theirs}
        others = [token for token in theirs if token.kind == "party" and token.key not in here]
        for token in mine:
            if token.kind != "party" or token.key in there:
                continue
            rivals = [other for other in others if not _both_general(token.text, other.text)]
            if rivals and (
                token.key in known or any(_two_roles(token.text, one.text) for one in rivals)
            ):
                yield f"{token.text}: the source says {rivals[0].text} there"


def _both_general(one: str, other: str) -> bool:
    """当事人 and 双方 may be the same people; 单位 and 个人 are not."""
    return {one, other} <= GENERAL and other not in COUNTERPARTS.get(one, frozenset())


def _two_roles(one: str, other: str) -> bool:
    against = COUNTERPARTS.get(one.lower())
    if against is None or other.lower() not in COUNTERPARTS:
        return False
    return other.lower() in against or not {one, other} & GENERAL


def _displaced(alignment: Alignment) -> Iterator[str]:
    """Hardly any word is new, but a party stands elsewhere: the parties come in another order, and
    it did not move with the words beside it."""
    there = {token.key for token in alignment.source}
    shared = sum(token.key in there for token in alignment.claim)
    if len(alignment.claim) < FEWEST or shared < SAME_WORDS * len(alignment.claim):
        return
    order = iter([token.key for token in alignment.source if token.kind == "party"])
    parties = (t.key for t in alignment.claim if t.kind == "party" and t.key in there)
    if all(any(party == other for other in order) for party in parties):
        return
    placed = {here for here, _ in alignment.pairs}
    used = {alignment.claim[here].key for here in placed}
    for place, token in enumerate(alignment.claim):
        if place in placed or token.kind != "party" or token.key not in there - used - ANYBODY:
            continue
        if not _beside(alignment.claim, token.key) & _beside(alignment.source, token.key):
            yield f"{token.text} stands in another place in the source"


def _beside(clause: Clause, party: object) -> set[tuple[int, object]]:
    """The words right before (-1) and after (1) a party, those of duty and permission aside."""
    rest = [token for token in clause if token.kind not in ("must", "may", "by")]
    found: set[tuple[int, object]] = set()
    for place, token in enumerate(rest):
        if token.key == party:
            near = [(step, rest[place + step]) for step in (-1, 1) if 0 <= place + step < len(rest)]
            found |= {(step, other.key) for step, other in near if other.kind != "party"}
    return found
