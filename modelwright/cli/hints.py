"""Commands in messages, as they are typed here: by the program's path where a shell does not find it, and --project.

The rest of the package writes `modelwright build` and `pip install` in its hints. What that takes on this machine only
the command line knows.
"""

from __future__ import annotations

import re
import shlex
import shutil
import sys
from importlib.util import find_spec
from pathlib import Path

import click

from modelwright.cli.main import COMMANDS
from modelwright.errors import ModelwrightError
from modelwright.project.project import root_of
from modelwright.text import printable

_NAME = "modelwright"
_COMMAND = re.compile(rf"(?<![\w/.-]){_NAME} ({'|'.join(COMMANDS)})\b")
_PIP = re.compile(r"(?<![\w/.-])pip (install|uninstall)\b")


def program() -> str:
    """What to type to get this program for this project, from this folder."""
    given = _project_given()
    if given is None or root_of(given) == root_of(Path.cwd()):
        return executable(Path.cwd())
    return f"{executable(Path.cwd())} --project {shlex.quote(str(given))}"


def executable(folder: Path) -> str:
    """What to type for the program alone, in a shell that stands in `folder`."""
    started = Path(sys.argv[0])
    found = shutil.which(_NAME)
    if started.name != _NAME or (found and Path(found).resolve() == started.resolve()):
        return _NAME  # also as a module, by `python -m`
    return shlex.quote(path_from(folder, started))


def path_from(folder: Path, path: Path) -> str:
    """A path as it is typed in `folder`."""
    absolute = Path.cwd() / path
    return str(absolute.relative_to(folder) if absolute.is_relative_to(folder) else absolute)


def typed(text: str) -> str:
    """A text of the package, with the commands in it as they are typed here."""
    text = _COMMAND.sub(lambda found: f"{_program_for(found[1])} {found[1]}", text)
    return _PIP.sub(lambda found: _pip(found[1]), text)


def error_text(error: ModelwrightError) -> str:
    """An error as it is printed: its message, and its hint below.

    What it says of files and servers may hold anything: lines after the first are indented, and none looks like ours.
    """
    lines = [*_indented(error.message), *_indented(f"  hint: {typed(error.hint)}" if error.hint else "")]
    return "\n".join(lines)


def _indented(text: str) -> list[str]:
    first, *more = map(printable, text.split("\n"))
    return [line for line in (first, *map(_below, more)) if line]


def _below(line: str) -> str:
    return line if line.startswith("  ") and not line.lstrip().startswith("hint:") else f"    {line}"


def _program_for(name: str) -> str:
    return executable(Path.cwd()) if name == "init" else program()  # which has no project yet


def _pip(verb: str) -> str:
    """What installs into the environment that this program runs in."""
    found = shutil.which("pip")
    if found and Path(found).parent.resolve() == Path(sys.executable).parent.resolve():
        return f"pip {verb}"
    python = shlex.quote(path_from(Path.cwd(), Path(sys.executable)))
    return f"{python} -m pip {verb}" if find_spec("pip") else f"uv pip {verb} --python {python}"


def _project_given() -> Path | None:
    """The folder of --project."""
    context = click.get_current_context(silent=True)
    folder: Path | None = context.find_root().params.get("folder") if context else None
    return folder
