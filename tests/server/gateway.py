"""A gateway on this machine: TLS, with a certificate asked of the client, in front of a server that has none.

with gateway(certificates(folder), ("127.0.0.1", 8000)) as address:
    connect(f"https://{address}", access=...)
"""

from __future__ import annotations

import contextlib
import select
import socket
import ssl
import subprocess
import threading
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

_EXTENSIONS = "subjectAltName=IP:127.0.0.1,DNS:localhost\n"


@dataclass(frozen=True)
class Certificates:
    """An authority, and what it signed. All in PEM."""

    authority: Path
    server: Path
    server_key: Path
    client: Path
    client_key: Path


def certificates(folder: Path) -> Certificates:
    def openssl(*arguments: str) -> None:
        subprocess.run(["openssl", *arguments], cwd=folder, check=True, capture_output=True)

    curve = ("-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256", "-nodes")
    openssl("req", "-x509", *curve, "-keyout", "ca.key", "-out", "ca.pem", "-subj", "/CN=authority")
    (folder / "names").write_text(_EXTENSIONS)
    for name in ("server", "client"):
        openssl("req", *curve, "-keyout", f"{name}.key", "-out", f"{name}.csr", "-subj", f"/CN={name}")
        signed = ("-CA", "ca.pem", "-CAkey", "ca.key", "-CAcreateserial", "-extfile", "names")
        openssl("x509", "-req", "-in", f"{name}.csr", *signed, "-out", f"{name}.pem")
    names = ("ca.pem", "server.pem", "server.key", "client.pem", "client.key")
    return Certificates(*(folder / name for name in names))


@contextlib.contextmanager
def gateway(made: Certificates, behind: tuple[str, int]) -> Iterator[str]:
    """Its `host:port`. Each connection is passed on as it is."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(made.server, made.server_key)
    context.load_verify_locations(made.authority)
    context.verify_mode = ssl.CERT_REQUIRED
    listener = socket.create_server(("127.0.0.1", 0))

    def accept() -> None:
        with contextlib.suppress(OSError):
            while True:
                plain, _ = listener.accept()
                threading.Thread(target=_pass_on, args=(context, plain, behind), daemon=True).start()

    accepting = threading.Thread(target=accept)
    accepting.start()
    try:
        yield f"127.0.0.1:{listener.getsockname()[1]}"
    finally:
        listener.shutdown(socket.SHUT_RDWR)  # wakes accept()
        listener.close()
        accepting.join()


def _pass_on(context: ssl.SSLContext, plain: socket.socket, behind: tuple[str, int]) -> None:
    with plain, contextlib.suppress(OSError):
        plain.settimeout(60)
        with context.wrap_socket(plain, server_side=True) as front, socket.create_connection(behind, 60) as back:
            _copy(front, back)


def _copy(front: ssl.SSLSocket, back: socket.socket) -> None:
    """Both ways, in one thread: two must not use a TLS connection at a time."""
    while True:
        ready = [front] if front.pending() else select.select([front, back], [], [], 60)[0]
        if not ready:
            return
        for source, target in ((front, back), (back, front)):
            if source in ready:
                data = source.recv(65536)
                if not data:
                    return
                target.sendall(data)
