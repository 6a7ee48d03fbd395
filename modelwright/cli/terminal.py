"""The one place where text leaves the program. Names of files and what servers answer may hold anything.

Nobody else in this package prints: `say` prints one line, `say_lines` several, `say_data` what other programs read.
Control characters, escape sequences, characters that turn the direction of writing, and bytes that are no text are
shown escaped, as `\\x1b`; so is a line break inside a line. `guarded` does the same to whatever reaches the streams
past these functions: click's messages, tracebacks, warnings.
"""

from __future__ import annotations

import contextlib
import io
import os
import re
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any, TextIO

import click

from modelwright.text import printable

if TYPE_CHECKING:
    from collections.abc import Iterable

    from rich.console import Console

_NOT_PLAIN = re.compile(r"[^\x00-\x7e]")


def say(text: str = "", *, err: bool = False) -> None:
    """Print one line."""
    click.echo(printable(text), err=err)


def say_lines(text: str, *, err: bool = False) -> None:
    """Print a text whose line breaks are ours: names in it have gone through `printable`, or may not hold any."""
    click.echo(_visible(text), err=err)


def say_data(data: str | bytes) -> None:
    """Print JSON, byte for byte; in ASCII, which means the same, on a terminal and where UTF-8 is not written."""
    stream = unguarded(sys.stdout)
    content = data if isinstance(data, bytes) else data.encode("utf-8", "backslashreplace")
    if stream.isatty() or stream.encoding.lower().replace("-", "") != "utf8":
        content = ascii_json(content.decode("utf-8", "replace")).encode()
    with _named():
        stream.flush()
        stream.buffer.write(content)
        stream.flush()


def ascii_json(text: str) -> str:
    """A JSON document in ASCII. What is not ASCII stands in its strings alone."""
    return _NOT_PLAIN.sub(lambda found: "".join(f"\\u{unit:04x}" for unit in _utf16(found[0])), text)


def console(*, stderr: bool = False) -> Console:
    """rich's console. Its own escape sequences reach the terminal, those of texts do not; brackets are no markup."""
    from rich.console import Console
    from rich.segment import Segment

    class Guarded(Console):
        def render(self, renderable: Any, options: Any = None) -> Iterable[Segment]:
            for segment in super().render(renderable, options):
                plain = segment.control or segment.text.isprintable()
                yield segment if plain else Segment(_visible(segment.text), segment.style)

    file = unguarded(sys.stderr if stderr else sys.stdout)
    return Guarded(file=file, stderr=stderr, highlight=False, emoji=False, markup=False)


class _Stream(io.TextIOBase):
    """A stream that shows control characters in place of sending them. It has no buffer to write past it."""

    def __init__(self, stream: TextIO) -> None:
        self.stream = stream

    def write(self, text: str) -> int:
        with _named():
            return self.stream.write(_visible(text))

    def flush(self) -> None:
        with _named():
            self.stream.flush()

    def isatty(self) -> bool:
        return self.stream.isatty()

    def fileno(self) -> int:
        return self.stream.fileno()

    def writable(self) -> bool:
        return True

    @property
    def encoding(self) -> str:  # type: ignore[override]
        return self.stream.encoding

    @property
    def errors(self) -> str | None:  # type: ignore[override]
        return self.stream.errors


@contextlib.contextmanager
def _named() -> Iterator[None]:
    """An error of the system says what could not be written."""
    try:
        yield
    except OSError as error:
        error.filename = error.filename or "standard output"
        raise


def guarded(stream: TextIO | None) -> TextIO:
    """The stream through which nothing but text goes. What it cannot encode, such as part of a name, is escaped.

    A stream that was closed before the program began is None.
    """
    if stream is None:
        stream = Path(os.devnull).open("w", encoding="utf-8")  # noqa: SIM115  open as long as the program runs
    if isinstance(stream, io.TextIOWrapper):
        stream.reconfigure(errors="backslashreplace")
    return stream if isinstance(stream, _Stream) else _Stream(stream)  # type: ignore[return-value]


def unguarded(stream: TextIO) -> TextIO:
    return stream.stream if isinstance(stream, _Stream) else stream


def _visible(text: str) -> str:
    """`printable`, line by line; tabs stay."""
    if text.isprintable():
        return text
    return "\n".join("\t".join(map(printable, line.split("\t"))) for line in text.split("\n"))


def _utf16(character: str) -> Iterable[int]:
    data = character.encode("utf-16-be", "surrogatepass")
    return (int.from_bytes(data[at : at + 2], "big") for at in range(0, len(data), 2))
