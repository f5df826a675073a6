"""A package index and two model hubs in one HTTP server on a real socket, with faults to order."""

from __future__ import annotations

import hashlib
import json
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from urllib.parse import parse_qs, unquote, urlsplit


class StandIn:
    """`files` by URL path; `cut` has paths whose next answer breaks off after so many bytes;
    `requests` lists (path, Range header, Authorization header)."""

    def __init__(self) -> None:
        self.files: dict[str, bytes] = {}
        self.cut: dict[str, list[int]] = {}
        self.truncate: dict[str, int] = {}
        self.ranges = True
        self.requests: list[tuple[str, str | None, str | None]] = []
        self.url = ""

    def package(self, name: str, wheel: str, content: bytes, sha256: str | None = None) -> None:
        digest = sha256 or hashlib.sha256(content).hexdigest()
        self.files[f"/wheels/{wheel}"] = content
        page = self.files.get(f"/simple/{name}/", b"").decode()
        page += f'<a href="/wheels/{wheel}#sha256={digest}">{wheel}</a>\n'
        self.files[f"/simple/{name}/"] = page.encode()

    def huggingface(self, repo: str, files: dict[str, bytes], **wrong: str) -> None:
        siblings = []
        for name, content in files.items():
            sha = wrong.get(name.replace(".", "_"), hashlib.sha256(content).hexdigest())
            lfs = {"sha256": sha, "size": len(content), "pointerSize": 130}
            siblings.append({"rfilename": name, "size": len(content), "lfs": lfs})
            self.files[f"/{repo}/resolve/c0ffee/{name}"] = content
        info = {"id": repo, "sha": "c0ffee", "siblings": siblings, "tags": [], "private": False}
        self.files[f"/api/models/{repo}"] = json.dumps(info).encode()

    def modelscope(self, repo: str, files: dict[str, bytes]) -> None:
        listed = [
            {
                "Path": name,
                "Name": name.rpartition("/")[2],
                "Type": "blob",
                "Size": len(content),
                "Sha256": hashlib.sha256(content).hexdigest(),
            }
            for name, content in files.items()
        ]
        answer = {"Code": 200, "Data": {"Files": [{"Path": "onnx", "Type": "tree"}, *listed]}}
        base = f"/api/v1/models/{repo}/repo"
        self.files[f"{base}/files"] = json.dumps(answer).encode()
        for name, content in files.items():
            self.files[f"{base}?{name}"] = content

    def asked(self, path: str) -> list[str | None]:
        """The Range headers of the requests for `path`."""
        return [wanted for asked, wanted, _ in self.requests if asked == path]


def _handler(standin: StandIn) -> type[BaseHTTPRequestHandler]:
    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def do_GET(self) -> None:
            url = urlsplit(self.path)
            path = unquote(url.path)
            wanted = self.headers.get("Range")
            if name := parse_qs(url.query).get("FilePath"):
                path = f"{path}?{name[0]}"
            standin.requests.append((path, wanted, self.headers.get("Authorization")))
            content = standin.files.get(path)
            if content is None:
                self.send_response(404)
                self.send_header("Content-Length", "0")
                self.end_headers()
                return
            self._send(path, content, wanted)

        def _send(self, path: str, content: bytes, wanted: str | None) -> None:
            start = 0
            if wanted and standin.ranges:
                start = int(wanted.removeprefix("bytes=").split("-")[0])
                if start >= len(content):
                    self.send_response(416)
                    self.send_header("Content-Range", f"bytes */{len(content)}")
                    self.send_header("Content-Length", "0")
                    self.end_headers()
                    return
                self.send_response(206)
                self.send_header(
                    "Content-Range", f"bytes {start}-{len(content) - 1}/{len(content)}"
                )
            else:
                self.send_response(200)
            html = path.startswith("/simple/")
            self.send_header("Content-Type", "text/html" if html else "application/octet-stream")
            body = content[start : standin.truncate.get(path)]
            self.send_header("Content-Length", str(len(content) - start))
            self.end_headers()
            cuts = standin.cut.get(path)
            if cuts:
                body = body[: cuts.pop(0)]
            self.wfile.write(body)
            if len(body) < len(content) - start:
                self.close_connection = True
                self.wfile.flush()
                self.connection.close()

        def log_message(self, format: str, *args: object) -> None:
            pass

    return Handler


def _handler(standin: StandIn) -> type[BaseHTTPRequestHandler]:
    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def do_GET(self) -> None:
            url = urlsplit(self.path)
            path = unquote(url.path)
            wanted = self.headers.get("Range")
            if name := parse_qs(url.query).get("FilePath"):
                path = f"{path}?{name[0]}"
            standin.requests.append((path, wanted, self.headers.get("Authorization")))
            content = standin.files.get(path)
            if content is None:
                self.send_response(404)
                self.send_header("Content-Length", "0")
                self.end_headers()
                return
            self._send(path, content, wanted)

        def _send(self, path: str, content: bytes, wanted: str | None) -> None:
            start = 0
            if wanted and standin.ranges:
                start = int(wanted.removeprefix("bytes=").split("-")[0])
                if start >= len(content):
                    self.send_response(416)
                    self.send_header("Content-Range", f"bytes */{len(content)}")
                    self.send_header("Content-Length", "0")
                    self.end_headers()
                    return
                self.send_response(206)
                self.send_header(
                    "Content-Range", f"bytes {start}-{len(content) - 1}/{len(content)}"
                )
            else:
                self.send_response(200)
            html = path.startswith("/simple/")
            self.send_header("Content-Type", "text/html" if html else "application/octet-stream")
            body = content[start : standin.truncate.get(path)]
            self.send_header("Content-Length", str(len(content) - start))
            self.end_headers()
            cuts = standin.cut.get(path)
            if cuts:
                body = body[: cuts.pop(0)]
            self.wfile.write(body)
            if len(body) < len(content) - start:
                self.close_connection = True
                self.wfile.flush()
                self.connection.close()

        def log_message(self, format: str, *args: object) -> None:
            pass

    return Handler


@contextmanager
def serving() -> Iterator[StandIn]:
    standin = StandIn()
    server = ThreadingHTTPServer(("127.0.0.1", 0), _handler(standin))
    standin.url = f"http://127.0.0.1:{server.server_port}"
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.02})
    thread.start()
    try:
        yield standin
    finally:
        server.shutdown()
        thread.join()
        server.server_close()
