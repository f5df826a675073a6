"""A remote model server on a real socket: OpenAI's, Jina's, Cohere's and TEI's calls, and the
faults that such servers have. The model's name orders the fault."""

from __future__ import annotations

import asyncio
import base64
import json
import threading
from collections.abc import AsyncIterator, Iterator
from contextlib import contextmanager
from typing import Any

import numpy as np
import uvicorn
from fastapi import FastAPI, Request
from fastapi.responses import JSONResponse, PlainTextResponse, Response, StreamingResponse

KEY = "sk-upstream-secret"


class Upstream:
    """`calls` has (path, body, Authorization) of every request; `left` counts the streams whose
    reader went away early."""

    def __init__(self) -> None:
        self.calls: list[tuple[str, dict[str, Any], str | None]] = []
        self.left = 0
        self.url = ""

    def app(self) -> FastAPI:
        app = FastAPI()

        @app.post("/{path:path}")
        async def answer(path: str, request: Request) -> Response:
            body = await request.json()
            self.calls.append((path, body, request.headers.get("authorization")))
            fault = _fault(body.get("model", ""))
            if fault is not None:
                return fault
            if path.endswith("chat/completions"):
                stream = self._chat(body)
                return StreamingResponse(stream, media_type="text/event-stream")
            if path.endswith("embeddings"):
                return _embeddings(body)
            return _rerank(body)

        return app

    async def _chat(self, body: dict[str, Any]) -> AsyncIterator[str]:
        model = body["model"]

        def event(**fields: Any) -> str:
            return f"data: {json.dumps({'object': 'chat.completion.chunk'} | fields)}\n\n"

        def text(content: str | None, reason: str | None = None) -> str:
            delta = {"role": "assistant", "content": content}
            return event(choices=[{"index": 0, "delta": delta, "finish_reason": reason}])

        try:
            yield ": a comment\n\n"
            yield text(None)
            words = ["Bonjour", " 世界", " !"]
            for word in words[: body["max_tokens"]]:
                yield text(word)
                await asyncio.sleep(60 if model == "slow" else 0)
            if model == "broken-off":
                return
            if model == "no-json":
                yield "data: {no json\n\n"
            if model == "error-inside":
                yield event(error={"message": f"out of memory {KEY}", "code": 500})
            if model == "strange":
                yield event(choices=["not an object"])
            yield text("", "length" if body["max_tokens"] < len(words) else "stop")
            if model != "no-usage":
                yield event(choices=[], usage={"prompt_tokens": 7, "completion_tokens": 3})
            yield "data: [DONE]\n\n"
        except asyncio.CancelledError:
            self.left += 1
            raise


def _fault(model: str) -> Response | None:
    long = {"error": {"message": "maximum context length is 10", "code": "x"}}
    return {
        "busy": JSONResponse({"error": {"message": "slow down"}}, 429, {"Retry-After": "7"}),
        "too-long": JSONResponse(long, 400),
        "denied": JSONResponse({"error": {"message": f"bad key {KEY} given"}}, 401),
        "down": PlainTextResponse("upstream " + "x" * 10_000, 503),
        "html": PlainTextResponse("<html>", 200),
    }.get(model)


def _embeddings(body: dict[str, Any]) -> Response:
    data = []
    for index, text in enumerate(body["input"]):
        vector = np.array([len(text), 3.0, 4.0 + index], dtype="<f4")
        if body["model"] == "not-finite":
            vector[0] = np.nan
        packed = base64.b64encode(vector.tobytes()).decode()
        value = vector.tolist() if body["model"] == "floats" else packed
        data.append({"object": "embedding", "index": index, "embedding": value})
    if body["model"] == "too-few":
        data = data[1:]
    return JSONResponse({"data": data[::-1], "usage": {}})


def _rerank(body: dict[str, Any]) -> Response:
    if "texts" in body:
        found = [{"index": i, "score": len(text) / 100} for i, text in enumerate(body["texts"])]
        return JSONResponse(found[::-1])
    results = [
        {"index": i, "relevance_score": len(text) / 100} for i, text in enumerate(body["documents"])
    ]
    return JSONResponse({"results": sorted(results, key=lambda r: -r["relevance_score"])})


@contextmanager
def serving() -> Iterator[Upstream]:
    upstream = Upstream()
    config = uvicorn.Config(
        upstream.app(),
        host="127.0.0.1",
        port=0,
        log_level="error",
        ws="none",
        lifespan="off",
        timeout_keep_alive=1,
    )
    server = uvicorn.Server(config)
    thread = threading.Thread(target=server.run)
    thread.start()
    while not server.started:
        threading.Event().wait(0.01)
    port = server.servers[0].sockets[0].getsockname()[1]
    upstream.url = f"http://127.0.0.1:{port}"
    try:
        yield upstream
    finally:
        server.should_exit = True
        server.force_exit = True
        thread.join()
