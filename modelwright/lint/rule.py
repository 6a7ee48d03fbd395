"""What a rule is.

A rule is one function with its text beside it: what it finds, why that matters, how to fix it, and an example of the
fault and of its fix. `docs/lint.md` and `--explain` are made from these; the tests run every example.

    @rule("MW104", "negative max_batch_size", Severity.ERROR, why="…", fix="…", example=Example("…", "…"))
    def negative_max_batch_size(view: ConfigView) -> Iterator[Found]: ...

The decorator makes a `Rule` of the function. `registry.py` collects the rules from the modules of rules/.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from enum import Enum
from typing import TYPE_CHECKING, Any, cast

if TYPE_CHECKING:
    from types import FunctionType


class Severity(Enum):
    """ERROR: the server refuses the model, or worse. WARNING: it loads, and does not do what one would think."""

    ERROR = "error"
    WARNING = "warning"


@dataclass(frozen=True)
class Found:
    """What a check found: where, and what. `path` is that of a field in the file, where there is one."""

    message: str
    file: str  # relative to the repository
    path: tuple[str | int, ...] = ()
    line: int | None = None
    fix: str = ""  # more to the point than the rule's own


# What a file of an example can be, beside text and bytes.


@dataclass(frozen=True)
class Symlink:
    """A symbolic link."""

    target: str


@dataclass(frozen=True)
class Onnx:
    """An ONNX model, y = Identity(x). Names stand for dynamic dimensions."""

    dims: tuple[str | int, ...] = ("batch", 2)
    dtype: str = "FP32"
    opset: int = 17
    ir: int = 8
    external: str = ""  # where its weights are, as the file says
    rows: str = ""  # the name of y's first dimension, if it is another one
    truncated: bool = False

    def __str__(self) -> str:
        shape = ", ".join(str(dim) for dim in self.dims)
        text = f"x → y, {self.dtype} [{shape}], opset {self.opset}, IR {self.ir}"
        text += f", weights in '{self.external}'" if self.external else ""
        text += f", '{self.rows}' rows in y" if self.rows else ""
        return text + (", cut short" if self.truncated else "")


@dataclass(frozen=True)
class TensorRtPlan:
    """The first bytes of a plan, as the TensorRT of this version writes them."""

    version: str  # of four parts

    def __str__(self) -> str:
        return f"a plan of TensorRT {self.version}"


@dataclass(frozen=True)
class Zip:
    """A zip archive of empty files: TorchScript is known by their names."""

    names: tuple[str, ...]

    def __str__(self) -> str:
        return f"a zip archive with {', '.join(self.names)}"


@dataclass(frozen=True)
class Absent:
    """A file of the base that is not there."""


@dataclass(frozen=True)
class Folder:
    """An empty folder."""


@dataclass(frozen=True)
class Locked:
    """A folder that only root may list."""


FileContent = str | bytes | Symlink | Onnx | TensorRtPlan | Zip | Absent | Folder | Locked
ExampleFiles = Mapping[str, FileContent]


@dataclass(frozen=True)
class Example:
    """The fault and its fix, as lines of m/config.pbtxt that replace fields of `base`.

    Files are named relative to the model `m`, or from `/` on for the repository. Those of `files` are in both.
    """

    fault: str
    fixed: str
    base: str = "python"
    files: ExampleFiles = field(default_factory=dict)
    fault_files: ExampleFiles = field(default_factory=dict)
    fixed_files: ExampleFiles = field(default_factory=dict)
    target: str = "26.07"
    auto_complete: bool = True


Check = Callable[[Any], Iterator[Found]]


@dataclass(frozen=True, eq=False)  # each rule is one object: findings are compared by it
class Rule:
    id: str
    title: str
    severity: Severity
    why: str
    fix: str
    example: Example
    check: Check
    scope: str  # 'config', 'model' or 'repository': what `check` gets
    # Why the differential tests cannot ask the local server about this rule; empty where they do.
    unexercised: str = ""
    on_text: bool = False  # also runs on a config that does not parse

    @property
    def group(self) -> str:
        return GROUPS[self.id[2]]


GROUPS = {
    "0": "Syntax and the target release",
    "1": "Name, backend and files",
    "2": "Inputs and outputs",
    "3": "Batching and sequences",
    "4": "Instances, warm-up, cache, metrics",
    "5": "The repository's layout",
    "6": "ONNX against the config",
    "7": "Ensembles",
    "8": "TensorRT",
    "9": "Silent traps",
}
_SCOPES = {"view": "config", "model": "model", "repository": "repository"}


def rule(
    id: str,  # noqa: A002
    title: str,
    severity: Severity,
    *,
    why: str,
    fix: str,
    example: Example,
    unexercised: str = "",
    on_text: bool = False,
) -> Callable[[Check], Rule]:
    """Make a rule of a check. The name of its parameter says what it looks at: `view`, `model` or `repository`."""

    def made(check: Check) -> Rule:
        scope = _SCOPES[cast("FunctionType", check).__code__.co_varnames[0]]
        return Rule(id, title, severity, why, fix, example, check, scope, unexercised, on_text)

    return made
