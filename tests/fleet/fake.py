"""A small server that speaks Triton's HTTP protocol, serves a repository of `doubled`, and has the faults of a test.

It answers y = x * factor, by the model.onnx of each version: what the repository holds decides, as with the real one.
"""

from __future__ import annotations

import json
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import numpy as np
import onnx
from google.protobuf import json_format
from onnx import numpy_helper

from modelwright.config.render import parse
from modelwright.triton.layout import version_number
from modelwright.triton.policy import selected

EXTENSIONS = ["model_repository", "statistics", "model_configuration"]
NOT_EXPLICIT = "explicit model load / unload is not allowed if polling is enabled"


@dataclass
class FakeTriton:
    """`polls`: it looks at the repository whenever it is asked anything. `refuses`: version → why it does not load."""

    repository: Path
    polls: bool = False
    frozen: bool = False  # as with --model-control-mode=none, or when the repository is another copy
    release: str = "2.71.0"
    name: str = "triton"
    extensions: list[str] = field(default_factory=lambda: list(EXTENSIONS))
    refuses: dict[int, str] = field(default_factory=dict)
    dies_at_load: bool = False
    restricted: str = ""  # the message with which the repository API is refused
    answers_times: float = 1.0  # of what the version answers: another model under the same name
    load_s: float = 0.0
    metrics: str = ""
    loads: list[str] = field(default_factory=list)  # what it was told to load, in order
    port: int = 0
    _loaded: dict[str, dict[int, tuple[str, str]]] = field(default_factory=dict)  # model → version → state, reason
    _configs: dict[str, dict[str, Any]] = field(default_factory=dict)
    _overrides: dict[str, tuple[str, int]] = field(default_factory=dict)  # from the load API, and the file's time then
    _server: ThreadingHTTPServer | None = None
    _lock: threading.RLock = field(default_factory=threading.RLock)

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}"

    def stop(self) -> None:
        """As if it was killed: what comes finds nobody."""
        server, self._server = self._server, None
        if server:
            threading.Thread(target=_closed, args=(server,)).start()

    # What it does

    def look(self) -> None:
        if self.polls and not self.frozen:
            for model in self.models():
                self._take(model, None)

    def models(self) -> list[str]:
        return sorted(path.name for path in self.repository.iterdir() if path.is_dir())

    def load(self, model: str, config: str | None) -> str:
        """Why it failed; '' when it did not."""
        self.loads.append(model)
        if self.dies_at_load:
            self.stop()
            raise ConnectionAbortedError
        time.sleep(self.load_s)
        if model not in self.models():
            return f"failed to load '{model}', failed to poll from model repository"
        return self._take(model, config)

    def _take(self, model: str, config: str | None) -> str:
        with self._lock:
            path = self.repository / model / "config.pbtxt"
            kept, since = self._overrides.get(model, ("", 0))
            if config:
                self._overrides[model] = (config, path.stat().st_mtime_ns)
            elif kept and since == path.stat().st_mtime_ns:
                config = kept  # as the real one: until the file changes
            told = json_format.Parse(config, parse("", "")) if config else parse(path.read_text(), model)
            there = [n for entry in path.parent.iterdir() if (n := version_number(entry.name)) is not None]
            wanted = selected(told.version_policy, there)
            versions = self._loaded.setdefault(model, {})
            for number in wanted:
                if number in self.refuses:
                    versions[number] = ("UNAVAILABLE", self.refuses[number])
                    return f"load failed for model '{model}': version {number} is at UNAVAILABLE state: {self.refuses[number]}"
            for number in wanted:
                versions[number] = ("READY", "")
            for number in set(versions) - set(wanted):
                if versions[number][0] == "READY":
                    versions[number] = ("UNAVAILABLE", "unloaded")
            described = json_format.MessageToDict(told, preserving_proto_field_name=True)
            self._configs[model] = {"name": model, "max_batch_size": 0} | described
            return ""

    def index(self) -> list[dict[str, str]]:
        self.look()
        rows = []
        with self._lock:
            for model in self.models():
                versions = self._loaded.get(model)
                rows += [
                    {"name": model, "version": str(n), "state": state, "reason": reason}
                    for n, (state, reason) in (versions or {}).items()
                ] or [{"name": model}]
        return rows

    def ready(self, model: str, version: str) -> bool:
        self.look()
        return self._loaded.get(model, {}).get(int(version), ("", ""))[0] == "READY"

    def infer(self, model: str, version: int, x: Any) -> Any:
        graph = onnx.load(self.repository / model / str(version) / "model.onnx").graph
        factor = numpy_helper.to_array(graph.initializer[0])[0]
        return x * factor * self.answers_times


def _closed(server: ThreadingHTTPServer) -> None:
    server.shutdown()
    server.server_close()


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    fake: FakeTriton

    def log_message(self, format: str, *args: Any) -> None:  # noqa: A002 (its name in http.server)
        pass

    def do_GET(self) -> None:
        parts = self.path.strip("/").split("/")
        if parts == ["v2"]:
            fake = self.fake
            self._json(200, {"name": fake.name, "version": fake.release, "extensions": fake.extensions})
        elif parts == ["metrics"]:
            self._answer(200, self.fake.metrics.encode(), "text/plain")
        elif parts[:3] == ["v2", "health", "ready"]:
            self._json(200, {})
        elif parts[-1] == "ready":
            self._json(200 if self.fake.ready(parts[2], parts[4]) else 400, {})
        elif parts[-1] == "config":
            config = self.fake._configs.get(parts[2])
            self._json(*((200, config) if config else (404, {"error": "unknown model"})))
        else:
            self._json(404, {"error": f"unknown path {self.path}"})

    def do_POST(self) -> None:
        body = self.rfile.read(int(self.headers.get("Content-Length", 0)))
        parts = self.path.strip("/").split("/")
        if parts == ["v2", "repository", "index"]:
            self._json(200, self.fake.index())
        elif parts[:3] == ["v2", "repository", "models"]:
            self._control(parts[3], parts[4], body)
        elif parts[-1] == "infer":
            self._infer(parts[2], int(parts[4]), body)
        else:
            self._json(404, {"error": f"unknown path {self.path}"})

    def _control(self, model: str, verb: str, body: bytes) -> None:
        if self.fake.restricted:
            self._json(403, {"error": self.fake.restricted})
        elif self.fake.polls or self.fake.frozen:
            self._json(503, {"error": NOT_EXPLICIT})
        elif verb == "unload":
            self.fake._loaded.pop(model, None)
            self._json(200, {})
        else:
            config = json.loads(body or b"{}").get("parameters", {}).get("config")
            try:
                problem = self.fake.load(model, config)
            except ConnectionAbortedError:
                self.connection.close()
                return
            self._json(500, {"error": problem}) if problem else self._json(200, {})

    def _infer(self, model: str, version: int, body: bytes) -> None:
        length = int(self.headers["Inference-Header-Content-Length"])
        header = json.loads(body[:length])["inputs"][0]
        x = np.frombuffer(body[length:], dtype=np.float32).reshape(header["shape"])
        y = self.fake.infer(model, version, x)
        output = {"name": "y", "datatype": "FP32", "shape": list(y.shape), "data": y.ravel().tolist()}
        self._json(200, {"model_name": model, "model_version": str(version), "outputs": [output]})

    def _json(self, status: int, data: Any) -> None:
        self._answer(status, json.dumps(data).encode(), "application/json")

    def _answer(self, status: int, data: bytes, kind: str) -> None:
        self.send_response(status)
        self.send_header("Content-Type", kind)
        self.send_header("Content-Length", str(len(data)))
        self.end_headers()
        self.wfile.write(data)


@contextmanager
def serving(fake: FakeTriton, *loaded: str) -> Iterator[FakeTriton]:
    """The server, with these models loaded; a polling one has all."""
    handler = type("Handler", (_Handler,), {"fake": fake})
    fake._server = ThreadingHTTPServer(("127.0.0.1", 0), handler)
    fake._server.daemon_threads = True
    fake.port = fake._server.server_address[1]
    thread = threading.Thread(target=fake._server.serve_forever, kwargs={"poll_interval": 0.02}, daemon=True)
    thread.start()
    for model in loaded or (fake.models() if fake.polls or fake.frozen else ()):
        fake._take(model, None)
    try:
        yield fake
    finally:
        fake.stop()
        thread.join()
