"""The configuration of a running server is changed while it is used: one process, and two."""

from __future__ import annotations

import threading
from collections.abc import Iterator

import httpx
import pytest
from test_processes import Up, up, wait_for

pytestmark = pytest.mark.slow

CONFIG = """\
data_dir: data
cache_dir: cache
server: {{processes: {processes}, port: 0, shutdown_seconds: 20}}
models:
  talk: {{role: generator, engine: echo}}
  vectors: {{role: embedder, engine: echo}}
defaults: {{generator: talk, embedder: vectors}}
"""
SECOND = "  second: {role: generator, engine: echo}\n"


class Asker(threading.Thread):
    """Asks a model over and over, on a connection of its own."""

    def __init__(self, server: Up) -> None:
        super().__init__()
        self.versions: list[str] = []
        self.failures: list[str] = []
        self.stopped = threading.Event()
        self._server = server

    def run(self) -> None:
        with self._server.client() as client:
            while not self.stopped.is_set():
                body = {"model": "talk", "messages": [{"role": "user", "content": "one two"}]}
                answer = client.post("/v1/chat/completions", json=body)
                if answer.status_code != 200:
                    self.failures.append(answer.text)
                version = answer.headers["x-headrace-config"]
                if self.versions[-1:] != [version]:
                    self.versions.append(version)


@pytest.fixture(scope="module", params=[1, 2])
def server(
    request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Up]:
    with up(tmp_path_factory.mktemp("live"), CONFIG.format(processes=request.param)) as started:
        started.wait_until_served()
        yield started


def models(server: Up) -> set[str]:
    return {m["name"] for m in httpx.get(f"{server.url}/admin/models", timeout=30).json()["models"]}


def test_a_model_comes_changes_and_goes_while_another_is_used(server: Up) -> None:
    file = server.folder / "headrace.yaml"
    text = file.read_text()
    changed = text.replace("talk: {", "talk: {max_pending: 99, ")
    with_second = text.replace("defaults:", f"{SECOND}defaults:")
    replaced = text.replace("talk: {", "talk: {context: 4096, ")
    askers = [Asker(server) for _ in range(4)]
    for asker in askers:
        asker.start()
    try:
        wait_for(lambda: all(asker.versions for asker in askers))
        for number, step in enumerate((changed, with_second, replaced, text), 2):
            file.write_text(step)
            wait_for(lambda number=number: all(len(a.versions) >= number for a in askers))  # type: ignore[misc]
            assert ("second" in models(server)) == (step is with_second)
        shown = httpx.get(f"{server.url}/admin/config", timeout=30)
        before = len(askers[0].versions)
        file.write_text(text + "server: {}\n")  # given twice
        problem = ""
        while "given twice" not in problem:
            problem = httpx.get(f"{server.url}/admin/config", timeout=30).json()["problem"]
    finally:
        for asker in askers:
            asker.stopped.set()
            asker.join()
    assert [failure for asker in askers for failure in asker.failures] == []
    assert len(askers[0].versions) == before, "a wrong file changed something"
    assert {asker.versions[-1] for asker in askers} == {shown.json()["version"]}


def test_a_replacement_is_in_force_in_every_process_when_it_is_answered(server: Up) -> None:
    with server.client() as client:
        text = client.get("/admin/config", headers={"Accept": "application/yaml"}).text
        for number in range(1, 6):
            done = client.put(
                "/admin/config",
                content=text.replace("port: 0", f"port: 0, max_pending: {number}00"),
                headers={"If-Match": "*"},
            )
            assert done.status_code == 200, done.text
            seen = {
                httpx.get(f"{server.url}/healthz", timeout=30).headers["x-headrace-config"]
                for _ in range(8)  # a connection each: some to every process
            }
            assert seen == {done.json()["version"]}


def test_a_model_that_cannot_be_loaded_does_not_replace_one_that_serves(server: Up) -> None:
    with server.client() as client:
        broken = {"role": "generator", "engine": "llamacpp", "source": "file:/none.gguf"}
        body = {"model": "talk", "messages": [{"role": "user", "content": "one two"}]}
        assert client.post("/v1/chat/completions", json=body).status_code == 200
        before = (server.folder / "headrace.yaml").read_text()
        refused = client.put("/admin/models/talk", json=broken)
        assert refused.status_code == 422, refused.text
        assert "/none.gguf" in refused.json()["error"]["message"]
        assert client.post("/v1/chat/completions", json=body).status_code == 200
        assert (server.folder / "headrace.yaml").read_text() == before
