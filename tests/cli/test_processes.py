"""Several server processes on one port: real processes, models of the `echo` engine."""

from __future__ import annotations

import contextlib
import os
import re
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path

import httpx
import psutil
import pytest

pytestmark = pytest.mark.slow

PATIENCE = 40
CONFIG = """\
data_dir: data
cache_dir: cache
server: {processes: 2, port: 0, shutdown_seconds: 20}
models:
  talk: {role: generator, engine: echo}
  slow: {role: generator, engine: echo, source: delay=0.05}
  vectors: {role: embedder, engine: echo}
defaults: {generator: talk, embedder: vectors}
"""


class Up:
    """A running `headrace up`."""

    def __init__(self, folder: Path, host: subprocess.Popen[str], log: Path) -> None:
        self.folder = folder
        self.host = host
        self.url = ""
        self._log = log

    def wait_until_served(self) -> None:
        assert self.host.stdout is not None
        line = self.host.stdout.readline()
        found = re.search(r"http://[\d.]+:\d+", line)
        assert found, (line, self.log)
        self.url = found[0]

    @property
    def log(self) -> str:
        return self._log.read_text()

    def servers(self) -> list[psutil.Process]:
        return self._children("server_process")

    def workers(self) -> list[psutil.Process]:
        return self._children("headrace.serving.launch")

    def family(self) -> list[psutil.Process]:
        host = psutil.Process(self.host.pid)
        return [host, *host.children(recursive=True)]

    def _children(self, name: str) -> list[psutil.Process]:
        found = []
        for child in psutil.Process(self.host.pid).children():
            with contextlib.suppress(psutil.NoSuchProcess, psutil.ZombieProcess):
                if any(name in part for part in child.cmdline()):
                    found.append(child)
        return found

    def client(self) -> httpx.Client:
        return httpx.Client(base_url=self.url, timeout=PATIENCE)


def wait_for(condition: Callable[[], bool]) -> None:
    until = time.monotonic() + PATIENCE
    while not condition():
        assert time.monotonic() < until, "it never happened"
        time.sleep(0.02)


def alive(processes: list[psutil.Process]) -> list[psutil.Process]:
    """Those that do not end in time. (Who lost its parent may stay a zombie here: it is dead.)"""
    until = time.monotonic() + PATIENCE
    left = processes
    while left and time.monotonic() < until:
        left = [p for p in left if p.is_running() and p.status() != psutil.STATUS_ZOMBIE]
        time.sleep(0.02)
    return left


@contextlib.contextmanager
def up(
    folder: Path, config: str = CONFIG, environment: Mapping[str, str] | None = None
) -> Iterator[Up]:
    folder.mkdir(exist_ok=True)
    (folder / "headrace.yaml").write_text(config, encoding="utf-8")
    kept = {key: value for key, value in os.environ.items() if not key.startswith("HEADRACE_")}
    log = folder / "log"
    with (
        log.open("w") as errors,
        subprocess.Popen(
            [sys.executable, "-m", "headrace", "up"],
            cwd=folder,
            env=kept | dict(environment or {}),
            stdout=subprocess.PIPE,
            stderr=errors,
            text=True,
            start_new_session=True,  # a process group, as a shell gives it
        ) as host,
    ):
        running = Up(folder, host, log)
        family: list[psutil.Process] = []
        try:
            yield running
        finally:
            if host.poll() is None:
                family = running.family()
                host.kill()
            host.wait(PATIENCE)
            assert alive(family) == []


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Up]:
    with up(tmp_path_factory.mktemp("up")) as running:
        running.wait_until_served()
        yield running


WORDS = "word " * 20
CHATS = 'headrace_http_requests_total{method="POST",route="/v1/chat/completions",status="200"}'


def say(text: str, model: str = "talk", *, stream: bool = False) -> dict[str, object]:
    messages = [{"role": "user", "content": text}]
    return {"model": model, "messages": messages, "stream": stream, "max_tokens": 4000}


@contextlib.contextmanager
def stream(client: httpx.Client, text: str) -> Iterator[Iterator[str]]:
    """The lines of a streamed answer of the slow model."""
    body = say(text, "slow", stream=True)
    with client.stream("POST", "/v1/chat/completions", json=body) as answer:
        yield (line for line in answer.iter_lines() if line)


def check_whole(rest: Iterator[str]) -> None:
    """What is left of a streamed `WORDS` after its first line."""
    lines = list(rest)
    assert lines[-1] == "data: [DONE]"
    assert sum('"content"' in line for line in lines) >= len(WORDS.split())


def refused(url: str) -> bool:
    try:
        httpx.get(f"{url}/healthz", timeout=PATIENCE)
    except httpx.ConnectError:
        return True
    return False


class Connection:
    """A keep-alive connection, and which server process holds it."""

    def __init__(self, server: Up) -> None:
        self.client = httpx.Client(base_url=server.url, timeout=PATIENCE)
        answer = self.client.get("/healthz")
        _, port = answer.extensions["network_stream"].get_extra_info("client_addr")
        self.pid = next(p.pid for p in server.servers() if port in client_ports(p))

    def ask(self, text: str) -> str:
        answer = self.client.post("/v1/chat/completions", json=say(text)).json()
        return str(answer["choices"][0]["message"]["content"])

    def metrics(self) -> dict[str, float]:
        lines = self.client.get("/metrics").text.splitlines()
        numbers = (line.rpartition(" ") for line in lines if not line.startswith("#"))
        return {name: float(value) for name, _, value in numbers}


def client_ports(process: psutil.Process) -> set[int]:
    return {c.raddr.port for c in process.net_connections("tcp") if c.raddr}


@contextlib.contextmanager
def on_every_process(server: Up) -> Iterator[list[Connection]]:
    """Connections until each process has one; whoever is free takes the next, so that is soon."""
    wait_for(lambda: len(server.servers()) == 2)
    found: list[Connection] = []
    try:
        while {c.pid for c in found} != {p.pid for p in server.servers()}:
            assert len(found) < 200, "one process takes every connection"
            found.append(Connection(server))
        yield found
    finally:
        for connection in found:
            connection.client.close()


def test_two_processes_answer_on_one_port_with_the_same_models(server: Up) -> None:
    with on_every_process(server) as connections:
        assert {c.ask("one two") for c in connections} == {"one two"}
        versions = {
            c.client.post("/v1/chat/completions", json=say("x")).json()["system_fingerprint"]
            for c in connections
        }
    assert len(versions) == 1
    wait_for(lambda: len(server.workers()) == 2)  # of the two models in use, not of each process


def test_connections_are_shared_out(server: Up) -> None:
    with contextlib.ExitStack() as stack:
        clients = [stack.enter_context(server.client()) for _ in range(40)]
        for client in clients:
            assert client.get("/healthz").status_code == 200
        held = [len(client_ports(p)) for p in server.servers()]
    assert len(held) == 2
    assert min(held) >= 10, held


def test_metrics_are_of_all_processes_whichever_is_asked(server: Up) -> None:
    with on_every_process(server) as connections:
        before = connections[0].metrics().get(CHATS, 0.0)
        for connection in connections:
            connection.ask("count me")
        for connection in connections:
            found = connection.metrics()
            assert found[CHATS] == before + len(connections)
            assert found["headrace_server_processes"] == 2
            assert found['headrace_model_workers{model="talk"}'] == 1
            sizes = [name for name in found if name.startswith("process_resident_memory_bytes")]
            assert len(sizes) == 3, "the host and two servers, each for itself"


def test_a_killed_process_loses_its_own_connections_only_and_is_replaced(server: Up) -> None:
    restarts = "headrace_server_process_restarts_total"
    with on_every_process(server) as connections:
        victim = connections[0]
        others = [c for c in connections if c.pid != victim.pid]
        assert victim.ask("counted") == "counted"
        before = victim.metrics()
        with stream(victim.client, WORDS) as lost, stream(others[0].client, WORDS) as lines:
            next(lost)
            next(lines)
            os.kill(victim.pid, signal.SIGKILL)
            with pytest.raises(httpx.TransportError):
                list(lost)
            check_whole(lines)
        assert all(c.ask("still here") == "still here" for c in others)
        wait_for(lambda: others[0].metrics()["headrace_server_processes"] == 2)
        after = others[0].metrics()
    assert after[restarts] == before[restarts] + 1
    assert after[CHATS] >= before[CHATS] + len(others), "what a dead process counted still counts"
    with on_every_process(server) as connections:
        assert victim.pid not in {c.pid for c in connections}
    assert server.log.count(f"PID {victim.pid}, killed by SIGKILL") == 1


def test_sigterm_to_one_process_drains_that_one(server: Up) -> None:
    with on_every_process(server) as connections:
        drained = connections[0]
        with stream(drained.client, WORDS) as lines:
            next(lines)
            os.kill(drained.pid, signal.SIGTERM)
            check_whole(lines)
        other = next(c for c in connections if c.pid != drained.pid)
        assert other.ask("there") == "there"
    wait_for(lambda: len({p.pid for p in server.servers()} - {drained.pid}) == 2)


def test_a_client_that_goes_away_cancels_the_work_in_the_host(server: Up) -> None:
    active = 'headrace_model_active_requests{model="slow"}'
    with on_every_process(server) as connections:
        watching = connections[0]
        with server.client() as leaving, stream(leaving, "word " * 2000) as lines:
            next(lines)
            busy = watching.metrics()
            assert busy[active] == 1
        wait_for(lambda: watching.metrics()[active] == 0)
        assert watching.metrics()["headrace_host_requests"] == busy["headrace_host_requests"] - 1


def test_errors_are_those_of_a_single_process(server: Up) -> None:
    with server.client() as client:
        answer = client.post("/v1/chat/completions", json=say("x " * 9000))
        assert answer.status_code == 400
        assert answer.json()["error"]["code"] == "context_length_exceeded"
        assert client.get("/readyz").json() == {"ready": True, "problems": []}


def test_ctrl_c_waits_for_running_answers_and_leaves_nothing(tmp_path: Path) -> None:
    with up(tmp_path) as running:
        running.wait_until_served()
        with running.client() as client, stream(client, WORDS) as lines:
            next(lines)
            family = running.family()
            assert len(family) >= 4, "host, two servers and a worker"
            os.killpg(running.host.pid, signal.SIGINT)  # as a terminal sends it
            check_whole(lines)
        assert running.host.wait(PATIENCE) == 130
        assert alive(family) == []
        assert "Traceback" not in running.log
        assert "takes its place" not in running.log


def test_sigterm_waits_and_a_second_one_does_not(tmp_path: Path) -> None:
    with up(tmp_path, CONFIG.replace("shutdown_seconds: 20", "shutdown_seconds: 600")) as running:
        running.wait_until_served()
        with running.client() as client, stream(client, "word " * 3900) as lines:
            next(lines)
            family = running.family()
            running.host.send_signal(signal.SIGTERM)
            wait_for(lambda: refused(running.url))
            running.host.send_signal(signal.SIGTERM)
            assert running.host.wait(PATIENCE) == 0
        assert alive(family) == []


def test_a_killed_host_takes_everything_with_it(tmp_path: Path) -> None:
    with up(tmp_path) as running:
        running.wait_until_served()
        wait_for(lambda: len(running.workers()) == 2)
        family = running.family()
        with running.client() as client, stream(client, "word " * 2000) as lines:
            next(lines)
            running.host.kill()
            running.host.wait(PATIENCE)
            with contextlib.suppress(httpx.TransportError):
                list(lines)
        assert alive(family) == []


def test_what_no_process_could_serve_ends_the_host_with_the_reason(tmp_path: Path) -> None:
    keys = "server: {processes: 2, port: 0, keys: [{env: NO_SUCH_KEY_VARIABLE}]}"
    with up(tmp_path, re.sub("server: .*", keys, CONFIG)) as running:
        assert running.host.wait(PATIENCE) == 2
        assert "error: " in running.log
        assert "NO_SUCH_KEY_VARIABLE" in running.log.partition("error: ")[2]


def test_processes_that_do_not_start_end_the_host_with_the_reason(tmp_path: Path) -> None:
    hook = "import os, sys\nif 'headrace.cli.server_process' in sys.orig_argv: os._exit(7)\n"
    (tmp_path / "sitecustomize.py").write_text(hook, encoding="utf-8")
    path = os.pathsep.join([str(tmp_path), *filter(None, [os.environ.get("PYTHONPATH")])])
    with up(tmp_path, environment={"PYTHONPATH": path}) as running:
        assert running.host.wait(PATIENCE) == 1
        assert "exit status 7" in running.log.partition("error: ")[2]
