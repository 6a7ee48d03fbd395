"""What a recogniser of `new --from` is: it says what a file or folder is, and writes a builder around it.

A module of this package has one, as `RECOGNISER`, and `importing.registry` lists the modules.
"""

from __future__ import annotations

import shutil
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from modelwright.errors import SpecError
from modelwright.fsops import not_a_file
from modelwright.project.project import ProjectConfig
from modelwright.project.writer import as_yaml
from modelwright.text import printable
from modelwright.triton.releases import Release


@dataclass(frozen=True)
class Seen:
    """A thing that a recogniser knows."""

    kind: str  # of the builder that is written around it: "onnx"
    what: str  # follows "it is": "an ONNX file: opset 17; 1 input, 2 outputs"
    path: Path
    details: Any = None  # what the recogniser read, for its own `write`


@dataclass(frozen=True)
class Written:
    """What was written into a builder's folder."""

    notes: tuple[str, ...] = ()  # what was decided, and what a person should know
    left: tuple[str, ...] = ()  # what a person has to do: "write samples of your own into data.py"
    builds: bool = True  # whether it builds as it is
    edit: str = "data.py"  # where it does not: the file to edit first


@dataclass(frozen=True)
class NewBuilder:
    """A builder that is being written: its folder appears by one rename, once all of it is there."""

    project: ProjectConfig
    name: str
    folder: Path  # to write into
    target: Path  # where it will lie
    given: str  # what stands after --from
    editor: str  # the first line of a model.yaml, by which editors find the schema; may be ''
    uri: str = ""  # where the thing is: nothing of it is copied, and `path` is the URI

    @property
    def release(self) -> Release:
        return self.project.target

    @property
    def where(self) -> str:
        """Where messages say that something is wrong."""
        return f"--from {self.given}"

    @property
    def head(self) -> list[str]:
        """The first lines of model.yaml: the schema for editors, and the name."""
        return [*([self.editor] if self.editor else []), f"name: {as_yaml(self.name)}"]

    def write(self, file: str, content: str | bytes) -> None:
        """Write a file of the builder's folder."""
        path = self.folder / file
        path.parent.mkdir(parents=True, exist_ok=True)
        # Names of files that are no UTF-8 have characters that a file cannot have.
        path.write_bytes(content if isinstance(content, bytes) else content.encode(errors="replace"))

    @property
    def is_taken(self) -> bool:
        """Whether what is taken lies in the builder's folder, where its code can read it."""
        return not self.uri

    def take(self, source: Path, name: str, *, leave_out: Sequence[str] = ()) -> str:
        """Have a file or folder in the builder as `name`. Returns what stands at the `path` of its source.

        Of a folder, files and folders of the names `leave_out` (patterns) stay behind. Of a URI nothing is copied, and
        the URI stands there: a build fetches it. What the builder's own code reads is for `copy`.
        """
        if self.uri:
            return self.uri
        return self.copy(source, name, leave_out=leave_out)

    def copy(self, source: Path, name: str, *, leave_out: Sequence[str] = ()) -> str:
        """The same, copied into the builder's folder wherever it comes from."""
        target = self.folder / name
        target.parent.mkdir(parents=True, exist_ok=True)
        if source.is_dir():
            if self.folder.resolve().is_relative_to(source.resolve()):
                raise SpecError(f"{self.where}: the builder would lie in it", "put the model into a folder of its own")
            try:
                shutil.copytree(source, target, ignore=shutil.ignore_patterns(*leave_out))
            except shutil.Error as error:
                raise self._not_copied(error) from None
        else:
            shutil.copyfile(source, target)
        return name

    def _not_copied(self, error: shutil.Error) -> SpecError:
        """Of a folder: the first file that is none, or that cannot be read."""
        path, _, reason = error.args[0][0]
        problem = not_a_file(Path(path)) or f"cannot be copied: {reason}"
        return SpecError(printable(f"{self.where}: {path}: {problem}"), "leave it out, or see to what it is")

    def file(self, name: str, source: Path) -> Path:
        """Where a file lies that `take` was asked to have as `name`, to read it now."""
        own = self.folder / name
        return own if own.exists() else source


@dataclass(frozen=True)
class Recogniser:
    """Knows one kind of thing.

    `recognise` is cheap: it reads names and headers, imports no framework, runs no code of what it looks at, and
    raises no OSError for what is not its own. It returns None for anything else, and raises SpecError for what it knows
    and no builder can be made of, or for what another command is for. `write` raises ModelwrightError for what cannot
    be served.
    """

    takes: str  # in a list of what --from takes: "ONNX files"
    recognise: Callable[[Path], Seen | None]
    write: Callable[[Seen, NewBuilder], Written]
