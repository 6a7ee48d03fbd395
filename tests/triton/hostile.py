"""A server on this machine that answers whatever a test wants: bytes, once or without an end, fast or slow.

with Hostile(http_answer(b"null")) as hostile:
    connect(hostile.url).index()
"""

from __future__ import annotations

import contextlib
import socket
import threading
from collections.abc import Iterator


def http_answer(body: bytes, *headers: str, status: str = "200 OK") -> bytes:
    head = "".join(f"{line}\r\n" for line in (f"HTTP/1.1 {status}", f"Content-Length: {len(body)}", *headers))
    return head.encode() + b"\r\n" + body


class Hostile:
    """Reads the head of a request, sends `answer`, then `endless` again and again every `every_s` seconds.

    With `endless` a connection ends when the client closes it, else after the answer.
    """

    def __init__(self, answer: bytes, endless: bytes = b"", every_s: float = 0.0) -> None:
        self._answer, self._endless, self._every_s = answer, endless, every_s
        self._is_over = threading.Event()

    def __enter__(self) -> Hostile:
        self._listener = socket.create_server(("127.0.0.1", 0))
        self.url = f"http://127.0.0.1:{self._listener.getsockname()[1]}"
        self._thread = threading.Thread(target=self._accept)
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._is_over.set()
        with contextlib.suppress(OSError), socket.create_connection(self._listener.getsockname()):
            pass
        self._thread.join()
        self._listener.close()

    def _accept(self) -> None:
        while not self._is_over.is_set():
            connection, _ = self._listener.accept()
            with connection, contextlib.suppress(OSError):
                connection.settimeout(5)
                for piece in self._pieces(connection):
                    connection.sendall(piece)

    def _pieces(self, connection: socket.socket) -> Iterator[bytes]:
        head = b""
        while b"\r\n\r\n" not in head:
            piece = connection.recv(65536)
            if not piece:
                return
            head += piece
        yield self._answer
        while self._endless and not self._is_over.wait(self._every_s):
            yield self._endless
