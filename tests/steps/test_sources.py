"""What URIs lead to, where the other side or this machine is at fault."""

from __future__ import annotations

import socket
import threading
from pathlib import Path

import pytest

from modelwright.errors import DiskFullError, StepError
from modelwright.project.fetching import FetchLimits
from modelwright.project.source_lock import LockedFile
from modelwright.steps.sources import http
from modelwright.steps.sources.download import _copy
from modelwright.steps.sources.registry import open_source
from modelwright.steps.sources.resolve import Resolver, Selection
from tests.web import WebFiles


def test_a_server_whose_headers_never_end_is_left(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(http, "ANSWER_S", 0.3)
    done = threading.Event()

    def drip(server: socket.socket) -> None:
        connection, _ = server.accept()
        with connection:
            try:
                connection.sendall(b"HTTP/1.1 200 OK\r\nX-Slow: ")
                while not done.wait(0.05):
                    connection.sendall(b"x")
            except OSError:
                pass

    with socket.create_server(("127.0.0.1", 0)) as server:
        thread = threading.Thread(target=drip, args=(server,), daemon=True)
        thread.start()
        with pytest.raises(StepError, match=r"m.onnx: no answer after 0.3 s"):
            Resolver(tmp_path).resolve(f"http://127.0.0.1:{server.getsockname()[1]}/m.onnx", Selection())
        done.set()
        thread.join()


def test_a_proxy_is_not_asked_for_this_machine(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("http_proxy", "http://127.0.0.1:9")
    monkeypatch.delenv("no_proxy", raising=False)
    with WebFiles({"/m.onnx": b"\0\1\2"}) as web:
        assert Resolver(tmp_path).resolve(web.url("/m.onnx"), Selection()).size_bytes == 3


def test_a_full_disk_is_not_taken_for_a_fault_of_the_network(tmp_path: Path) -> None:
    """/dev/full answers each write as a full disk does."""
    if not Path("/dev/full").exists():
        pytest.skip("no /dev/full here")
    part = tmp_path / "part"
    part.symlink_to("/dev/full")
    data = bytes(1 << 20)
    with WebFiles({"/m.onnx": data}) as web, pytest.raises(DiskFullError, match=r"part: No space left"):
        _copy(open_source(web.url("/m.onnx")), "m.onnx", part, FetchLimits(), LockedFile("", len(data)), 0)
