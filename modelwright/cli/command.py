"""What every command shares: errors become messages and exit codes here, and nowhere else."""

from __future__ import annotations

import contextlib
import json
import math
import os
import signal
import sys
import threading
from collections.abc import Callable, Iterator
from dataclasses import replace
from datetime import datetime
from functools import wraps
from pathlib import Path
from typing import Any, NoReturn, TypeVar

import click

from modelwright import extras
from modelwright.api import Project
from modelwright.cli.hints import error_text, typed
from modelwright.cli.terminal import say, say_data, say_lines
from modelwright.errors import ModelwrightError
from modelwright.fsops import disk_error, is_full
from modelwright.project.plan_places import PLAN_BUILDERS
from modelwright.project.project import LONGEST_TIMEOUT_S

F = TypeVar("F", bound=Callable[..., Any])
_stopped_by: list[int] = []  # signals that this command was stopped by

# Set for this process and the workers of a build: server/native.py reads them.
_SERVER_VARIABLES = {
    "tritonserver": "MODELWRIGHT_TRITONSERVER",
    "backend_directory": "MODELWRIGHT_BACKEND_DIRECTORY",
}

names_argument = click.argument("names", nargs=-1, metavar="[NAME]...")


class Finite(click.FloatRange):
    """A number in a range, and no NaN or infinity: nothing is below or above a NaN."""

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> Any:
        number = super().convert(value, param, ctx)
        if not math.isfinite(number):
            self.fail(f"{value!r} is not a finite number", param, ctx)
        return number


json_option = click.option("--json", "as_data", is_flag=True, help="Print JSON.")
# Of commands that change a repository
wait_option = click.option("--wait", is_flag=True, help="While a build or another operator is at work, wait.")
why_option = click.option("--why", "-m", default="", metavar="TEXT", help="The reason, for the journal.")
dry_run_option = click.option("--dry-run", is_flag=True, help="Print what would be done, and do nothing.")

_startup_timeout = click.option(
    "--startup-timeout",
    "startup_timeout_s",
    type=click.IntRange(1, LONGEST_TIMEOUT_S),
    metavar="SECONDS",
    help="What the local server gets to load models; default: by their number and size.",
)


def tritonserver_options(function: F) -> F:
    """Which server is started here: `command` takes them."""
    for option in (
        click.option(
            "--backend-directory",
            type=click.Path(exists=True, file_okay=False),
            metavar="DIR",
            help="The backends of that server; default: those beside it.",
        ),
        click.option(
            "--tritonserver",
            type=click.Path(exists=True, dir_okay=False),
            metavar="FILE",
            help="The server to start; default: the one on PATH, else a downloaded one.",
        ),
    ):
        function = option(function)
    return function


def startup_timeout_option(function: F) -> F:
    """Which server is started here, and how long it gets."""
    return _startup_timeout(tritonserver_options(function))


plan_builder_option = click.option(
    "--plan-builder",
    type=click.Choice(PLAN_BUILDERS),
    help="Where TensorRT plans are built; default: plan_builder of [tensorrt] in modelwright.toml, or auto.",
)


def command(function: F) -> F:
    """Give a command the project as its first argument, as its options change it, and show its errors."""

    @wraps(function)
    def wrapped(*arguments: Any, **options: Any) -> Any:
        with errors_shown():
            project = Project.find(click.get_current_context().obj)
            startup_timeout_s = options.pop("startup_timeout_s", None)
            if startup_timeout_s:
                project = Project(replace(project.config, startup_timeout_s=startup_timeout_s))
            for name, variable in _SERVER_VARIABLES.items():
                if given := options.pop(name, None):
                    os.environ[variable] = os.path.abspath(given)  # noqa: PTH100  (workers have another folder)
            plan_builder = options.pop("plan_builder", None)
            if plan_builder:
                places = replace(project.config.plan_places, plan_builder=plan_builder)
                project = Project(replace(project.config, plan_places=places))
            return function(project, *arguments, **options)

    return wrapped  # type: ignore[return-value]


@contextlib.contextmanager
def errors_shown(code: int = 1) -> Iterator[None]:
    """Turn a ModelwrightError into `Error: …`, a hint and exit code `code`; Ctrl-C into a line and exit code 130.

    A module of an extra that is not installed is such an error, too, and so is a disk that takes or gives nothing.
    SIGTERM stops a command as Ctrl-C does, with exit code 143.
    """
    try:
        with _terminable():
            yield
    except ModelwrightError as error:
        fail(error, code)
    except ModuleNotFoundError as error:
        missing = extras.as_missing(error)
        if missing is None:
            raise
        fail(missing, code)
    except OSError as error:
        known = disk_error(error, Path(error.filename or _full_disk() or Path.cwd()))
        if known is None:
            raise
        fail(known, code)
    except KeyboardInterrupt:
        say("interrupted; nothing half done was published", err=True)
        sys.exit(stopped_code())


@contextlib.contextmanager
def _terminable() -> Iterator[None]:
    """Raises KeyboardInterrupt for SIGTERM, which service managers and pipelines send: what was started is stopped."""

    def stop(number: int, _: object) -> None:
        _stopped_by.append(number)
        raise KeyboardInterrupt

    _stopped_by.clear()
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    before = signal.signal(signal.SIGTERM, stop)
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, before)


def stopped_code() -> int:
    """The exit code of a command that was stopped: as shells have it, 128 and the number of the signal."""
    return 128 + (_stopped_by[0] if _stopped_by else signal.SIGINT)


def _full_disk() -> Path | None:
    """Of the places that this project writes to, one whose disk is full. A write that fails does not say where."""
    import tempfile

    places = [Path.cwd(), Path(tempfile.gettempdir())]
    context = click.get_current_context(silent=True)
    with contextlib.suppress(ModelwrightError):
        project = Project.find(context.obj if context else Path.cwd()).config
        places = [project.state, project.repository, project.root, *places]
    return next((place for place in places if is_full(place)), None)


def fail(error: ModelwrightError, code: int = 1) -> NoReturn:
    """Print an error as all of them are printed, and exit."""
    say_lines(f"Error: {error_text(error)}", err=True)
    sys.exit(code)


def as_json(value: Any) -> None:
    """Print a result for machines."""
    say_data(json.dumps(value, indent=1, default=_plain) + "\n")


def _plain(value: Any) -> str:
    return value.isoformat() if isinstance(value, datetime) else str(value)


def progress(text: str) -> None:
    """Print a line of progress on standard error, so that standard output holds the result alone."""
    say(typed(text), err=True)


def quiet(text: str) -> None:
    """Instead of `progress`, for commands with --json."""
