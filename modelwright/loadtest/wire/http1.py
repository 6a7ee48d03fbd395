"""Requests over HTTP/1.1, at 30 microseconds of CPU a request.

A request's bytes, head and body, are prepared once and sent as they are. Only the status and the length of an answer
are read: Triton sends `Content-Length` with every answer to an inference. The caller parses the body if it needs to.
"""

from __future__ import annotations

import json
import re

from modelwright.loadtest.wire.calls import CallError, Connection, too_large

_LENGTH = re.compile(rb"\r\ncontent-length: *(\d{1,18})\r\n", re.IGNORECASE)
_CLOSES = re.compile(rb"\r\nconnection: *close\r\n", re.IGNORECASE)
_BREAK = b"\r\n\r\n"
_MAX_HEAD = 64 * 1024


class HttpConnection(Connection):
    """One HTTP/1.1 connection, kept alive; one request at a time."""

    def call(self, request: bytes) -> tuple[bytes, bytes]:
        """Send a whole request; (head, body) of the answer. Raises CallError for any status but 200."""
        self._begin()
        if self._socket is None:
            self._open(["http/1.1"])
        self._send(request)
        data = self._receive()
        end = data.find(_BREAK)
        while end < 0:
            if len(data) > _MAX_HEAD:
                raise self._malformed_response(data)
            data += self._receive()
            end = data.find(_BREAK)
        start = end + 4
        head = data[:start]
        length = _LENGTH.search(head)
        if length is None or not head.startswith(b"HTTP/"):
            raise self._malformed_response(data)
        if int(length[1]) > self.address.access.max_answer_bytes:
            self.close()
            raise too_large(int(length[1]), self.address.access)
        missing = int(length[1]) - (len(data) - start)
        body = self._rest(data[start:], missing) if missing else data[start:]
        if _CLOSES.search(head):
            self.close()
        if head[9:12] != b"200":
            raise _refusal(head, body)
        return head, body

    def _rest(self, begun: bytes, missing: int) -> bytes:
        parts = [begun]
        while missing > 0:
            parts.append(self._receive())
            missing -= len(parts[-1])
        if missing < 0:  # the surplus would be read as the next answer
            raise self._malformed_response(b"".join(parts))
        return b"".join(parts)

    def _malformed_response(self, data: bytes) -> CallError:
        self.close()
        start = data[:60].decode("latin-1")
        return CallError("not HTTP", f"{self.address.authority} does not answer as a Triton server does: {start!r}")


def _refusal(head: bytes, body: bytes) -> CallError:
    """Triton says why in `{"error": "…"}`."""
    try:
        message = str(json.loads(body)["error"])
    except (ValueError, KeyError, TypeError):
        message = body[:200].decode("utf-8", "replace")
    return CallError(f"HTTP {head[9:12].decode('latin-1')}", message)


def post(authority: str, path: str, body: bytes, headers: dict[str, str]) -> bytes:
    """The bytes of a POST. `identity`: else Triton compresses its answers, and the load test measures that."""
    lines = {
        "Host": authority,
        "Content-Length": str(len(body)),
        "Accept-Encoding": "identity",
        "Content-Type": "application/octet-stream",
        **headers,
    }
    head = "".join(f"{name}: {value}\r\n" for name, value in lines.items())
    return f"POST {path} HTTP/1.1\r\n{head}\r\n".encode() + body
