"""`model_repository/modelwright.json`: what a repository remembers beside its folders.

    {"versions": {"digits": 5},                         the highest number that each model ever had
     "fixed": {"scan": {"7": "<version digest>"}},      what numbers stand for that were not given out here
     "serving": {"digits": {"promoted": 3}},            what operators decided, and what is to be tidied later
     "journal": {"first": …, "lines": 12, "head": …},   how far the journal went when this was written
     "seal": "<SHA-256 of the rest>"}                   so that damage shows (sealed.py)

Triton reads folders at the root of a repository, and no files.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from datetime import datetime
from pathlib import Path
from typing import Annotated, Any

from pydantic import Field, PlainSerializer

from modelwright.errors import RepositoryError
from modelwright.facts.part import DamagedError, Integer, Part, validated
from modelwright.fsops import read_file
from modelwright.repository.sealed import sealed, unsealed
from modelwright.triton.layout import LEDGER

_HINT = "write it again: modelwright fsck --repair; without it a version number could be used twice"
_FIELDS = {"versions", "fixed", "serving", "journal"}
Time = Annotated[datetime, PlainSerializer(datetime.isoformat)]


class ServingState(Part):
    """What operators decided about a model, beside its model.yaml."""

    promoted: Integer | None = None  # the version that is served, whatever is newer
    # Newer versions that left the repository, and their version digests: a build that comes to one of these again does
    # not publish it.
    withdrawn: dict[int, str] = Field(default_factory=dict)
    # Versions that a pipeline stopped to need, and when. A server that polls may run the old pipeline a while longer.
    released: dict[int, Time] = Field(default_factory=dict)


class JournalHead(Part):
    """How far the journal went. `first` and `head` are digests of its first and of that line."""

    first: str
    lines: Integer
    head: str


class _Serving(Part):
    serving: dict[str, ServingState] = Field(default_factory=dict)
    journal: JournalHead | None = None


@dataclass(frozen=True)
class Ledger:
    versions: Mapping[str, int] = field(default_factory=dict)
    fixed: Mapping[str, Mapping[str, str]] = field(default_factory=dict)
    serving: Mapping[str, ServingState] = field(default_factory=dict)
    journal: JournalHead | None = None

    def state(self, model: str) -> ServingState:
        return self.serving.get(model, ServingState())

    def with_states(self, states: Mapping[str, ServingState]) -> Ledger:
        """The ledger with these states; one that says nothing is left out."""
        merged = {**self.serving, **states}
        return replace(self, serving={name: state for name, state in merged.items() if state != ServingState()})

    def text(self) -> str:
        data: dict[str, Any] = {"versions": dict(sorted(self.versions.items()))}
        if self.fixed:
            data["fixed"] = dict(sorted(self.fixed.items()))
        if self.serving:
            data["serving"] = {name: state.as_json() for name, state in sorted(self.serving.items())}
        if self.journal:
            data["journal"] = self.journal.as_json()
        return sealed(data)


def read_ledger(root: Path) -> Ledger:
    """The ledger of a repository; an empty one where there is none. Raises RepositoryError for a damaged one."""
    path = root / LEDGER
    try:
        data = unsealed(read_file(path))
        if unknown := data.keys() - _FIELDS:
            raise ValueError(f"unknown field {sorted(unknown)[0]!r}")
        versions = {str(name): int(number) for name, number in data["versions"].items()}
        fixed = {str(name): dict(numbers) for name, numbers in data.get("fixed", {}).items()}
        rest = validated(_Serving, data)
    except FileNotFoundError:
        return Ledger()
    except (OSError, ValueError, KeyError, TypeError, AttributeError, DamagedError) as error:
        raise RepositoryError(f"{path}: is no ledger ({error})", _HINT) from None
    return Ledger(versions, fixed, rest.serving, rest.journal)
