"""One question, put to the real pipeline, and what is noted of it."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Sequence

from msgspec.structs import replace

from headrace import types
from headrace.errors import ModelFailed, by_code
from headrace.evaluation.choosing import choose, with_choices
from headrace.evaluation.format import Question, Suite
from headrace.evaluation.gold import gold_of, ranks
from headrace.evaluation.journal import Record
from headrace.pipeline.answer import answer
from headrace.pipeline.plan import AnswerRequest, cycle_call, make_plan
from headrace.pipeline.services import Services
from headrace.retrieval.embedded import EmbeddedIndex
from headrace.retrieval.search import search
from headrace.types import BULK, Call, DoneEvent, Hit, Quote


async def ask(services: Services, suite: Suite, question: Question, *, call: Call = BULK) -> Record:
    """The question through every kind of the suite, each on its own, so that neither's times hold
    what the other did. Raises what the pipeline raises."""
    text = with_choices(question) if "choice" in suite.kinds else question.text
    request = suite.request(question, text, call)
    record = Record(id=question.id)
    if "retrieval" in suite.kinds:
        record = await _retrieved(services, request, question, record)
    if "answers" in suite.kinds or "choice" in suite.kinds:
        record = await _answered(services, request, question, record)
    return record


async def _retrieved(
    services: Services, request: AnswerRequest, question: Question, record: Record
) -> Record:
    """The search that an answer begins with, and each stage's whole list."""
    plan = make_plan(services.config, request)
    index = await asyncio.to_thread(services.collections.open, request.collection)
    result = await search(
        index,
        services.models,
        plan.embedder,
        plan.lookup,
        options=plan.retrieval,
        where=request.where,
        k=plan.hits,
        reranker=plan.reranker,
        call=cycle_call(request.call),
        paces=services.paces,
        stages=True,
    )
    found = await asyncio.to_thread(_ranks, index, request, question, result.stages)
    return replace(
        record,
        generation=result.generation,
        ranks=found,
        depths={stage: len(ids) for stage, ids in result.stages.items()},
        timings={f"search.{stage}": ms for stage, ms in result.timings.items()},
        skipped=result.skipped,
    )


def _ranks(
    index: EmbeddedIndex,
    request: AnswerRequest,
    question: Question,
    stages: dict[str, tuple[int, ...]],
) -> dict[str, tuple[int, ...]]:
    """For each stage the ranks of the question's needs in its list. Blocks."""
    if not question.gold:
        return {}
    ids = dict.fromkeys(chunk_id for listed in stages.values() for chunk_id in listed)
    hits = index.get({chunk_id: {"stage": 0.0} for chunk_id in ids}, request.where)
    by_id = {hit.chunk_id: hit for hit in hits}
    return {
        stage: ranks(question, [by_id[chunk_id] for chunk_id in listed if chunk_id in by_id])
        for stage, listed in stages.items()
    }


async def _answered(
    services: Services, request: AnswerRequest, question: Question, record: Record
) -> Record:
    text: list[str] = []
    hits: tuple[Hit, ...] = ()
    quotes: list[Quote] = []
    unsupported = 0
    done: DoneEvent | None = None
    async with contextlib.aclosing(answer(services, request)) as events:
        async for event in events:
            match event:
                case types.DeltaEvent(piece):
                    text.append(piece)
                case types.HitsEvent(found):
                    hits = found
                case types.QuoteEvent(quote):
                    quotes.append(quote)
                case types.UnsupportedEvent():
                    unsupported += 1
                case types.DoneEvent():
                    done = event
                case types.ErrorEvent(code, message):
                    raise by_code(code, message)
    if done is None:
        raise ModelFailed("the answer broke off")
    index = await asyncio.to_thread(services.collections.open, request.collection)
    chosen, chosen_by = choose(question, "".join(text), quotes, refused=done.refusal)
    return replace(
        _cited(record, question, hits, quotes),
        generation=done.generation,
        answer="".join(text),
        refusal=done.refusal,
        quotes_identical=await asyncio.to_thread(_identical, index, quotes),
        unsupported=unsupported,
        chosen=chosen,
        chosen_by=chosen_by,
        timings={**record.timings, **done.timings},
        skipped=done.skipped,
        usage=done.usage,
    )


def _cited(
    record: Record, question: Question, hits: Sequence[Hit], quotes: Sequence[Quote]
) -> Record:
    """Which quotes come from gold passages: a quote is judged by the passage that it stands in."""
    needs = [gold_of(question, [_passage(quote, hits)])[0] for quote in quotes]
    found = ranks(question, hits)
    return replace(
        record,
        ranks={**record.ranks, "answered": found} if question.gold else record.ranks,
        depths={**record.depths, "answered": len(hits)},
        sources=tuple(_place(quote) for quote in quotes),
        quotes=len(quotes),
        quotes_gold=sum(map(bool, needs)),
        needs_quoted=tuple(sorted({number for one in needs for number in one})),
    )


def _passage(quote: Quote, hits: Sequence[Hit]) -> Hit:
    """The hit that a quote was taken from; without one, the quote itself as a hit."""
    for hit in hits:
        if (
            hit.document_id == quote.document_id
            and hit.span.start <= quote.span.start
            and quote.span.end <= hit.span.end
        ):
            return hit
    return Hit(
        chunk_id=0,
        document_id=quote.document_id,
        source=quote.source,
        title=quote.title,
        path=quote.path,
        span=quote.span,
        text=quote.text,
        score=0.0,
        scores={},
    )


def _place(quote: Quote) -> str:
    return " > ".join((quote.source, *quote.path))


def _identical(index: EmbeddedIndex, quotes: Sequence[Quote]) -> int:
    """How many quotes equal the stored document over their span, to the byte. Blocks."""
    documents = {name: index.document(name) for name in {q.document_id for q in quotes}}
    same = 0
    for quote in quotes:
        stored = documents[quote.document_id]
        same += stored is not None and quote.span.of(stored.parsed.text) == quote.text
    return same
