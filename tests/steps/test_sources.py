"""What URIs lead to, where the other side or this machine is at fault."""

from __future__ import annotations

import socket
import threading
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

import pytest

from modelwright.errors import DiskFullError, StepError
from modelwright.project.fetching import FetchLimits
from modelwright.project.source_lock import LockedFile
from modelwright.steps.sources import http
from modelwright.steps.sources.download import _copy, download
from modelwright.steps.sources.registry import open_source
from modelwright.steps.sources.resolve import Resolver, Selection
from tests.web import WebFiles


def test_a_server_whose_headers_never_end_is_left(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(http, "ANSWER_S", 0.3)
    with dripping("HTTP/1.1 200 OK\r\nX-Slow: ") as address, pytest.raises(StepError, match=r"no answer after 0.3 s"):
        Resolver(tmp_path).resolve(f"http://{address}/m.onnx", Selection())


@contextmanager
def dripping(start: str) -> Iterator[str]:
    """A server that answers one request with `start`, and then one byte after the other."""
    done = threading.Event()

    def drip(server: socket.socket) -> None:
        connection, _ = server.accept()
        with connection, suppress(OSError):
            connection.sendall(start.encode())
            while not done.wait(0.05):
                connection.sendall(b"x")

    with socket.create_server(("127.0.0.1", 0)) as server:
        thread = threading.Thread(target=drip, args=(server,), daemon=True)
        thread.start()
        yield f"127.0.0.1:{server.getsockname()[1]}"
        done.set()
        thread.join()


@pytest.mark.parametrize(
    "start",
    ["Transfer-Encoding: chunked\r\n\r\n5;", "Transfer-Encoding: chunked\r\n\r\n1\r\nx\r\n5;"],
    ids=["first", "later"],
)
def test_a_server_whose_piece_never_ends_is_left(start: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """It is never silent, and no byte of the file comes: it says ever more of how long the next piece is."""
    monkeypatch.setattr(http, "_SILENCE_S", 0.5)
    with dripping(f"HTTP/1.1 200 OK\r\n{start}") as address:
        source = open_source(f"http://{address}/m.onnx")
        with pytest.raises(StepError, match=r"m.onnx: nothing came for 0.5 s"):
            download(source, "m.onnx", tmp_path / "part", FetchLimits())


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
