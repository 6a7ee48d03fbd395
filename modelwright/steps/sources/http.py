"""https:// URIs, by the standard library: proxies as the environment has them, redirects to https alone."""

from __future__ import annotations

import http.client
import math
import socket
import threading
import time
import urllib.error
import urllib.request
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from typing import Any
from urllib.parse import quote, urljoin, urlsplit, urlunsplit

from modelwright import __version__
from modelwright.errors import StepError, one_line
from modelwright.project.uris import file_name, is_loopback
from modelwright.steps.sources.source import CHUNK, CannotSeekError, RemoteSource

_SILENCE_S = 60  # between two pieces
ANSWER_S = 120.0  # until the headers of an answer are there
_REDIRECTS_HINT = "only redirects to https:// are followed; name the address of the file itself"
_HINTS = {
    401: "the file needs a login, which is not supported: put it into a store, or into the builder's folder",
    403: "the file needs a login, which is not supported: put it into a store, or into the builder's folder",
    404: "see to the address",
    410: "see to the address",
}


def open_http(uri: str) -> RemoteSource:
    """Raises StepError for what is not there or does not answer."""
    return _HttpSource(uri)


class _HttpSource(RemoteSource):
    is_folder = False

    def __init__(self, uri: str) -> None:
        self.resolved = uri
        self._name = file_name(uri)

    def files(self) -> dict[str, int]:
        with self._opened(self.resolved, _Line()) as answer:
            return {self._name: _length(answer)}

    @contextmanager
    def read(self, name: str, offset: int = 0) -> Iterator[Iterator[bytes]]:
        uri = self.resolved if name == self._name else _beside(self.resolved, name)
        line = _Line()
        with self._opened(uri, line, offset) as answer, line.watched() as awaits:
            yield self._pieces(uri, answer, line, awaits)

    @contextmanager
    def _opened(self, uri: str, line: _Line, offset: int = 0) -> Iterator[http.client.HTTPResponse]:
        headers = {"User-Agent": f"modelwright/{__version__}", "Accept-Encoding": "identity"}
        if offset:
            headers["Range"] = f"bytes={offset}-"
        request = urllib.request.Request(uri, headers=headers)  # noqa: S310  (https, or this machine)
        try:
            with _answer(request, line) as answer:
                if offset and answer.status != http.HTTPStatus.PARTIAL_CONTENT:
                    raise CannotSeekError(f"{uri}: the server gives whole files only")
                yield answer
        except urllib.error.HTTPError as error:
            error.close()
            if offset and error.code == http.HTTPStatus.REQUESTED_RANGE_NOT_SATISFIABLE:
                raise CannotSeekError(f"{uri}: the file is shorter now") from None
            hint = _REDIRECTS_HINT if 300 <= error.code < 400 else _HINTS.get(error.code, "try again later")
            raise StepError(f"{uri}: the server answers {error.code} {error.reason}", hint) from None
        except (urllib.error.URLError, http.client.HTTPException, OSError, ValueError) as error:
            raise _fault(uri, error) from None

    def _pieces(
        self, uri: str, answer: http.client.HTTPResponse, line: _Line, awaits: Callable[[bool], None]
    ) -> Iterator[bytes]:
        left = _length(answer)
        try:
            while piece := answer.read1(CHUNK):
                left -= len(piece)
                awaits(False)
                yield piece
                awaits(True)
        except (http.client.HTTPException, OSError) as error:
            raise _fault(uri, _silence() if line.late.is_set() else error) from None
        if line.late.is_set():
            raise _fault(uri, _silence())
        if left > 0:
            raise StepError(f"{uri}: the connection ended {left:,} bytes too early", "run the same command again")


class _Redirects(urllib.request.HTTPRedirectHandler):
    def redirect_request(self, req: Any, fp: Any, code: int, msg: str, headers: Any, newurl: str) -> Any:
        if not (newurl.startswith("https://") or (is_loopback(newurl) and is_loopback(req.full_url))):
            where = f"{urlsplit(newurl).scheme}://{urlsplit(newurl).hostname or ''}"
            fp.close()
            raise StepError(f"{req.full_url}: leads to {where}", _REDIRECTS_HINT)
        return super().redirect_request(req, fp, code, msg, headers, newurl)


class _Line:
    """The sockets of one request. They can be ended: a server that sends byte by byte is never silent."""

    def __init__(self) -> None:
        self.sockets: list[Any] = []
        self.late = threading.Event()

    def end(self) -> None:
        self.late.set()
        for item in self.sockets:
            with suppress(OSError):
                item.shutdown(socket.SHUT_RDWR)

    def class_of(self, kind: Any) -> Any:
        """A class of connections that are part of this line."""
        sockets = self.sockets

        class Connection(kind):  # type: ignore[misc]
            def connect(self) -> None:
                super().connect()
                sockets.append(self.sock)

        return Connection

    @contextmanager
    def watched(self) -> Iterator[Callable[[bool], None]]:
        """Yields what is told whether a piece is awaited. Ends the line where one is for longer than may be."""
        last, done = [time.monotonic()], threading.Event()

        def watch() -> None:
            while not done.wait(_SILENCE_S / 20):
                if time.monotonic() - last[0] > _SILENCE_S:
                    self.end()
                    return

        def awaits(piece: bool) -> None:
            last[0] = time.monotonic() if piece else math.inf

        thread = threading.Thread(target=watch, daemon=True)
        thread.start()
        try:
            yield awaits
        finally:
            done.set()


class _Http(urllib.request.HTTPHandler):
    def __init__(self, line: _Line) -> None:
        super().__init__()
        self._class = line.class_of(http.client.HTTPConnection)

    def http_open(self, req: Any) -> Any:
        return self.do_open(self._class, req)


class _Https(urllib.request.HTTPSHandler):
    def __init__(self, line: _Line) -> None:
        super().__init__()
        self._class = line.class_of(http.client.HTTPSConnection)

    def https_open(self, req: Any) -> Any:
        return self.do_open(self._class, req)


def _answer(request: urllib.request.Request, line: _Line) -> Any:
    """The answer, once its headers are there. Raises OSError where that takes too long."""
    timer = threading.Timer(ANSWER_S, line.end)
    timer.daemon = True
    timer.start()
    try:
        return _opener(request.full_url, line).open(request, timeout=_SILENCE_S)
    except (OSError, http.client.HTTPException):
        if line.late.is_set():
            raise TimeoutError(f"no answer after {ANSWER_S:g} s") from None
        raise
    finally:
        timer.cancel()


def _opener(url: str, line: _Line) -> urllib.request.OpenerDirector:
    """No file:// and ftp:// handlers: a redirect leads nowhere but to a web server. No proxy leads to this machine."""
    opener = urllib.request.OpenerDirector()
    for handler in (
        urllib.request.ProxyHandler({} if is_loopback(url) else None),
        _Http(line),
        _Https(line),
        urllib.request.HTTPDefaultErrorHandler(),
        urllib.request.HTTPErrorProcessor(),
        _Redirects(),
    ):
        opener.add_handler(handler)
    return opener


def _beside(uri: str, name: str) -> str:
    """The URL of a file beside another one: the query stays, since a version may stand in it."""
    parts = urlsplit(uri)
    return urlunsplit(parts._replace(path=urljoin(parts.path, quote(name))))


def _silence() -> TimeoutError:
    return TimeoutError(f"nothing came for {_SILENCE_S:g} s")


def _length(answer: http.client.HTTPResponse) -> int:
    return answer.length if answer.length is not None else -1


def _fault(uri: str, error: Exception) -> StepError:
    reason = getattr(error, "reason", error)
    text = one_line(reason) if isinstance(reason, BaseException) else str(reason)
    return StepError(f"{uri}: {text or type(error).__name__}", "see to the address and the network, and run it again")
