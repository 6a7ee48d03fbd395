"""`serve`, `infer` and `verify`: what needs a server."""

from __future__ import annotations

import json
import signal
import sys
from contextlib import suppress
from typing import Any

import click

from modelwright.api import Project
from modelwright.cli.command import as_json, command, json_option, names_argument, progress, quiet
from modelwright.errors import ModelwrightError, ServerError


@click.command("serve")
@click.option("--http-port", default=8000, show_default=True)
@click.option("--grpc-port", default=8001, show_default=True)
@click.option("--metrics-port", default=8002, show_default=True)
@click.option("--poll", is_flag=True, help="Follow changes of the repository (default: models load once, or by API).")
@click.option("--environment", default="", metavar="NAME", help="With configs/NAME.pbtxt, where a model has one.")
@command
def serve_command(
    project: Project, http_port: int, grpc_port: int, metrics_port: int, poll: bool, environment: str
) -> None:
    """Serve the repository with a local tritonserver."""
    from modelwright.cli import tables
    from modelwright.server.local import Ports

    # Service managers send SIGTERM. It stops the server as Ctrl-C does: requests in flight may finish.
    signal.signal(signal.SIGTERM, signal.default_int_handler)
    ports = Ports(http_port, grpc_port, metrics_port)
    with project.serve(ports=ports, poll=poll, environment=environment, say=click.echo) as served:
        tables.print_served(project.config, served, environment)
        with suppress(KeyboardInterrupt):
            served.wait()
            raise ServerError(f"tritonserver ended by itself; see {project.config.shown(served.log)}")


@click.command("infer")
@click.argument("name")
@click.option(
    "--url", help="http://host:port or grpc://host:port; default: the server of `serve`, else one for this call."
)
@click.option("--version", "model_version", default="", help="Default: the newest that is served.")
@click.option("--sample", default=0, show_default=True, help="Which golden sample to send.")
@click.option("--input", "given", multiple=True, metavar="NAME=JSON", help="Send this instead of a sample.")
@click.option("--top", default=3, show_default=True, help="How many classes to show.")
@json_option
@command
def infer_command(
    project: Project,
    name: str,
    url: str | None,
    model_version: str,
    sample: int,
    given: tuple[str, ...],
    top: int,
    as_data: bool,
) -> None:
    """Send a sample; print the answer, with labels."""
    from modelwright.cli import tables

    inputs = dict(map(_input, given))
    answer = project.infer(name, inputs, url=url, version=model_version, sample=sample, top=top, say=progress)
    as_json(tables.answer_as_data(answer)) if as_data else tables.print_answer(answer)


def _input(given: str) -> tuple[str, Any]:
    """NAME=JSON: the name and the value."""
    name, equals, text = given.partition("=")
    if not equals:
        raise ModelwrightError(f"--input {given}: must be NAME=JSON", "such as --input 'x=[[1, 2]]'")
    try:
        return name, json.loads(text)
    except ValueError as error:
        hint = f"a string is written with its quotes: --input '{name}=[\"some text\"]'"
        raise ModelwrightError(f"--input {name}: not JSON: {error}", hint) from None


@click.command("verify")
@names_argument
@click.option(
    "--url", "urls", multiple=True, help="A server to check; may be repeated. Default: a local one, both protocols."
)
@json_option
@command
def verify_command(project: Project, names: tuple[str, ...], urls: tuple[str, ...], as_data: bool) -> None:
    """Replay golden samples against any server."""
    from modelwright.cli import tables

    results = project.verify(names, urls=urls, say=quiet if as_data else progress)
    as_json(tables.replays_as_data(results)) if as_data else tables.print_replays(results)
    if any(result.verdict == "failed" for result in results):
        sys.exit(1)
