"""Clients of the chaos test: what they ask, and how each request ended."""

from __future__ import annotations

import asyncio
import json
import random
import time
from collections import Counter
from collections.abc import AsyncGenerator, Callable
from contextlib import aclosing, suppress
from dataclasses import dataclass, field
from typing import Any, TypeAlias

import httpx

BOUND_SECONDS = 60.0
"""A request that has not ended by then counts as one that never does."""

COLLECTION = "town"
EXPECTED = {
    "cancelled",
    "deadline_exceeded",
    "item_not_found",
    "job_not_found",
    "model_failed",
    "model_not_found",
    "overloaded",
    "session_not_found",
    "busy",
    "stale_version",
    "invalid_field",
}
"""Codes that an error may have here. Any other, such as `internal_error`, is a violation."""

Killed: TypeAlias = Callable[[float], bool]
"""Was a server process killed since a time of `time.monotonic()`, or just before it?"""


@dataclass
class Ledger:
    """How requests ended, by kind, and what must not have happened."""

    ends: Counter[str] = field(default_factory=Counter)
    violations: list[str] = field(default_factory=list)
    slowest: float = 0.0

    @property
    def requests(self) -> int:
        return sum(self.ends.values())


class Refused(Exception):
    """A typed error in a body or in a stream."""

    def __init__(self, code: str) -> None:
        super().__init__(code)


class Client:
    """One user, who does one thing after another until told to stop."""

    def __init__(self, number: int, seed: int, url: str, ledger: Ledger, killed: Killed) -> None:
        self._random = random.Random(f"client {seed} {number}")
        self._number = number
        self._ledger = ledger
        self._killed = killed
        self.http = httpx.AsyncClient(base_url=url, timeout=BOUND_SECONDS * 2)
        self._words = 0

    async def work(self, over: asyncio.Event) -> None:
        kinds = [
            (30, self.search),
            (25, self.chat),
            (10, self.answer),
            (20, self.embed),
            (8, self.session),
            (4, self.upload),
            (3, self.rerank),
        ]
        weights = [weight for weight, _ in kinds]
        async with self.http:
            while not over.is_set():
                (_, ask) = self._random.choices(kinds, weights)[0]
                await self.ended(ask.__name__, ask)
                with suppress(TimeoutError):
                    async with asyncio.timeout(self._random.uniform(0.0, 0.05)):
                        await over.wait()

    async def ended(self, kind: str, ask: Callable[[], Any]) -> str:
        """Make one request and note how it ended."""
        began = time.monotonic()
        try:
            async with asyncio.timeout(BOUND_SECONDS):
                end = await ask() or "result"
        except Refused as refused:
            end = str(refused)
            if end not in EXPECTED:
                self._ledger.violations.append(f"{kind} ended with {end}")
        except TimeoutError:
            end = "never"
            self._ledger.violations.append(f"{kind} had not ended after {BOUND_SECONDS:.0f} s")
        except httpx.TransportError as error:
            end = "cut"
            if not self._killed(began):
                self._ledger.violations.append(f"{kind} was cut, and no server killed: {error!r}")
        self._ledger.slowest = max(self._ledger.slowest, time.monotonic() - began)
        self._ledger.ends[end] += 1
        return end

    # What is asked ------------------------------------------------------------------------------

    async def search(self) -> None:
        await self._search({})

    async def _search(self, headers: dict[str, str]) -> None:
        body = {"query": self._text(6), "k": 3}
        await self._post(f"/api/collections/{COLLECTION}/search", body, headers)

    async def chat(self) -> str | None:
        """A stream; some hang up in the middle, some have a deadline."""
        words = self._random.choice((5, 30, 200))
        stop = self._random.random() < 0.25
        body = {
            "model": "talk",
            "stream": True,
            "max_tokens": 1000,
            "messages": [{"role": "user", "content": self._text(words)}],
        }
        headers = {"X-Deadline-Ms": "3000"} if self._random.random() < 0.2 else {}
        got = 0
        async with aclosing(self._events("/v1/chat/completions", body, headers)) as events:
            async for event in events:
                got += 1
                if stop and got >= 3:
                    return "left"
                if event is None:
                    return None
        raise Refused("a stream without an end")

    async def answer(self) -> str | None:
        body = {"collection": COLLECTION, "question": f"When does the market {self._text(4)} open?"}
        async with aclosing(self._events("/api/rag/chat", body, {})) as events:
            async for event in events:
                if event and event.get("type") == "done":
                    return None
        raise Refused("a stream without an end")

    async def embed(self) -> None:
        texts = [self._text(5) for _ in range(self._random.choice((1, 1, 1, 8, 40)))]
        model = self._random.choice(("vectors", "vectors", "others", "extra"))
        found = await self._post("/v1/embeddings", {"model": model, "input": texts})
        if len(found["data"]) != len(texts):
            raise Refused("a result of another size")

    async def rerank(self) -> None:
        documents = [self._text(8) for _ in range(10)]
        await self._post(
            "/v1/rerank", {"model": "ranker", "query": self._text(3), "documents": documents}
        )

    async def session(self) -> None:
        body = {"owner": f"user {self._number}", "collections": [COLLECTION], "ttl_seconds": 30}
        opened = (await self._post("/api/sessions", body))["sessions"][0]["id"]
        try:
            await self._search({"X-Session": opened})
        finally:
            await self._checked(await self.http.delete(f"/api/sessions/{opened}"))

    async def upload(self) -> None:
        name = f"{self._number}-{self._random.randrange(3)}.md"
        content = f"# Market\n\nThe market of {self._text(30)} opens at six.\n"
        files = {"files": (name, content.encode(), "text/markdown")}
        path = f"/api/collections/{COLLECTION}/documents"
        await self._checked(await self.http.post(path, files=files))

    # How ----------------------------------------------------------------------------------------

    def _text(self, words: int) -> str:
        self._words += 1
        chosen = (self._random.choice(_WORDS) for _ in range(words))
        return " ".join([*chosen, str(self._words)])

    async def _post(
        self, path: str, body: dict[str, Any], headers: dict[str, str] | None = None
    ) -> Any:
        return await self._checked(await self.http.post(path, json=body, headers=headers))

    async def _checked(self, answer: httpx.Response) -> Any:
        if answer.is_success:
            return answer.json() if answer.content else None
        raise Refused(_code(answer))

    async def _events(
        self, path: str, body: dict[str, Any], headers: dict[str, str]
    ) -> AsyncGenerator[dict[str, Any] | None]:
        """The events of a stream; None for the end that OpenAI's protocol has."""
        async with self.http.stream("POST", path, json=body, headers=headers) as answer:
            if answer.is_error:
                await answer.aread()
                raise Refused(_code(answer))
            async for line in answer.aiter_lines():
                data = line.removeprefix("data: ")
                if not line.startswith("data: "):
                    continue
                event = None if data == "[DONE]" else json.loads(data)
                if event and ("error" in event or event.get("type") == "error"):
                    raise Refused((event.get("error") or event)["code"])
                yield event


def _code(answer: httpx.Response) -> str:
    try:
        return str(answer.json()["error"]["code"])
    except (ValueError, KeyError, TypeError):
        return f"status {answer.status_code} without a typed error"


_WORDS = ("market", "opens", "six", "dogs", "leash", "rent", "due", "city", "water", "town")
