"""`serve`, `infer` and `verify`: what needs a server."""

from __future__ import annotations

import json
import sys
from contextlib import suppress
from dataclasses import asdict
from typing import TYPE_CHECKING, Any

import click

from modelwright.api import Project
from modelwright.cli import tables
from modelwright.cli.command import (
    as_json,
    command,
    json_option,
    names_argument,
    progress,
    quiet,
    startup_timeout_option,
    stopped_code,
)
from modelwright.cli.servers import access_of, access_options, needs_url
from modelwright.cli.terminal import say
from modelwright.errors import ModelwrightError, ServerError
from modelwright.project.project import ProjectConfig

if TYPE_CHECKING:
    from modelwright.operations.infer import Answer
    from modelwright.server.session import Served

_MOST_VALUES = 8  # of an output, that are shown


@click.command("serve")
@click.option("--http-port", default=8000, show_default=True)
@click.option("--grpc-port", default=8001, show_default=True)
@click.option("--metrics-port", default=8002, show_default=True)
@click.option("--poll", is_flag=True, help="Follow changes of the repository (default: models load once, or by API).")
@click.option("--environment", default="", metavar="NAME", help="Use configs/NAME.pbtxt of models that have one.")
@startup_timeout_option
@command
def serve_command(
    project: Project, http_port: int, grpc_port: int, metrics_port: int, poll: bool, environment: str
) -> None:
    """Serve the repository with a local tritonserver, until Ctrl-C (exit code 130) or SIGTERM (143).

    Requests in flight may finish. Exit code 1: the server ended by itself, or did not start.
    """
    from modelwright.server.local import Ports

    ports = Ports(http_port, grpc_port, metrics_port)
    with project.serve(ports=ports, poll=poll, environment=environment, say=say) as served:
        _print_served(project.config, served, environment)
        with suppress(KeyboardInterrupt):
            served.wait()
            raise ServerError(f"tritonserver ended by itself; see {project.config.shown(served.log)}")
    sys.exit(stopped_code())


def _print_served(project: ProjectConfig, served: Served, environment: str) -> None:
    """Where a server answers, and with which models."""
    from modelwright.operations.serve import configured
    from modelwright.server.environment import SERVER_VERSION
    from modelwright.server.native import NativeServer

    made = served.environment
    name = f"{SERVER_VERSION}" if not isinstance(made, NativeServer) else f"{made.version} ({made.program})".strip()
    say(f"tritonserver {name} serves {tables.shown(project)}")
    say(f"  HTTP {served.http}  gRPC {served.grpc}  metrics {served.metrics}")
    if environment:
        models = ", ".join(configured(project, environment))
        say(f"  environment {environment}: {models}; any other model: its config.pbtxt")
    for name, reason in served.refused.items():
        say(f"  {name} does not load: {reason}")
    for name, version in served.ready():
        say(f"  {name} version {version}")
    say(f"  log: {project.shown(served.log)}; Ctrl-C stops it")


@click.command("infer")
@click.argument("name")
@click.option(
    "--url", help="http://host:port or grpc://host:port; default: the server of `serve`, else one for this call."
)
@click.option("--version", "model_version", default="", help="Default: the newest that is served.")
@click.option("--sample", default=0, show_default=True, help="Which golden sample to send.")
@click.option("--input", "given", multiple=True, metavar="NAME=JSON", help="Send this instead of a sample.")
@click.option("--top", default=3, show_default=True, help="How many classes to show.")
@access_options
@startup_timeout_option
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
    **options: Any,
) -> None:
    """Send a sample; print the answer, with labels."""
    inputs, access = dict(map(_input, given)), access_of(options)
    needs_url(access, url)
    answer = project.infer(
        name, inputs, url=url, access=access, version=model_version, sample=sample, top=top, say=progress
    )
    as_json(_answer_as_data(answer)) if as_data else _print_answer(answer)


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


def _print_answer(answer: Answer) -> None:
    """The best classes of outputs that have labels; the shape and the first values of the others."""
    for name, classes in answer.classes.items():
        say(f"{answer.model} {name}:")
        for item in classes:
            say(f"  {item.label or item.index:<12} {item.score:>10.4f}")
    for name, array in answer.outputs.items():
        output = _output_as_data(array)
        values = ", ".join(f"{value:.4f}" if isinstance(value, float) else str(value) for value in output["values"])
        rest = ", …" if output["more"] else ""
        say(f"{answer.model} {name}: {output['dtype']} {output['shape']} [{values}{rest}]")


def _answer_as_data(answer: Answer) -> dict[str, Any]:
    return {
        "model": answer.model,
        "classes": {name: [asdict(item) for item in classes] for name, classes in answer.classes.items()},
        "outputs": {name: _output_as_data(array) for name, array in answer.outputs.items()},
    }


def _output_as_data(array: Any) -> dict[str, Any]:
    flat = array.ravel()[:_MOST_VALUES].tolist()
    return {
        "dtype": "strings" if array.dtype == object else str(array.dtype),
        "shape": list(array.shape),
        "values": [value.decode("utf-8", "replace") if isinstance(value, bytes) else value for value in flat],
        "more": array.size > _MOST_VALUES,
    }


@click.command("verify")
@names_argument
@click.option(
    "--url", "urls", multiple=True, help="A server to check; may be repeated. Default: a local one, both protocols."
)
@click.option(
    "--exact",
    is_flag=True,
    help="With --url: fail also for models and versions that the server serves and the repository lacks.",
)
@access_options
@startup_timeout_option
@json_option
@command
def verify_command(
    project: Project, names: tuple[str, ...], urls: tuple[str, ...], exact: bool, as_data: bool, **options: Any
) -> None:
    """Send golden samples to a server, and compare the answers."""
    access = access_of(options)
    needs_url(access, urls)
    if exact and not urls:
        raise ServerError("--exact: is for servers at --url", "give --url URL")
    results = project.verify(names, urls=urls, access=access, exact=exact, say=quiet if as_data else progress)
    as_json(tables.replays_as_data(results)) if as_data else tables.print_replays(results)
    if any(result.verdict == "failed" for result in results):
        sys.exit(1)
