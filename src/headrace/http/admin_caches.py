"""What the caches do, over HTTP. Needs an admin key."""

from __future__ import annotations

from fastapi import APIRouter, Request
from starlette.responses import Response

from headrace.http.context import caller_of, context_of, json_response
from headrace.http.describe import described
from headrace.http.responses import CacheState, CacheStates
from headrace.pipeline import kept_answers
from headrace.serving import embedding_cache
from headrace.serving.survey import METRICS, Nothing
from headrace.telemetry import Families

router = APIRouter(tags=["Administration"])


@router.get("/admin/caches", summary="What the caches saved", responses=described(CacheStates))
async def show_caches(request: Request) -> Response:
    """Hits, misses and what the hits saved since the start, summed over all server processes; each
    has caches of its own."""
    caller_of(request).require_admin()
    scraped = await context_of(request).services.control.ask(METRICS, Nothing())
    names = (kept_answers.NAME, embedding_cache.NAME)
    return json_response(CacheStates({name: _state(scraped.families, name) for name in names}))


def _state(families: Families, cache: str) -> CacheState:
    samples = {
        (sample.name, sample.labels.get("result", "")): sample.value
        for family in families
        for sample in family.samples
        if sample.labels.get("cache") == cache
    }
    lookups = {
        result: int(value)
        for (name, result), value in samples.items()
        if name == "headrace_cache_lookups_total"
    }
    misses = lookups.pop("miss", 0)
    hits = sum(lookups.values())
    return CacheState(
        hits=lookups,
        misses=misses,
        hit_rate=round(hits / (hits + misses), 4) if hits + misses else 0.0,
        saved_seconds=round(samples.get(("headrace_cache_saved_seconds_total", ""), 0.0), 3),
        entries=int(samples.get(("headrace_cache_entries", ""), 0)),
        bytes=int(samples.get(("headrace_cache_bytes", ""), 0)),
    )
