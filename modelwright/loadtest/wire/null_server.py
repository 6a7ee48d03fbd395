"""A server that only answers, after an exact delay: what a load generator measures against it is the generator's own.

    with null_server("grpc", delay_s=0.005) as server:
        ...                                  # 127.0.0.1:{server.port}
        server.delays().p99_ns               # how exact the server was

    python -m modelwright.loadtest.wire.null_server --protocol http --delay-ms 5

Every HTTP request (a body needs Content-Length) and every unary gRPC call gets the same answer, `delay` after its last
byte was read. It prints its port as a line of JSON; a line on its stdin asks for another, the delays since the last one
in nanoseconds. It ends when stdin is closed, or on SIGTERM. One thread of plain epoll, and only the standard library.
"""

from __future__ import annotations

import argparse
import contextlib
import ctypes
import gc
import json
import os
import select
import signal
import socket
import subprocess
import sys
import tempfile
from array import array
from collections import deque
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from time import monotonic_ns
from typing import Literal

from modelwright.loadtest.wire.null_protocols import BadRequestError, Grpc, Http

_READ_BYTES = 65536
_KEPT = 1_000_000  # delays, the newest


@dataclass(frozen=True)
class Delays:
    """How long the server took, from a request's last byte read to its answer handed to the kernel."""

    count: int
    p50_ns: int
    p99_ns: int
    max_ns: int


@dataclass(frozen=True)
class NullServer:
    port: int
    process: subprocess.Popen[bytes]

    def delays(self) -> Delays:
        """Of the requests since the last call."""
        assert self.process.stdin is not None
        assert self.process.stdout is not None
        self.process.stdin.write(b"delays\n")
        self.process.stdin.flush()
        return Delays(**json.loads(self.process.stdout.readline()))


@contextlib.contextmanager
def null_server(protocol: Literal["http", "grpc"], delay_s: float = 0.0, answer: bytes = b"") -> Iterator[NullServer]:
    """A null server in a process of its own. `answer`: what every request gets, a KServe v2 answer's body or message.

    Raises ServerError when it does not start.
    """
    from modelwright.errors import ServerError

    with tempfile.NamedTemporaryFile(prefix="modelwright-answer-") as file:
        file.write(answer)
        file.flush()
        # -S: it needs no packages, and is up in 50 ms.
        command = [sys.executable, "-S", "-m", "modelwright.loadtest.wire.null_server", f"--protocol={protocol}"]
        command += [f"--delay-ms={delay_s * 1000!r}"]
        command += [f"--answer={file.name}"] if answer else []
        process = subprocess.Popen(
            command,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            env=os.environ | {"PYTHONPATH": str(Path(__file__).parents[3])},
            start_new_session=True,  # Ctrl-C reaches the parent only, which stops this process
        )
        with process:  # closes stdin, which ends it
            assert process.stdout is not None
            assert process.stderr is not None
            first = process.stdout.readline()
            if not first:
                raise ServerError(f"the null server did not start: {process.stderr.read().decode().strip()}")
            yield NullServer(json.loads(first)["port"], process)


# --- the process ------------------------------------------------------------------------------------------------------


class _Server:
    """The event loop: sockets, one timer, stdin.

    The delay is the same for all, so that answers are due in the order in which requests came, and a queue is enough.
    The timer is a timerfd: epoll's own timeouts are whole milliseconds.
    """

    def __init__(self, protocol: str, delay_ns: int, answer: bytes) -> None:
        self._delay_ns = delay_ns
        self._protocol = protocol
        self._answer = answer
        self._due: deque[tuple[int, Http | Grpc, int]] = deque()  # when the request was read, by whom, its stream
        self._delays = array("q")
        self._count = 0
        self._is_stopped = self._is_idle = False
        self._epoll = select.epoll()
        self._timer = _Timer()
        self._connections: dict[int, tuple[socket.socket, Http | Grpc]] = {}
        self._listener = socket.create_server(("127.0.0.1", 0), backlog=1024)
        self._listener.setblocking(False)
        self._epoll.register(self._listener, select.EPOLLIN)
        self._epoll.register(self._timer.fd, select.EPOLLIN | select.EPOLLET)
        with contextlib.suppress(PermissionError):  # stdin is a file or /dev/null, which never closes
            self._epoll.register(0, select.EPOLLIN)

    @property
    def port(self) -> int:
        return int(self._listener.getsockname()[1])

    def run(self) -> None:
        """Until stdin is closed, or `stop`."""
        while not self._is_stopped:
            self._is_idle = True
            polled = self._epoll.poll()
            self._is_idle = False
            for fd, events in polled:
                known = self._connections.get(fd)
                if known is not None:
                    self._serve(fd, *known, events)
                elif fd == self._listener.fileno():
                    self._accept()
                elif fd == 0 and not self._command():
                    return
                if self._due:
                    self._answer_due()

    def stop(self) -> None:
        """For a signal's handler: end at once if nothing happens, else when the events at hand are handled."""
        self._is_stopped = True
        if self._is_idle:
            sys.exit(0)

    def requested(self, connection: Http | Grpc, stream: int = 0) -> None:
        """A request was read to its end."""
        now = monotonic_ns()
        if self._delay_ns:
            if not self._due:
                self._timer.set(now + self._delay_ns)
            self._due.append((now, connection, stream))
        else:
            self._respond(now, connection, stream)

    def wait_writable(self, connection: socket.socket, wanted: bool) -> None:
        self._epoll.modify(connection, select.EPOLLIN | (select.EPOLLOUT if wanted else 0))

    def delays(self) -> Delays:
        """Of the requests since the last call."""
        found = sorted(self._delays)
        count, self._count, self._delays = self._count, 0, array("q")
        if not found:
            return Delays(0, 0, 0, 0)
        return Delays(count, found[len(found) // 2], found[len(found) * 99 // 100], found[-1])

    def _respond(self, read_ns: int, connection: Http | Grpc, stream: int) -> None:
        connection.answer(stream)
        taken = monotonic_ns() - read_ns
        if self._count < _KEPT:
            self._delays.append(taken)
        else:
            self._delays[self._count % _KEPT] = taken
        self._count += 1

    def _answer_due(self) -> None:
        due, delay = self._due, self._delay_ns
        answered = False
        while due and due[0][0] + delay <= monotonic_ns():
            self._respond(*due.popleft())
            answered = True
        if answered and due:
            self._timer.set(due[0][0] + delay)

    def _accept(self) -> None:
        with contextlib.suppress(BlockingIOError, ConnectionError):
            connection, _ = self._listener.accept()
            connection.setblocking(False)
            connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            kind = Grpc if self._protocol == "grpc" else Http
            self._connections[connection.fileno()] = (connection, kind(self, connection, self._answer))
            self._epoll.register(connection, select.EPOLLIN)

    def _serve(self, fd: int, connection: socket.socket, handler: Http | Grpc, events: int) -> None:
        try:
            if events & select.EPOLLOUT:
                handler.flush()
            data = connection.recv(_READ_BYTES)
            if data:
                handler.received(data)
                return
        except BlockingIOError:
            return
        except (ConnectionError, BadRequestError):
            pass
        self._connections.pop(fd, None)
        connection.close()  # epoll forgets it

    def _command(self) -> bool:
        """Whether stdin is still open; each line that came gets its answer."""
        data = os.read(0, 4096)
        for _ in range(data.count(b"\n")):
            _say(vars(self.delays()))
        return bool(data)


class _Timer:
    """One timerfd (Linux), set to an absolute time of CLOCK_MONOTONIC, read by an edge-triggered epoll.

    The standard library has it from Python 3.13 on.
    """

    _CLOCK_MONOTONIC, _ABSOLUTE = 1, 1

    class _Times(ctypes.Structure):
        _fields_ = tuple((name, ctypes.c_long) for name in ("every_s", "every_ns", "at_s", "at_ns"))

    def __init__(self) -> None:
        self._set_time = ctypes.CDLL(None, use_errno=True).timerfd_settime
        self.fd: int = ctypes.CDLL(None).timerfd_create(self._CLOCK_MONOTONIC, os.O_NONBLOCK | os.O_CLOEXEC)
        self._times = self._Times()
        self._reference = ctypes.byref(self._times)

    def set(self, at_ns: int) -> None:
        self._times.at_s, self._times.at_ns = divmod(at_ns, 1_000_000_000)
        self._set_time(self.fd, self._ABSOLUTE, self._reference, None)


def _say(message: dict[str, int]) -> None:
    with contextlib.suppress(BrokenPipeError):  # the parent has ended: stdin is closed, too
        print(json.dumps(message), flush=True)


def main() -> None:
    parser = argparse.ArgumentParser(description="Answer every request alike, after a fixed delay.")
    parser.add_argument("--protocol", choices=["http", "grpc"], required=True)
    parser.add_argument("--delay-ms", type=float, default=0.0)
    parser.add_argument("--answer", type=Path, help="body, or serialised ModelInferResponse, of every answer")
    arguments = parser.parse_args()
    answer = arguments.answer.read_bytes() if arguments.answer else b""
    server = _Server(arguments.protocol, round(arguments.delay_ms * 1e6), answer)
    signal.signal(signal.SIGTERM, lambda *_: server.stop())
    gc.disable()  # nothing here makes cycles, and a collection would be a delay
    _say({"port": server.port})
    try:
        server.run()
    finally:
        _say(vars(server.delays()))


if __name__ == "__main__":
    main()
