"""Changing one value of a model.yaml as text: everything else, comments and layout included, stays as it is."""

from __future__ import annotations

from collections.abc import Sequence

import yaml

from modelwright.project.writer import as_yaml


def with_value(text: str, path: Sequence[str], value: str) -> str:
    """The text with another scalar at `path` ("source", "serves"). Raises KeyError where there is no such scalar."""
    node = yaml.compose(text, Loader=yaml.SafeLoader)
    for name in path:
        pairs = node.value if isinstance(node, yaml.MappingNode) else ()
        node = next((found for key, found in pairs if key.value == name), None)
        if node is None:
            raise KeyError(name)
    if not isinstance(node, yaml.ScalarNode):
        raise KeyError(path[-1])
    return text[: node.start_mark.index] + as_yaml(value) + text[node.end_mark.index :]
