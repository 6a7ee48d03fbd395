"""What reaches a terminal: text, and none of the control characters that names and servers' answers may hold."""

from __future__ import annotations

import io
import json
import os
import pty
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager, redirect_stdout
from pathlib import Path

import pytest
from click.testing import CliRunner

from modelwright.cli import terminal
from modelwright.cli.main import main
from modelwright.cli.tables import print_table

HOSTILE = {
    "an escape sequence": ("a\x1b[31m", r"a\x1b[31m"),
    "a line break": ("a\nError: b", r"a\nError: b"),
    "a C1 control": ("a\x9b2J", r"a\x9b2J"),
    "another direction": ("a\N{RIGHT-TO-LEFT OVERRIDE}b", r"a\u202eb"),
    "no text": ("a\udcff", r"a\udcff"),
    "a carriage return": ("a\rb", r"a\rb"),
    "markup": ("[red]a[/] [/b]", "[red]a[/] [/b]"),
}


class Tty(io.TextIOWrapper):
    def isatty(self) -> bool:
        return True


@contextmanager
def printed(kind: type[io.TextIOWrapper]) -> Iterator[io.BytesIO]:
    data = io.BytesIO()
    stream = kind(data, encoding="utf-8", errors="strict")
    with redirect_stdout(terminal.guarded(stream)):
        yield data
    stream.flush()
    stream.detach()


@pytest.mark.parametrize("stream", [io.TextIOWrapper, Tty], ids=["pipe", "terminal"])
@pytest.mark.parametrize("case", HOSTILE)
def test_a_line_stays_one_and_shows_what_it_holds(
    case: str, stream: type[io.TextIOWrapper], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("TERM", "dumb")
    text, expected = HOSTILE[case]
    with printed(stream) as data:
        terminal.say(text)
        print_table([["name", "why"], [text, "x"]])
        terminal.console().print(text.replace("\n", " ").replace("\r", " "))
    first, _, row, last = (line.rstrip() for line in data.getvalue().decode().splitlines())
    assert (first, row.partition("  ")[0], last) == (
        expected,
        expected,
        expected.replace(r"\n", " ").replace(r"\r", " "),
    )


@pytest.mark.parametrize("case", HOSTILE)
def test_whatever_is_printed_past_the_module_is_guarded_too(case: str) -> None:
    text, expected = HOSTILE[case]
    with printed(Tty) as data:
        print(text)
    assert data.getvalue().decode() == expected.replace(r"\n", "\n") + "\n"


@pytest.mark.parametrize("stream", [io.TextIOWrapper, Tty], ids=["pipe", "terminal"])
def test_data_is_exact_on_a_pipe_and_means_the_same_on_a_terminal(stream: type[io.TextIOWrapper]) -> None:
    content = {"é": "\x9b\x7f\N{RIGHT-TO-LEFT OVERRIDE}\N{PILE OF POO}"}
    text = json.dumps(content, ensure_ascii=False)
    with printed(stream) as data:
        terminal.say_data(text)
    assert json.loads(data.getvalue()) == content
    assert data.getvalue().isascii() if stream is Tty else data.getvalue() == text.encode()


@pytest.fixture
def repository(tmp_path: Path) -> Path:
    """A repository whose models have such names, in a project of its own."""
    (tmp_path / "project/builders").mkdir(parents=True)
    (tmp_path / "project/modelwright.toml").write_text('triton = "26.07"\n')
    for text, _ in HOSTILE.values():
        folder = tmp_path / "repository" / text.replace("/", "")
        (folder / "1").mkdir(parents=True)
        (folder / "config.pbtxt").write_text('backend: "python"\n')
    return tmp_path / "repository"


def test_adopt_names_models_that_no_terminal_shows(repository: Path) -> None:
    project = str(repository.parent / "project")
    command = [sys.executable, "-m", "modelwright.cli.main", "--project", project, "adopt", str(repository)]
    primary, secondary = pty.openpty()
    for target in (subprocess.PIPE, secondary):
        environment = {**os.environ, "PYTHONIOENCODING": "ascii:strict", "COLUMNS": "300", "TERM": "dumb"}
        done = subprocess.run(command, stdout=target, stderr=subprocess.PIPE, env=environment, check=False)
        output = done.stdout if done.stdout is not None else os.read(primary, 100_000)
        assert (done.returncode, done.stderr) == (1, b"Error: nothing was adopted\n")
        text = output.decode("ascii")
        assert all(character.isprintable() or character in "\r\n" for character in text)
        for _, expected in HOSTILE.values():
            assert f"\n{expected.replace('/', '')} " in text
    os.close(primary)
    os.close(secondary)


def test_the_lines_of_an_error_are_told_from_ours(repository: Path) -> None:
    name = "x\x1b[31m\nError: all is well\n  hint: rm -rf"
    result = CliRunner().invoke(main, ["--project", str(repository.parent / "project"), "build", name])
    assert result.output.startswith(
        "Error: no builder makes a model named 'x\\x1b[31m\n    Error: all is well\n      hint"
    )
    assert "no command 'x\\x1b[31m\\nError: all is well\\n  hint" in CliRunner().invoke(main, [name]).output
