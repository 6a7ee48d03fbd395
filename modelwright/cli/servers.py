"""The options of every command that has servers follow a change."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING, Any, TypeVar

import click

from modelwright.cli.command import Finite

if TYPE_CHECKING:
    from modelwright.fleet.follow import Servers, Terms

F = TypeVar("F", bound=Callable[..., Any])


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
    return function


def terms_of(options: dict[str, Any]) -> Terms:
    """What `server_options` gave."""
    from modelwright.fleet.follow import Terms

    return Terms(options["timeout_s"], options["allow_other_release"], options["ignore_memory"])


@contextlib.contextmanager
def following(options: dict[str, Any], *, as_data: bool) -> Iterator[Servers | None]:
    """The servers that are to follow; takes what `server_options` gave out of the options. None without --url."""
    urls = options.pop("urls")
    given = {name: options.pop(name) for name in ("watch", "timeout_s", "allow_other_release", "ignore_memory")}
    if not urls:
        yield None
        return
    from modelwright.cli.watch import watcher_for
    from modelwright.fleet.follow import Servers

    with watcher_for(watch=given["watch"], as_data=as_data) as watcher:
        yield Servers(urls, terms_of(given), watcher)
