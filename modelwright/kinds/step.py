"""A step of a model: which function runs, and everything that its result depends on."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from importlib import import_module
from typing import Any

from modelwright.facts.part import Facts, JsonObject

StepId = tuple[str, str]  # (model, step)


@dataclass(frozen=True)
class StepFunction:
    """A function `run(context, out) -> facts`, which a worker process imports when it runs the step.

    `name` and `revision` stand in step keys, so a name never changes. Raise the revision when the function makes
    something else of the same inputs: what it made before is then built again.
    """

    name: str
    reference: str  # module:function
    revision: int = 1

    def load(self) -> Callable[..., Facts]:
        """The function itself. Imports its module."""
        module, _, function = self.reference.partition(":")
        loaded: Callable[..., Facts] = getattr(import_module(module), function)
        return loaded


@dataclass(frozen=True)
class Step:
    """One step of one model. Its function, config, code, data and tools go into the key as they stand."""

    model: str
    name: str  # samples | torch | onnx | … | verify
    function: StepFunction
    config: Mapping[str, Any] = field(default_factory=dict)
    code: Mapping[str, str] = field(default_factory=dict)  # files of the builder's folder → SHA-256
    data: Mapping[str, str] = field(default_factory=dict)  # other content → SHA-256
    tools: Mapping[str, str | None] = field(default_factory=dict)  # distribution → its version
    needs: Mapping[str, StepId] = field(default_factory=dict)  # role → the step whose output it is
    threads: int = 1
    where: str = ""  # for a plan, where the step runs elsewhere: "container: NVIDIA L4 (8.9), in …"

    @property
    def id(self) -> StepId:
        return (self.model, self.name)

    def key_content(self, inputs: Mapping[str, str]) -> JsonObject:
        """What the key covers; `inputs` maps each role to the digest of what that step made."""
        return {
            "step": self.function.name,
            "revision": self.function.revision,
            "config": dict(self.config),
            "code": dict(self.code),
            "data": dict(self.data),
            "tools": dict(self.tools),
            "inputs": dict(inputs),
        }
