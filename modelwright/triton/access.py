"""How a server at a URL is reached: the parts of its address, headers that a gateway wants, certificates, a limit.

One `Access` serves all URLs of a command. Its headers can be secrets: they are in no message, document or `repr`.
"""

from __future__ import annotations

import importlib
import re
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Literal
from urllib.parse import urlsplit

from modelwright.errors import ServerError
from modelwright.text import printable, size

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

PORTS = {"http": 8000, "https": 443, "grpc": 8001, "grpcs": 443}
MAX_ANSWER_BYTES = 2**31 - 1  # what one message of gRPC carries at most

_NAME = re.compile(r"[!#$%&'*+.^_`|~0-9A-Za-z-]+")  # a token of RFC 9110
_VALUE = re.compile(r"[\t\x20-\x7e]*")
# They say how long a message is and how it is encoded, which the client decides.
_RESERVED = {
    *("accept-encoding", "connection", "content-encoding", "content-length", "content-type", "expect", "host"),
    *("inference-header-content-length", "te", "trailer", "transfer-encoding", "upgrade"),
}
_HEADER_OPTIONS = ("--header", "--heade")  # Locust's parser takes what is enough to tell it from its own --headless
_URL_HINT = "write http://host:port or grpc://host:port"


@dataclass(frozen=True)
class Access:
    """What every request to a server carries, and how much of an answer is taken in.

    The files are PEM. Without `ca_cert` the system's authorities are trusted; a `client_cert` may have its key in the
    same file.
    """

    headers: tuple[tuple[str, str], ...] = field(default=(), repr=False)
    ca_cert: str = ""
    client_cert: str = ""
    client_key: str = ""
    max_answer_bytes: int = MAX_ANSWER_BYTES

    @staticmethod
    def of(data: Mapping[str, Any]) -> Access:
        """From what `asdict` makes of one, or JSON of that."""
        return Access(**{**data, "headers": tuple((name, value) for name, value in data.get("headers", ()))})

    @property
    def has_certificates(self) -> bool:
        return bool(self.ca_cert or self.client_cert or self.client_key)

    def tls_context(self, module: Any = None) -> Any:
        """A context of `module`, which is ssl or gevent's. Raises ServerError naming the file that cannot be used."""
        module = module or importlib.import_module("ssl")  # late: it takes longer to import than a plan to make
        # Not create_default_context: that of gevent makes the standard library's contexts, unless it has patched it.
        context = module.SSLContext(module.PROTOCOL_TLS_CLIENT)  # checks certificates and host names
        try:
            if self.ca_cert:
                context.load_verify_locations(self.ca_cert)
            else:
                context.load_default_certs()
        except OSError as error:
            raise ServerError(
                f"--ca-cert {self.ca_cert}: {_reason(error)}", "it must be a file in PEM format"
            ) from None
        if self.client_cert:
            try:
                # An encrypted key would ask for its password on the terminal, and hang a pipeline.
                context.load_cert_chain(self.client_cert, self.client_key or None, password=_no_password)
            except (OSError, ValueError) as error:
                files = " and ".join(filter(None, (self.client_cert, self.client_key)))
                hint = "both must be in PEM format, belong together, and the key must not be encrypted"
                raise ServerError(f"--client-cert {files}: {_reason(error)}", hint) from None
        return context

    def too_large(self, where: str) -> ServerError:
        """The error for an answer above the limit."""
        return ServerError(
            f"{where}: its answer is larger than {size(self.max_answer_bytes)}",
            "if it is what the model answers, raise the limit: --max-answer GB",
        )


NO_ACCESS = Access()


@dataclass(frozen=True)
class Address:
    """Where a server listens."""

    scheme: str  # http, https, grpc or grpcs
    host: str
    port: int
    access: Access = NO_ACCESS

    @property
    def protocol(self) -> Literal["http", "grpc"]:
        return "grpc" if self.scheme.startswith("grpc") else "http"

    @property
    def is_tls(self) -> bool:
        return self.scheme.endswith("s")

    @property
    def authority(self) -> str:
        host = f"[{self.host}]" if ":" in self.host else self.host
        return f"{host}:{self.port}"

    @property
    def url(self) -> str:
        return f"{self.scheme}://{self.authority}"


def address_of(url: str, access: Access = NO_ACCESS) -> Address:
    """`http://host:port`, `https://…`, `grpc://…`, `grpcs://…`, or `host:port`, which means HTTP.

    Raises ServerError for anything else, and for certificates that cannot be used. A login in the URL is refused, since
    URLs are printed and recorded.
    """
    try:
        parts = urlsplit(url if "://" in url else f"http://{url}")
        port = parts.port
    except ValueError:
        raise ServerError(f"'{printable(url)}' is not the URL of a server", _URL_HINT) from None
    if parts.username is not None or parts.password is not None:
        hint = "give it as a header: --header 'Authorization=Basic …'"
        raise ServerError(f"{parts.scheme}://…@{printable(parts.hostname or '')}: a login in the URL", hint)
    if parts.scheme not in PORTS or not parts.hostname or parts.path.strip("/") or parts.query or parts.fragment:
        raise ServerError(f"'{printable(url)}' is not the URL of a server", _URL_HINT)
    address = Address(parts.scheme, parts.hostname, PORTS[parts.scheme] if port is None else port, access)
    _check_certificates(address)
    return address


def _check_certificates(address: Address) -> None:
    access = address.access
    if access.has_certificates and not address.is_tls:
        raise ServerError(
            f"{address.url}: --ca-cert, --client-cert and --client-key are for encrypted connections",
            f"give the URL as {address.scheme}s://{address.authority}, or leave them out",
        )
    if access.client_key and not access.client_cert:
        raise ServerError("--client-key: needs --client-cert FILE, the certificate that it belongs to")
    if access.has_certificates:
        access.tls_context()


def headers_of(given: Iterable[str]) -> tuple[tuple[str, str], ...]:
    """`NAME=VALUE` of each. Raises ServerError for what cannot be a header, without its value."""
    found = []
    for text in given:
        name, equals, value = text.partition("=")
        name, value = name.strip(), value.strip()
        if not equals or not _NAME.fullmatch(name):
            # What was given may be a secret in the wrong form, so it is not repeated.
            raise ServerError("--header: must be NAME=VALUE", "such as --header 'Authorization=Bearer …'")
        if name.lower() in _RESERVED or name.lower().startswith("grpc-"):
            raise ServerError(f"--header {name}: is set by the client itself", "leave it out")
        if not _VALUE.fullmatch(value):
            raise ServerError(f"--header {name}: its value has characters that no header can have")
        found.append((name, value))
    return tuple(found)


def without_secrets(arguments: Iterable[str]) -> list[str]:
    """A command line as it may be recorded: values of headers are left out."""
    found, is_header = [], False
    for argument in arguments:
        option, equals, value = argument.partition("=")
        if is_header:
            argument = f"{option if equals else '…'}=…"
        elif equals and option in _HEADER_OPTIONS:
            name, equals, _ = value.partition("=")
            argument = f"{option}={name if equals else '…'}=…"
        is_header = argument in _HEADER_OPTIONS
        found.append(argument)
    return found


def _no_password() -> str:
    return ""


def _reason(error: OSError | ValueError) -> str:
    return getattr(error, "strerror", None) or str(error) or type(error).__name__
