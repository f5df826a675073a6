"""From what was found to what it leads to: names in passages, references between provisions.

A two-hop question describes what it asks about by something else (`the city where the founder of X
was born`): the first search finds one passage, and that one names the other. Links are followed by
rules:

1. *names*: the passage mentions what another document or section is called (the lexicon knows);
2. *named by*: few passages mention what the best ones are called;
3. *references*: the passage refers to a provision, of its own law (依照本法第四十条, `under
   Article 5`) or of another one (《劳动合同法》第十条).

What is linked to gets a share of the score of what links to it, on top of its own. The constants
lie on a plateau, the same for either half of 100 two-hop questions (`bench/multihop.py`): any
`SHARE` from .4 to .7, 5 to 10 `SOURCES`, 3 to 5 `MOST_NAMING` and a pool of 20 to 150 passages
found both passages of 99 among the first ten.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from typing import NamedTuple

from msgspec.structs import replace

from headrace.retrieval.analyze import references
from headrace.retrieval.embedded import EmbeddedIndex
from headrace.retrieval.lexicon import Lexicon, key, says, spellings
from headrace.types import Filter, Hit

SOURCES = 10
"""Passages, from the best one on, whose links are followed."""

NAMING = 2
"""Passages, from the best one on, for which those that mention them are looked up."""

MOST_NAMING = 3
"""Passages that mention a name; what more mention is no hint."""

SHARE = 0.5
"""Of the score of the passage that links, what the linked one gets."""

MOST_LINKS = 40
"""Links of one hop."""

MOST_REFERENCES = 6
"""References that are looked up for one passage; a provision that lists more is a table."""

MOST_UNKNOWN = 3
"""Names without a title that one round searches for."""

_LOOKED_UP = 20
_NAME = re.compile(
    r"《(?P<title>[^》]{2,40})》"
    r"|(?<![.?!]\s)(?<!^)\b"
    r"(?P<words>[A-Z][\w’'-]+(?: (?:(?:of|the|and|de|von|van|la) )?[A-Z][\w’'-]+)+)"
)
_PROVISION = re.compile(
    r"(?:《(?P<law>[^》]{2,60})》|(?P<own>本[法条例规定办法细则章程]{1,2}|本|前)?)\s*"
    r"(?P<what>第\s?[〇零一二三四五六七八九十百千\d]{1,9}\s?条(?:之[一二三四五六七八九十]{1,2})?)"
    r"|\b(?P<article>(?:Article|Section|Art\.) \d{1,5})\b",
    re.IGNORECASE,
)


class Link(NamedTuple):
    """`source` leads to chunk `target` by `words`; scores are of the source's list."""

    source: Hit
    target: int
    words: str


def links(
    index: EmbeddedIndex, lexicon: Lexicon, found: Sequence[Hit], where: Filter
) -> list[Link]:
    """The links of the best passages, best source first, each target once. Only what `where` lets
    through is a target. Blocks: some milliseconds."""
    kept: dict[int, Link] = {}
    for hit in found[:SOURCES]:
        for link in (*_references(index, lexicon, hit, where), *_names(lexicon, hit)):
            kept.setdefault(link.target, link)
    for hit in found[:NAMING]:
        for link in _named_by(index, hit, where):
            kept.setdefault(link.target, link)
    allowed = index.snapshot().allowed(where).by_id
    return [link for link in kept.values() if link.target < len(allowed) and allowed[link.target]][
        :MOST_LINKS
    ]


def unknown(found: Sequence[Hit], question: str) -> list[tuple[Hit, str]]:
    """Names in the best passages that the question does not have, with the passage of each:
    capitalised words, titles in 《》. For names that no title of the collection has."""
    asked = key(question)
    kept: dict[str, tuple[Hit, str]] = {}
    for hit in found[:NAMING]:
        own = _own_names(hit)
        for match in _NAME.finditer(hit.text):
            name = match["title"] or match["words"]
            form = key(name)
            if form and form not in asked and form not in own:
                kept.setdefault(form, (hit, name))
    return list(kept.values())[:MOST_UNKNOWN]


def ranked(
    found: Sequence[Hit], linked: Iterable[tuple[Link, Hit]], k: int
) -> tuple[list[Hit], list[Hit]]:
    """The best `k` of what was found and what it leads to, and those of them that are new. A hit's
    score is its place between the worst and the best that was found (0 for what was not), and
    `SHARE` of that of the best passage that links to it; it stands in `scores` as `linked`."""
    own = scaled(found)
    hits: dict[int, Hit] = {hit.chunk_id: hit for hit in found}
    bonus: dict[int, float] = {}
    for link, hit in linked:
        share = SHARE * own.get(link.source.chunk_id, 0.0)
        bonus[hit.chunk_id] = max(bonus.get(hit.chunk_id, 0.0), share)
        hits.setdefault(hit.chunk_id, hit)
    total = {id_: own.get(id_, 0.0) + bonus.get(id_, 0.0) for id_ in hits}
    order = sorted(hits, key=lambda id_: -total[id_])  # stable: of equals, the first found
    best = [
        replace(hits[id_], score=total[id_], scores={**hits[id_].scores, "linked": total[id_]})
        if bonus
        else hits[id_]
        for id_ in order[:k]
    ]
    return best, [hit for hit in best if hit.chunk_id not in own]


def scaled(found: Sequence[Hit]) -> dict[int, float]:
    """Each hit's score between the worst (0) and the best (1) of the list."""
    scores = [hit.score for hit in found]
    low, width = min(scores, default=0.0), max(scores, default=0.0) - min(scores, default=0.0)
    return {hit.chunk_id: (hit.score - low) / width if width else 1.0 for hit in found}


def _names(lexicon: Lexicon, hit: Hit) -> Iterable[Link]:
    own = _own_names(hit)
    for name in lexicon.mentioned(hit.text):
        for chunk in name.chunks:
            if chunk != hit.chunk_id and not own.intersection(spellings(name.text)):
                yield Link(hit, chunk, name.text)


def _named_by(index: EmbeddedIndex, hit: Hit, where: Filter) -> Iterable[Link]:
    own = _own_names(hit)
    title = hit.path[-1] if hit.path else hit.title
    if not own.intersection(spellings(title)):
        return
    near = index.search_lexical(title, _LOOKED_UP, where)
    found = [
        other
        for other in index.get({each.chunk_id: {} for each in near}, where)
        if other.document_id != hit.document_id and says(other.text, own)
    ]
    if len(found) <= MOST_NAMING:
        for other in found:
            yield Link(hit, other.chunk_id, title)


def _own_names(hit: Hit) -> frozenset[str]:
    return frozenset(name for title in (hit.title, *hit.path) for name in spellings(title))


def _references(index: EmbeddedIndex, lexicon: Lexicon, hit: Hit, where: Filter) -> Iterable[Link]:
    """Provisions that the text of a passage refers to."""
    own = references(hit.path[-1]) if hit.path else frozenset()
    seen: set[tuple[str, str]] = set()
    for match in _PROVISION.finditer(hit.text):
        what = match["what"] or match["article"]
        wanted = references(what)
        law = match["law"] or ""
        if not wanted or (not law and wanted & own) or (law, what) in seen:
            continue
        if len(seen) == MOST_REFERENCES:
            return
        seen.add((law, what))
        documents = _documents(index, lexicon, law, where) if law else (hit.document_id,)
        for document in documents:
            chunk = _provision(index, what, wanted, document, where)
            if chunk is not None and chunk != hit.chunk_id:
                yield Link(hit, chunk, f"《{law}》{what}" if law else what)


def _documents(index: EmbeddedIndex, lexicon: Lexicon, law: str, where: Filter) -> tuple[str, ...]:
    chunks = [chunk for name in spellings(law) for chunk in lexicon.names.get(name, ())]
    hits = index.get({chunk: {} for chunk in chunks}, where)
    return tuple(dict.fromkeys(hit.document_id for hit in hits))


def _provision(
    index: EmbeddedIndex, what: str, wanted: frozenset[str], document: str, where: Filter
) -> int | None:
    """The chunk of a document that is the provision `what`."""
    if where.documents and document not in where.documents:
        return None
    within = replace(where, documents=(document,))
    near = index.search_lexical(what, 3, within)
    for hit in index.get({each.chunk_id: {} for each in near}, within):
        if hit.path and wanted & references(hit.path[-1]):
            return hit.chunk_id
    return None
