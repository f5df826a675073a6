"""infinity-emb on a folder with `model.onnx`: reads a JSON line of requests, each a list of texts,
has its engine compute them at once, and writes how many vectors came. Runs under an interpreter
that has infinity-emb, and imports nothing of ours.
"""

from __future__ import annotations

import asyncio
import json
import os
import shutil
import sys
import tempfile
from importlib import import_module


async def main(model: str) -> None:
    out = os.fdopen(os.dup(1), "w", buffering=1)
    os.dup2(2, 1)  # what libraries print is not an answer
    with tempfile.TemporaryDirectory() as folder:
        shutil.copytree(model, folder, dirs_exist_ok=True)  # it may write there
        try:
            infinity = import_module("infinity_emb")
            engine = infinity.AsyncEmbeddingEngine.from_args(
                infinity.EngineArgs(
                    model_name_or_path=folder,
                    engine="optimum",
                    device="cpu",
                    pooling_method="mean",
                    model_warmup=False,
                    lengths_via_tokenize=False,
                )
            )
            await engine.astart()
        except BaseException as error:
            out.write(f"it does not load the model: {type(error).__name__}: {error}"[:300] + "\n")
            raise
        out.write("ready\n")
        while line := await asyncio.to_thread(sys.stdin.readline):
            found = await asyncio.gather(*(engine.embed(texts) for texts in json.loads(line)))
            out.write(f"{sum(len(vectors) for vectors, _ in found)}\n")
        await engine.astop()


if __name__ == "__main__":
    asyncio.run(main(sys.argv[1]))
