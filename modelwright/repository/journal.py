"""What happened to a repository: one line of JSON an event, each with the digest of the line before it.

    {"seq": 12, "time": "2026-11-26T07:00:00+00:00", "who": "ops@host", "what": "rollback", "model": "digits",
     "version": 3, "why": "accuracy fell", "details": {…}, "previous": "<SHA-256 of line 11>"}

The journal lies outside the repository and is only ever appended to, by the holder of the build lock. A line is written
before its change, so that no change goes unnamed; what then did not come about, the next command finishes. A line
that was edited, removed or put in between breaks the chain from there on: `check` says where. The ledger knows how many
lines there were. Where some at the end are gone, an event about the journal itself says so before the next one, since
the ledger then knows the shorter journal.
"""

from __future__ import annotations

import getpass
import os
import socket
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from datetime import datetime, timezone
from pathlib import Path
from typing import Annotated

from pydantic import Field, JsonValue, PlainSerializer

from modelwright.digest import canonical, parse_json, sha256
from modelwright.errors import RepositoryError
from modelwright.facts.part import DamagedError, Integer, JsonObject, Part, validated
from modelwright.fsops import disk_errors, fsync_path
from modelwright.repository.ledger import JournalHead

JOURNAL = "journal.jsonl"
WHO = "MODELWRIGHT_USER"  # names the person, where the account does not
OWN = "journal"  # an event about the journal itself
_FIRST = "0" * 64  # what stands as `previous` in the first line
_LOST = "lost"  # details of such an event: how many lines are gone


class Event(Part):
    """One line. `model` and `version` are empty where an event concerns none."""

    seq: Integer
    time: Annotated[datetime, PlainSerializer(datetime.isoformat)]
    who: str
    what: str
    model: str = ""
    version: Integer | None = None
    why: str = ""
    details: JsonObject = Field(default_factory=dict)
    previous: str


@dataclass(frozen=True)
class Told:
    """What an event is to say."""

    what: str
    model: str = ""
    version: int | None = None
    why: str = ""
    details: Mapping[str, JsonValue] = field(default_factory=dict)


@dataclass(frozen=True)
class Break:
    """Where the journal is not what was written. `line` counts from 1."""

    line: int
    problem: str


class Journal:
    """The journal in a folder. `known` tells how far it went when the repository last changed."""

    def __init__(self, folder: Path, known: Callable[[], JournalHead | None] = lambda: None) -> None:
        self.file = folder / JOURNAL
        self._known = known

    def append(
        self,
        what: str,
        model: str = "",
        version: int | None = None,
        *,
        why: str = "",
        details: Mapping[str, JsonValue] | None = None,
    ) -> None:
        """Write an event down, durably. Raises StoreError for a full or read-only disk, RepositoryError for a last line
        that cannot be read."""
        self.append_all([Told(what, model, version, why, details or {})])

    def append_all(self, events: Iterable[Told]) -> None:
        """The same of several at once: the ledger and the end of the journal are read once for all of them."""
        known = self._known()
        with disk_errors(self.file):
            self.file.parent.mkdir(parents=True, exist_ok=True)
            is_new = not self.file.exists()
            with self.file.open("ab+") as file:
                end = _end_of_whole_lines(file.fileno())
                file.truncate(end)  # a line cut short by a kill was never acted upon
                last = _last_line(file.fileno(), end)
                for told in (*self._missing(known), *events):
                    last = self._line_after(last, told)
                    file.write(last + b"\n")
                file.flush()
                os.fsync(file.fileno())
            if is_new:
                fsync_path(self.file.parent)

    def _line_after(self, last: bytes, told: Told) -> bytes:
        event = Event(
            seq=self._parse(last, "its last line").seq + 1 if last else 1,
            time=datetime.now(timezone.utc).replace(microsecond=0),
            who=who(),
            what=told.what,
            model=told.model,
            version=told.version,
            why=told.why,
            details=dict(told.details),
            previous=sha256(last) if last else _FIRST,
        )
        return canonical(event.as_json())

    def _missing(self, known: JournalHead | None) -> Iterator[Told]:
        """What an event is to say about lines that the ledger knows and that are gone."""
        head = self.head()
        if known and head is None:
            yield Told(OWN, why=f"begins anew: the one before, of {known.lines} lines, is not here")
        elif known and head and head.first == known.first and head.lines < known.lines:
            why = f"ended at line {head.lines}, and the ledger knew {known.lines} lines"
            yield Told(OWN, why=why, details={_LOST: known.lines - head.lines})

    def last(self) -> Event | None:
        """The last event; None where there is none, or none that can be read."""
        try:
            with self.file.open("rb") as file:
                line = _last_line(file.fileno(), _end_of_whole_lines(file.fileno()))
            return self._parse(line, "its last line") if line else None
        except (OSError, RepositoryError):
            return None

    def events(self) -> Iterator[Event]:
        """All events, oldest first. Raises RepositoryError for a line that is no event."""
        for number, line in enumerate(self._lines(), 1):
            yield self._parse(line, f"line {number}")

    def check(self, known: JournalHead | None = None) -> list[Break]:
        """The lines that do not follow from the one before, or are no events. See `read`."""
        return self.read(known)[1]

    def read(self, known: JournalHead | None = None) -> tuple[list[Event], list[Break]]:
        """The events that can be read, oldest first, and where the journal is not what was written.

        `known` is how far it went when the repository last changed: it shows lines that are gone at the end. It says
        nothing of a journal that began with another line, as that of another project, or one that began anew.
        """
        events: list[Event] = []
        breaks: list[Break] = []
        previous, seq, number = _FIRST, 0, 0
        for number, line in enumerate(self._lines(), 1):
            try:
                event = self._parse(line, f"line {number}")
            except RepositoryError as error:
                breaks.append(Break(number, error.message.partition(f"line {number} ")[2]))
                previous, seq = sha256(line), seq + 1
                continue
            events.append(event)
            if event.previous != previous:
                breaks.append(Break(number, "does not follow from the line before: one of them was changed or removed"))
            elif event.seq != seq + 1:
                breaks.append(Break(number, f"is event {event.seq}, and event {seq + 1} was expected"))
            if event.what == OWN and _LOST in event.details:
                breaks.append(Break(number, f"says that lines before it are gone: the journal {event.why}"))
            previous, seq = sha256(line), event.seq
            if known and number == 1 and previous != known.first:
                known = None
            if known and number == known.lines and previous != known.head:
                breaks.append(Break(number, "is not the line that the ledger knows"))
        if known and number < known.lines:
            breaks.append(Break(number + 1, f"is missing: the ledger knows {known.lines} lines"))
        return events, breaks

    def head(self) -> JournalHead | None:
        """How far it goes: the ledger keeps it, so that a journal that was cut short shows. None for an empty one."""
        first = last = b""
        count = 0
        for line in self._lines():
            first, last, count = first or line, line, count + 1
        return JournalHead(first=sha256(first), lines=count, head=sha256(last)) if count else None

    def _lines(self) -> Iterator[bytes]:
        """The lines, without their ends. What follows the last end was cut short by a kill: it is no line."""
        try:
            with self.file.open("rb") as file:
                for line in file:
                    if line.endswith(b"\n"):
                        yield line[:-1]
        except FileNotFoundError:
            return
        except OSError as error:
            raise RepositoryError(f"{self.file}: cannot be read: {error.strerror}", "make it a readable file") from None

    def _parse(self, line: bytes, where: str) -> Event:
        try:
            return validated(Event, parse_json(line))
        except (ValueError, RecursionError, DamagedError) as error:
            hint = "restore the journal from a backup, or move it away: a new one begins"
            raise RepositoryError(f"{self.file}: {where} is no event: {error}", hint) from None


def who() -> str:
    """The account and the machine; $MODELWRIGHT_USER in place of the account where it is set."""
    try:
        account = os.environ.get(WHO) or getpass.getuser()
    except (KeyError, OSError):  # no name for this user id
        account = str(os.getuid())
    return f"{account}@{socket.gethostname()}"


def _end_of_whole_lines(handle: int) -> int:
    """The place behind the last end of a line."""
    at = os.fstat(handle).st_size
    while at:
        start = max(0, at - 4096)
        found = os.pread(handle, at - start, start).rfind(b"\n")
        if found >= 0:
            return start + found + 1
        at = start
    return 0


def _last_line(handle: int, end: int) -> bytes:
    """The line that ends there, without its end; empty where there is none."""
    line, at = b"", end - 1
    while at > 0:
        start = max(0, at - 4096)
        part = os.pread(handle, at - start, start)
        found = part.rfind(b"\n")
        line = part[found + 1 :] + line
        if found >= 0:
            break
        at = start
    return line
