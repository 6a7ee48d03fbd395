"""What onnxruntime knows of operators: the types that each input and output of a node may have.

The schemas are those of the installed onnxruntime, its own operators (com.microsoft) included: `onnx.defs` has only the
standard ones.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from functools import cache
from typing import TYPE_CHECKING

from modelwright.onnx.canonical import all_nodes

if TYPE_CHECKING:
    from onnx import ModelProto, NodeProto

_DOMAINS = {"ai.onnx": ""}  # two names of one domain


@dataclass(frozen=True)
class Slot:
    """A formal input or output. `type` is a type, "tensor(float)", or the name of a variable, "T"."""

    type: str
    variadic: bool = False


@dataclass(frozen=True)
class Operator:
    inputs: tuple[Slot, ...]
    outputs: tuple[Slot, ...]
    types: Mapping[str, frozenset[str]]  # variable → the types that it may stand for

    def input_types(self, count: int) -> Iterator[str]:
        """The type, or the variable, of each of the first `count` inputs of a node."""
        return _expanded(self.inputs, count)

    def output_types(self, count: int) -> Iterator[str]:
        return _expanded(self.outputs, count)


def opsets(model: ModelProto) -> dict[str, int]:
    """{domain: version} that a model imports; "" is ai.onnx."""
    return {_DOMAINS.get(item.domain, item.domain): item.version for item in model.opset_import}


def operator(node: NodeProto, versions: Mapping[str, int]) -> Operator | None:
    """The operator of a node; None where onnxruntime does not have it: it is a custom one."""
    domain = _DOMAINS.get(node.domain, node.domain)
    known = _operators().get((domain, node.op_type), {})
    version = max((since for since in known if since <= versions.get(domain, 1)), default=None)
    return None if version is None else known[version]


def used_operators(model: ModelProto) -> dict[str, set[str]]:
    """{domain: operators} of all nodes, inside others too; "" is ai.onnx."""
    found: dict[str, set[str]] = {}
    for node in all_nodes(model):
        found.setdefault(_DOMAINS.get(node.domain, node.domain), set()).add(node.op_type)
    return found


def forget_unused_domains(model: ModelProto) -> None:
    """Drop the imports of domains that no node uses, in place: onnxruntime writes down all that it knows."""
    used = {node.domain for node in all_nodes(model)} | {"", *(item.domain for item in model.functions)}
    kept = [(item.domain, item.version) for item in model.opset_import if item.domain in used]
    del model.opset_import[:]
    for domain, version in kept:
        model.opset_import.add(domain=domain, version=version)


def _expanded(slots: tuple[Slot, ...], count: int) -> Iterator[str]:
    """A variadic slot, always the last one, stands for all that follow."""
    for index in range(count):
        slot = slots[min(index, len(slots) - 1)] if slots else Slot("")
        yield slot.type if index < len(slots) or slot.variadic else ""


@cache
def _operators() -> dict[tuple[str, str], dict[int, Operator]]:
    """{(domain, name): {the version of the domain that introduced it: operator}}."""
    from onnxruntime.capi.onnxruntime_pybind11_state import get_all_operator_schema, schemadef

    variadic = schemadef.OpSchema.FormalParameterOption.Variadic
    found: dict[tuple[str, str], dict[int, Operator]] = {}
    for schema in get_all_operator_schema():
        if schema.deprecated:
            continue
        slots = [
            tuple(Slot(item.typeStr, item.option == variadic) for item in group)
            for group in (schema.inputs, schema.outputs)
        ]
        types = {item.type_param_str: frozenset(item.allowed_type_strs) for item in schema.type_constraints}
        found.setdefault((schema.domain, schema.name), {})[schema.since_version] = Operator(slots[0], slots[1], types)
    return found
