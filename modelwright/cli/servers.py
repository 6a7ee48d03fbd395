"""The options of every command that talks to servers at URLs."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING, Any, TypeVar

import click

from modelwright.cli.command import Finite
from modelwright.errors import ServerError

if TYPE_CHECKING:
    from modelwright.fleet.follow import Servers, Terms
    from modelwright.triton.access import Access

F = TypeVar("F", bound=Callable[..., Any])


ACCESS = ("headers", "ca_cert", "client_cert", "client_key", "max_answer_gb")
_pem = click.Path(exists=True, dir_okay=False)
_BYTES_PER_GB = 1_000_000_000


def access_options(function: F) -> F:
    """How servers at URLs are reached; `access_of` makes an Access of them."""
    for option in (
        click.option(
            "--max-answer",
            "max_answer_gb",
            type=Finite(0, min_open=True),
            metavar="GB",
            help="How much of an answer is taken in; default: 2, what a message of gRPC can have.",
        ),
        click.option(
            "--client-key", type=_pem, metavar="FILE", help="The key of --client-cert, if it is not in there."
        ),
        click.option("--client-cert", type=_pem, metavar="FILE", help="What this client shows of itself, in PEM."),
        click.option(
            "--ca-cert",
            type=_pem,
            metavar="FILE",
            help="Who signed the server's certificate, in PEM, for https, grpcs.",
        ),
        click.option(
            "--header",
            "headers",
            multiple=True,
            metavar="NAME=VALUE",
            help="Goes with every request to a --url; may be repeated. Its value is shown and recorded nowhere.",
        ),
    ):
        function = option(function)
    return function


def access_of(options: dict[str, Any]) -> Access:
    """What `access_options` gave, taken out of the options. Raises ServerError for what is no header."""
    from modelwright.triton.access import MAX_ANSWER_BYTES, Access, headers_of

    given = {name: options.pop(name) for name in ACCESS}
    most = given["max_answer_gb"]
    return Access(
        headers_of(given["headers"]),
        given["ca_cert"] or "",
        given["client_cert"] or "",
        given["client_key"] or "",
        max(1, int(most * _BYTES_PER_GB)) if most else MAX_ANSWER_BYTES,
    )


def needs_url(access: Access, urls: Any) -> None:
    """Raises ServerError where headers or certificates are given and no server to use them with."""
    if not urls and (access.headers or access.has_certificates):
        raise ServerError("--header, --ca-cert, --client-cert: are for servers at --url", "give --url URL")


def server_options(function: F) -> F:
    """How servers follow: `urls`, `timeout_s`, `allow_other_release`, `ignore_memory`, `watch`."""
    for option in (
        click.option("--watch", is_flag=True, help="Show how it goes, server by server."),
        click.option("--ignore-memory", is_flag=True, help="Also where a server has too little memory for both."),
        click.option(
            "--allow-other-release", is_flag=True, help="Also servers of another Triton release than the project's."
        ),
        click.option(
            "--timeout",
            "timeout_s",
            type=Finite(0, min_open=True),
            default=120.0,
            show_default=True,
            metavar="SECONDS",
            help="What each server gets to load, or to notice, a change.",
        ),
        click.option(
            "--url",
            "urls",
            multiple=True,
            help="A server that is to follow: http://host:port or grpc://host:port; may be repeated.",
        ),
    ):
        function = option(function)
    return access_options(function)


def terms_of(options: dict[str, Any]) -> Terms:
    """What `server_options` gave; access is taken out of the options."""
    from modelwright.fleet.follow import Terms

    access = access_of(options)
    needs_url(access, options["urls"] or options.get("canary"))
    return Terms(options["timeout_s"], options["allow_other_release"], options["ignore_memory"], access)


@contextlib.contextmanager
def following(options: dict[str, Any], *, as_data: bool) -> Iterator[Servers | None]:
    """The servers that are to follow; takes what `server_options` gave out of the options. None without --url."""
    terms = terms_of(options)
    urls = options.pop("urls")
    given = {name: options.pop(name) for name in ("watch", "timeout_s", "allow_other_release", "ignore_memory")}
    if not urls:
        yield None
        return
    from modelwright.cli.watch import watcher_for
    from modelwright.fleet.follow import Servers

    with watcher_for(watch=given["watch"], as_data=as_data) as watcher:
        yield Servers(urls, terms, watcher)
