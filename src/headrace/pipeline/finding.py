"""The passages for a question: one search, or several rounds of them.

1. What is asked: the question, made to stand alone; a rewriting; with effort `deep`, its parts.
2. The first round searches, and reranks, all of that in one batch, and joins the lists.
3. With effort `deep`, rounds follow while another one is worth its cost (`pipeline.stopping`) and
   there is time: the links of the passages are followed (`pipeline.bridge`), which asks no model;
   where they name what the collection has no title for, that is searched for with the question.
"""

from __future__ import annotations

import asyncio
import math
import time
from collections.abc import AsyncGenerator, Sequence

from msgspec.structs import replace

from headrace.pipeline import bridge, claims
from headrace.pipeline.budget import Budget
from headrace.pipeline.decompose import decompose
from headrace.pipeline.evidence import Passage
from headrace.pipeline.helper import helped
from headrace.pipeline.plan import AnswerRequest, Plan
from headrace.pipeline.quotes import CANDIDATES
from headrace.pipeline.rewrite import Rewriting, cannot_help, in_its_words
from headrace.pipeline.services import Services
from headrace.pipeline.stopping import SECOND, Economics, thresholds
from headrace.retrieval.base import Scored, embedding_text
from headrace.retrieval.embedded import EmbeddedIndex
from headrace.retrieval.fuse import reciprocal_ranks
from headrace.retrieval.search import search_many
from headrace.types import Call, Hit, HopEvent, SearchResult, Sought

POOL = 20
"""Passages of the first round that links may lift; with 150 as many questions are answered."""

SUFFICES = 0.9
"""The chance that passages which have all words of a question suffice: both passages of 87 of 100
two-hop questions are among the ten that one search finds."""

GAIN, SUCCESS = 0.5, 0.9
"""A round adds one passage of two; of the 13 two-hop questions that one search does not answer,
links bring the missing passage of 12."""

HOP_SECONDS = 0.01
"""What a round takes where it has not been measured yet."""

REASONING = 0.02
"""What answering costs, in right answers: quotations take a fifth of a second."""

HELPING = 0.3
"""Of the time before a deadline, what a generator may take to rewrite a question."""

HELP_TOKENS, HELP_PROMPT = 64, 400
"""Tokens that there must be time for: a rewriting is about as long as its question, and its prompt
has some examples."""

_SHOWN = 3
_TIE = 1e-4


class Finding:
    """The search of one answer. Its `result` is complete when `rounds` ended."""

    def __init__(
        self,
        services: Services,
        request: AnswerRequest,
        plan: Plan,
        index: EmbeddedIndex,
        budget: Budget,
    ) -> None:
        self._services, self._request, self._plan = services, request, plan
        self._index, self._budget = index, budget
        self._pace = f"hop {plan.embedder}"
        self.result = SearchResult((), 0)
        self.later: frozenset[int] = frozenset()
        """Chunks that later rounds found."""

    async def rounds(self) -> AsyncGenerator[HopEvent, None]:
        """An event for each round that asked for more than the question."""
        plan = self._plan
        asked, skipped = await self._asked()
        deep = plan.effort == "deep"
        found, lists = await self._search(asked, max(plan.hits, POOL) if deep else plan.hits)
        self._keep(found.hits, found, (*skipped, *found.skipped))
        sought = [
            Sought(each.text, each.why, _titles(hits))
            for each, hits in zip(asked, lists, strict=True)
        ]
        if not deep:
            if len(asked) > 1:
                yield HopEvent(1, tuple(sought), len(self.result.hits), "one search")
            return
        pool = found.hits
        number = 1
        new = len(self.result.hits)
        while True:
            began = time.monotonic()
            more, why = await self._worth(number, pool)
            yield HopEvent(number, tuple(sought), new, why)
            if not more:
                return
            number += 1
            try:
                async with asyncio.timeout(self._left()):
                    sought, pool, added = await self._follow(pool)
            except TimeoutError:
                self._skip(f"deep: search {number} given up for the deadline")
                return
            new = len(added)
            self.later |= {hit.chunk_id for hit in added}
            self.result = replace(self.result, hits=tuple(pool[: plan.hits]))
            self._services.paces.note(self._pace, time.monotonic() - began)

    def grouped(self, sources: Sequence[Passage]) -> list[list[Passage]]:
        """The passages of the first round, and those of later ones; no empty group."""
        later = [each for each in sources if each.hit.chunk_id in self.later]
        first = [each for each in sources if each.hit.chunk_id not in self.later]
        return [group for group in (first, later) if group]

    # What is asked --------------------------------------------------------------------------------

    async def _asked(self) -> tuple[list[Rewriting], list[str]]:
        """The question first, then other words for it and its parts, each text once."""
        plan, request = self._plan, self._request
        first = Rewriting(plan.lookup, "the question")
        deep = plan.effort == "deep"
        parts = decompose(plan.question, plan.kind) if deep else []
        asked = [first, *(Rewriting(part, "a part of it") for part in parts)]
        skipped: list[str] = []
        if plan.helper is not None and plan.effort != "fast":
            lexicon = await asyncio.to_thread(self._index.lexicon)
            why_not = cannot_help(plan.kind, plan.question, lexicon)
            rewrite = not why_not or plan.lookup != plan.question
            apart = deep and not parts and plan.kind in ("comparison", "multi_part", "multi_hop")
            if not rewrite:
                skipped.append(f"rewrite: {why_not}")
            call = self._helping()
            allowed = self._budget.allow(plan.helper, HELP_TOKENS, HELP_PROMPT, call)
            if allowed.max_tokens == HELP_TOKENS and (rewrite or apart):
                more, left_out = await helped(
                    self._services.models,
                    plan.helper,
                    plan.question,
                    request.history,
                    await asyncio.to_thread(self._words),
                    rewrite=rewrite,
                    parts=apart,
                    call=call,
                )
                asked += more
                skipped += left_out
            elif rewrite or apart:
                skipped.append("rewrite: no time before the deadline")
        return list({each.text: each for each in reversed(asked)}.values())[::-1], skipped

    def _words(self) -> list[str]:
        """Terms of the collection whose definitions have the question's words. Blocks."""
        snapshot = self._index.snapshot()
        by_id = snapshot.allowed(self._request.where).by_id
        given = in_its_words(
            self._plan.question,
            self._index.lexicon(),
            lambda chunk: chunk < len(by_id) and bool(by_id[chunk]),
            snapshot.rarity,
        )
        return [definition.term for definition in given]

    # Rounds ---------------------------------------------------------------------------------------

    async def _search(
        self, asked: Sequence[Rewriting], k: int
    ) -> tuple[SearchResult, list[tuple[Hit, ...]]]:
        """The lists of all queries joined, and each."""
        plan = self._plan
        results = await search_many(
            self._index,
            self._services.models,
            plan.embedder,
            [each.text for each in asked],
            options=plan.retrieval,
            where=self._request.where,
            k=k,
            reranker=plan.reranker,
            call=self._call(),
            paces=self._services.paces,
        )
        lists = [result.hits for result in results]
        return replace(results[0], hits=joined(lists, plan.retrieval.rrf_k)[:k]), lists

    async def _worth(self, number: int, pool: Sequence[Hit]) -> tuple[bool, str]:
        """Whether another round follows, and why."""
        if number >= self._plan.answer.hops:
            return False, f"{number} searches are the most (`answer.hops`)"
        seconds = self._services.paces.usual(self._pace) or HOP_SECONDS
        left = self._left()
        if left is not None and left <= seconds:
            self._skip(f"deep: search {number + 1}, {max(0.0, left) * 1000:.0f} ms left")
            return False, "no time before the deadline"
        x = SUFFICES * await asyncio.to_thread(self._covered, pool)
        rule = thresholds(Economics(_rounded(SECOND * seconds), REASONING, GAIN, SUCCESS))
        bounds = f"{x:.2f}, another search pays between {rule.low:.3f} and {rule.high:.3f}"
        return rule.go_on(x), f"the chance that this suffices is {bounds}"

    def _covered(self, pool: Sequence[Hit]) -> float:
        """Share of the question's terms, by rarity, that the best passages have. Blocks."""
        weights = self._index.snapshot().rarity(claims.terms(self._plan.lookup))
        there: set[str] = set()
        for hit in pool[: self._plan.hits]:
            there |= claims.terms(embedding_text(hit.path, hit.text))
        total = sum(weights.values())
        return sum(weights[term] for term in weights.keys() & there) / total if total else 0.0

    async def _follow(self, pool: Sequence[Hit]) -> tuple[list[Sought], tuple[Hit, ...], list[Hit]]:
        """What the pool's passages lead to: what was asked, the new pool, what is new among its
        best."""
        where, size = self._request.where, max(self._plan.hits, POOL)

        def linked() -> list[tuple[bridge.Link, Hit]]:
            links = bridge.links(self._index, self._index.lexicon(), pool, where)
            hits = self._index.get({link.target: {} for link in links}, where)
            by_id = {hit.chunk_id: hit for hit in hits}
            return [(link, by_id[link.target]) for link in links if link.target in by_id]

        found = await asyncio.to_thread(linked)
        sought = [
            Sought(link.words, f"named by {_title(link.source)}", (_title(hit),))
            for link, hit in found
        ]
        if not found:
            sought, found = await self._named_elsewhere(pool)
        best, _ = bridge.ranked(pool, found, size)
        old = {hit.chunk_id for hit in self.result.hits}
        added = [hit for hit in best[: self._plan.hits] if hit.chunk_id not in old]
        return sought, tuple(best), added

    async def _named_elsewhere(
        self, pool: Sequence[Hit]
    ) -> tuple[list[Sought], list[tuple[bridge.Link, Hit]]]:
        """What is found with the names in the best passages that the question does not have: one
        batch."""
        names = bridge.unknown(pool, self._plan.question)
        if not names:
            return [], []
        asked = [Rewriting(f"{name} {self._plan.question}", name) for _, name in names]
        _, lists = await self._search(asked, _SHOWN)
        found = [
            (bridge.Link(source, hit.chunk_id, name), hit)
            for (source, name), hits in zip(names, lists, strict=True)
            for hit in hits[:1]
        ]
        sought = [
            Sought(each.text, f"named by {_title(source)}", _titles(hits))
            for each, (source, _), hits in zip(asked, names, lists, strict=True)
        ]
        return sought, found

    # --------------------------------------------------------------------------------------------

    def _helping(self) -> Call:
        """The call of a generator that helps: it has its share of the time left."""
        call = replace(self._budget.call, then=(self._plan.embedder,))
        if call.deadline is None:
            return call
        now = time.monotonic()
        return replace(call, deadline=now + HELPING * (call.deadline - now))

    def _call(self) -> Call:
        writer = self._plan.generator
        return replace(self._budget.call, then=() if writer is None else (writer,))

    def _left(self) -> float | None:
        """Seconds for searching: what answering needs at the end is kept back."""
        end = self._budget.writing(self._plan.embedder, CANDIDATES).deadline
        return None if end is None else end - time.monotonic()

    def _skip(self, what: str) -> None:
        self.result = replace(self.result, skipped=(*self.result.skipped, what))

    def _keep(self, hits: Sequence[Hit], found: SearchResult, skipped: Sequence[str]) -> None:
        self.result = replace(found, hits=tuple(hits[: self._plan.hits]), skipped=tuple(skipped))


def joined(lists: Sequence[Sequence[Hit]], constant: int) -> tuple[Hit, ...]:
    """The only list as it is, or the best hits of every list in turn; of those at the same place,
    first what more lists have. (The sum of reciprocal ranks alone prefers what is somewhere in
    every list to what answers one part of a question.)"""
    if len(lists) == 1:
        return tuple(lists[0])
    hits = {hit.chunk_id: hit for found in reversed(lists) for hit in found}
    ranks = [[Scored(hit.chunk_id, hit.score) for hit in found] for found in lists]
    scores: dict[int, float] = {}
    for found in ranks:
        for id_, score in reciprocal_ranks([found], constant):
            scores[id_] = max(scores.get(id_, 0.0), score)
    for id_, score in reciprocal_ranks(ranks, constant):
        scores[id_] += score * _TIE
    return tuple(
        replace(hits[id_], score=scores[id_], scores={**hits[id_].scores, "joined": scores[id_]})
        for id_ in sorted(scores, key=lambda id_: -scores[id_])
    )


def _rounded(cost: float) -> float:
    """To two digits, so that the thresholds are computed once for what takes about as long."""
    return float(f"{cost:.1e}") if cost > 0 and math.isfinite(cost) else SECOND * HOP_SECONDS


def _title(hit: Hit) -> str:
    return " › ".join(hit.path) or hit.title


def _titles(hits: Sequence[Hit]) -> tuple[str, ...]:
    return tuple(_title(hit) for hit in hits[:_SHOWN])
