"""A model that a strategy is making: its config, its files, and how often something in it is wrong."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any, TypeVar

from google.protobuf import text_format
from hypothesis import strategies as st
from hypothesis.strategies import DrawFn

from modelwright.triton.model_config_pb2 import schema
from tests.lint.trees import Content

FAULT_PERCENT = 2
Value = TypeVar("Value")


@dataclass
class Draft:
    """A model under construction: its config and its files."""

    draw: DrawFn
    name: str
    config: Any = field(default_factory=lambda: schema().ModelConfig())
    files: dict[str, Content] = field(default_factory=dict)
    fault_percent: int = FAULT_PERCENT

    def chance(self, percent: int) -> bool:
        """Rarely true. False is the simpler choice when hypothesis shrinks.

        Not from a larger range: beyond 127 values hypothesis draws the bounds far too often.
        """
        return self.draw(st.integers(0, 99)) >= 100 - percent

    def one(self, *values: Value) -> Value:
        return self.draw(st.sampled_from(values))

    def near(self, good: Sequence[Value], bad: Sequence[Value]) -> Value:
        """A good value, or rarely a bad one."""
        return self.draw(st.sampled_from(list(bad if bad and self.fault() else good)))

    def fault(self) -> bool:
        return self.chance(self.fault_percent)

    @property
    def batched(self) -> bool:
        return bool(self.config.max_batch_size > 0)

    def tree(self) -> dict[str, Content]:
        text = text_format.MessageToString(self.config)
        files = {"config.pbtxt": _mutated(self, text) if self.fault_percent else text, **self.files}
        return {f"{self.name}/{name}": content for name, content in files.items()}


def _mutated(draft: Draft, text: str) -> str:
    """Rarely, a slip of the pen."""
    lines = text.splitlines()
    if not lines or not draft.chance(FAULT_PERCENT + 1):
        return text
    at = draft.draw(st.integers(0, len(lines) - 1))
    lines[at : at + 1] = draft.one(*_slips(lines[at]))
    return "\n".join(lines) + "\n"


def _slips(line: str) -> list[list[str]]:
    name = line.split(":")[0].split("{")[0].strip()
    return [
        [line.replace(name, f"{name[:-1]}", 1)],
        [line.replace(name, f"{name}s", 1)],
        [line, line],
        [],
        [line.replace("_", "", 1)],
        [line.replace("TYPE_", "", 1)],
        [line.replace(":", "", 1)],
        [f"{line};"],
        [f"# {line}"],
        [line.replace('"', "", 1)],
    ]
