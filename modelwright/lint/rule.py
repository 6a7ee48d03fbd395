"""What a rule is, and the registry of them all.

A rule is one function with its prose beside it: what it finds, why that matters, how to mend it, and an example of the
fault and of its fix. `docs/lint.md` and `--explain` are made from these; the tests run every example.

    @rule("MW104", "negative max_batch_size", Severity.ERROR, why="…", fix="…", example=Example("…", "…"))
    def negative_max_batch_size(view: ConfigView) -> Iterator[Found]: ...
"""

from __future__ import annotations

import inspect
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from enum import Enum
from typing import Any, TypeVar

from modelwright.errors import ModelwrightError
from modelwright.suggest import did_you_mean


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


# What a file of an example holds: text, the target of a symbolic link, an ONNX model, or nothing for a folder.
@dataclass(frozen=True)
class Link:
    target: str


@dataclass(frozen=True)
class Onnx:
    """y = Identity(x). A dimension that is a word is a dynamic one."""

    dims: tuple[str | int, ...] = ("batch", 2)
    dtype: str = "FP32"
    opset: int = 17
    ir: int = 8
    external: str = ""  # the location of its weights, as the file states it
    truncated: bool = False

    def __str__(self) -> str:
        shape = ", ".join(str(dim) for dim in self.dims)
        text = f"x → y, {self.dtype} [{shape}], opset {self.opset}, IR {self.ir}"
        text += f", weights in '{self.external}'" if self.external else ""
        return text + (", cut short" if self.truncated else "")


@dataclass(frozen=True)
class Absent:
    """No such file, where the base has one."""


@dataclass(frozen=True)
class Folder:
    """An empty folder."""


@dataclass(frozen=True)
class Locked:
    """A folder that nobody but root may list."""


Content = str | bytes | Link | Onnx | Absent | Folder | Locked
Files = Mapping[str, Content]


@dataclass(frozen=True)
class Example:
    """The fault and its fix. Text stands for lines of m/config.pbtxt, which replace fields of `base`.

    Files are named relative to the model `m`, or from `/` on for the repository. Those of `files` are in both.
    """

    fault: str
    fixed: str
    base: str = "python"
    files: Files = field(default_factory=dict)
    fault_files: Files = field(default_factory=dict)
    fixed_files: Files = field(default_factory=dict)
    target: str = "26.07"
    auto_complete: bool = True


Check = Callable[[Any], Iterator[Found]]
F = TypeVar("F", bound=Check)


@dataclass(frozen=True, eq=False)  # there is one object a rule: findings are compared by it
class Rule:
    id: str
    title: str
    severity: Severity
    why: str
    fix: str
    example: Example
    check: Check
    scope: str  # 'config', 'model' or 'repository': what `check` gets
    # Why the local server cannot say whether this rule is right; empty where the differential tests exercise it.
    unexercised: str = ""
    on_text: bool = False  # runs on a config that is no ModelConfig, too

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
RULES: dict[str, Rule] = {}


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
) -> Callable[[F], F]:
    """Register a check. Its one parameter's name says what it looks at: `view`, `model` or `repository`."""

    def register(check: F) -> F:
        assert id not in RULES, id
        scope = _SCOPES[next(iter(inspect.signature(check).parameters))]
        RULES[id] = Rule(id, title, severity, why, fix, example, check, scope, unexercised, on_text)
        return check

    return register


def find_rule(name: str) -> Rule:
    """A rule by its id. Raises ModelwrightError for one that does not exist."""
    rules = all_rules()
    if name.upper() not in rules:
        raise ModelwrightError(f"there is no rule '{name}'", did_you_mean(name.upper(), rules))
    return rules[name.upper()]


def all_rules() -> dict[str, Rule]:
    """Every rule, by id, in order."""
    import modelwright.lint.rules  # noqa: F401  (importing it registers them)

    return dict(sorted(RULES.items()))
