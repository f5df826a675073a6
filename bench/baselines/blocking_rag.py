"""A retrieval server as most published ones are written, to measure against.

One FastAPI process; the handler is `async`, and inside it the question is encoded in float32 and
looked up by an exact dense search, both of which block the event loop. Nothing is slowed down on
purpose: uvicorn with httptools, every library with its default threads, vectors and texts in
memory, no lexical search, no filter, no fusion. The encoder is what such servers use,
sentence-transformers on PyTorch, or onnxruntime with the same float32 weights.

    python blocking_rag.py FOLDER torch|onnx

FOLDER holds `vectors.npy` (float32, normalised), `texts.json`, the model, and takes `port`. Runs
under any interpreter that has fastapi, uvicorn, faiss-cpu, and sentence-transformers or
onnxruntime and tokenizers.
"""

from __future__ import annotations

import json
import socket
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import faiss
import numpy as np
import uvicorn
from fastapi import FastAPI
from pydantic import BaseModel

Encode = Callable[[str], Any]
"""A question to a float32 vector, normalised."""


class Query(BaseModel):
    query: str
    k: int = 10


def torch_encoder(folder: Path) -> Encode:
    from sentence_transformers import SentenceTransformer, models

    encoder = models.Transformer(str(folder))
    pooling = models.Pooling(encoder.get_embedding_dimension(), pooling_mode="mean")
    model = SentenceTransformer(modules=[encoder, pooling], device="cpu")

    def encode(text: str) -> Any:
        return model.encode(f"query: {text}", normalize_embeddings=True, show_progress_bar=False)

    return encode


def onnx_encoder(folder: Path) -> Encode:
    import onnxruntime
    from tokenizers import Tokenizer

    session = onnxruntime.InferenceSession(str(folder / "model.onnx"))
    tokenizer = Tokenizer.from_file(str(folder / "tokenizer.json"))

    def encode(text: str) -> Any:
        ids = tokenizer.encode(f"query: {text}").ids
        feeds = {"input_ids": np.array([ids]), "attention_mask": np.ones((1, len(ids)), np.int64)}
        pooled = session.run(None, feeds)[0][0].mean(axis=0)
        return pooled / np.linalg.norm(pooled)

    return encode


def application(folder: Path, encode: Encode) -> FastAPI:
    vectors = np.load(folder / "vectors.npy")
    texts = json.loads((folder / "texts.json").read_text(encoding="utf-8"))
    index = faiss.IndexFlatIP(vectors.shape[1])
    index.add(vectors)
    app = FastAPI()

    @app.post("/search")
    async def search(query: Query) -> Any:
        vector = encode(query.query)
        scores, ids = index.search(vector[None].astype(np.float32), query.k)
        return [
            {"id": number, "score": score, "text": texts[number]}
            for number, score in zip(ids[0].tolist(), scores[0].tolist(), strict=True)
        ]

    return app


def main() -> None:
    folder = Path(sys.argv[1])
    encode = {"torch": torch_encoder, "onnx": onnx_encoder}[sys.argv[2]](folder)
    app = application(folder, encode)
    listener = socket.create_server(("127.0.0.1", 0), backlog=1024)
    listener.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    print(f"http://127.0.0.1:{listener.getsockname()[1]}", flush=True)
    uvicorn.Server(uvicorn.Config(app, access_log=False, log_level="error")).run([listener])


if __name__ == "__main__":
    main()
