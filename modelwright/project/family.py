"""Which models belong together: an ensemble, or a Python model, and the composing models that it runs."""

from __future__ import annotations

from collections.abc import Mapping

from modelwright.errors import SpecError
from modelwright.project.spec import Builder


def family_of(builder: Builder, builders: Mapping[str, Builder]) -> list[str]:
    """A model and all its composing models, theirs included. Raises SpecError for a cycle."""
    family: dict[str, None] = {}

    def visit(name: str, path: tuple[str, ...]) -> None:
        if name in path:
            circle = " → ".join([*path[path.index(name) :], name])
            raise SpecError(
                f"{builders[path[-1]].file}: models run each other in a circle: {circle}",
                "a model cannot run itself, directly or through others: remove one of these names",
            )
        family[name] = None
        for composing in builders[name].composing:
            if composing in builders:
                visit(composing, (*path, name))

    visit(builder.name, ())
    return list(family)
