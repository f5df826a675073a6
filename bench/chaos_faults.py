"""What goes wrong in the chaos test: one fault after another, drawn from a seed."""

from __future__ import annotations

import asyncio
import json
import random
import time
from collections import Counter
from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path
from typing import Any

import httpx
import psutil

MODELS = ("talk", "vectors", "others", "ranker")
GRACE_SECONDS = 3.0
"""After a server process is killed its port may refuse, and connections to it be cut, for so
long."""


class Faults:
    """Makes them until told to stop. `count` is how often each was made."""

    def __init__(self, seed: int, root: int, url: str, file: Path) -> None:
        self._random = random.Random(f"faults {seed}")
        self._root = psutil.Process(root)
        self._url = url
        self._file = file
        self._settings: dict[str, Any] = json.loads(file.read_text(encoding="utf-8"))
        self._killed: list[float] = []
        self._stopped: list[psutil.Process] = []
        self.count: Counter[str] = Counter()
        self.refused: list[str] = []

    def killed_since(self, began: float) -> bool:
        """Whether a request that began then may have been cut off."""
        return any(at >= began - GRACE_SECONDS for at in self._killed)

    async def make(self, over: asyncio.Event) -> None:
        kinds = [
            (20, self.kill_worker),
            (5, self.kill_server),
            (10, self.stop_worker),
            (12, self.edit),
            (6, self.spoil),
            (25, self.operate),
        ]
        async with asyncio.TaskGroup() as self._tasks:
            while not over.is_set():
                _, fault = self._random.choices(kinds, [weight for weight, _ in kinds])[0]
                await fault()
                self.count[fault.__name__] += 1
                with suppress(TimeoutError):
                    async with asyncio.timeout(self._random.uniform(0.5, 2.5)):
                        await over.wait()
        for process in self._stopped:
            with suppress(psutil.NoSuchProcess):
                process.resume()
        self._write(self._settings)

    def children(self, module: str) -> list[psutil.Process]:
        found = []
        for child in self._root.children(recursive=True):
            with suppress(psutil.NoSuchProcess, psutil.ZombieProcess):
                if module in child.cmdline():
                    found.append(child)
        return sorted(found, key=lambda child: int(child.pid))

    def _one(self, module: str) -> psutil.Process | None:
        found = self.children(module)
        return self._random.choice(found) if found else None

    # Processes ----------------------------------------------------------------------------------

    async def kill_worker(self) -> None:
        if worker := self._one("headrace.serving.launch"):
            with suppress(psutil.NoSuchProcess):
                worker.kill()

    async def kill_server(self) -> None:
        """Not both at once: then nobody would be there."""
        servers = self.children("headrace.cli.server_process")
        if len(servers) > 1:
            self._killed.append(time.monotonic())
            with suppress(psutil.NoSuchProcess):
                self._random.choice(servers).kill()

    async def stop_worker(self) -> None:
        """For less or for more than a worker may be silent."""
        worker = self._one("headrace.serving.launch")
        if worker is None:
            return
        with suppress(psutil.NoSuchProcess):
            worker.suspend()
            self._stopped.append(worker)
            self._tasks.create_task(self._resume(worker, self._random.choice((0.3, 1.0, 6.0))))

    async def _resume(self, worker: psutil.Process, seconds: float) -> None:
        await asyncio.sleep(seconds)
        with suppress(psutil.NoSuchProcess):
            worker.resume()

    # The configuration --------------------------------------------------------------------------

    async def edit(self) -> None:
        """Something that is valid: limits, replaced models, a model that comes and goes."""
        settings = json.loads(json.dumps(self._settings))
        models = settings["models"]
        what = self._random.randrange(4)
        if what == 0:
            models["vectors"]["max_pending"] = self._random.choice((32, 64, 512))
        elif what == 1:
            delay = self._random.choice(("0.001", "0.002", "0.004"))
            models["talk"]["source"] = f"delay={delay},{models['talk']['source'].partition(',')[2]}"
        elif what == 2:
            models["extra"] = {"role": "embedder", "engine": "echo", "source": "dimensions=32"}
        else:
            settings["answer"] = {"max_tokens": self._random.choice((32, 64))}
        self._write(settings)

    async def spoil(self) -> None:
        """Something that is not: the configuration in force stays."""
        broken = ("{", "models: {talk: {role: cook}}", "server: {no_such_option: 1}", "")
        self._file.write_text(self._random.choice(broken[:3]), encoding="utf-8")

    def _write(self, settings: Mapping[str, Any]) -> None:
        self._file.write_text(json.dumps(settings), encoding="utf-8")

    async def operate(self) -> None:
        """An operator's order; its answer may take as long as a load, so nobody waits for it."""
        model = self._random.choice(MODELS)
        move = self._random.choice(("load", "park", "exit", "reset"))
        self._tasks.create_task(self._order(model, move))

    async def _order(self, model: str, move: str) -> None:
        began = time.monotonic()
        async with httpx.AsyncClient(base_url=self._url, timeout=60) as client:
            try:
                if move == "reset":
                    answer = await client.post("/admin/reset", json={"model": model})
                else:
                    answer = await client.post(f"/admin/models/{model}/{move}")
            except httpx.TimeoutException:
                self.refused.append(f"{move} {model} was not answered in 60 s")
            except httpx.TransportError as error:
                if not self.killed_since(began):
                    self.refused.append(f"{move} {model} was cut: {error!r}")
            else:
                if answer.status_code == 500 or (answer.is_error and "code" not in answer.text):
                    self.refused.append(f"{move} {model}: {answer.status_code} {answer.text}")
