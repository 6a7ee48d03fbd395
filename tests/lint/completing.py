"""Python models whose config lacks something, and whose model.py fills it in, or does not."""

from __future__ import annotations

from typing import Any

from modelwright.triton.model_config_pb2 import schema
from modelwright.triton.shapes import element_counts
from tests.lint.draft import Draft


def is_whole(draft: Draft) -> bool:
    """Whether a config is such that all of it may be completed: what the server refuses is not for code to repair."""
    tensors = [*draft.config.input, *draft.config.output]
    names = {tensor.name for tensor in tensors}
    return len(names - {""}) == len(tensors) and all(_is_sound(tensor, draft.batched) for tensor in tensors)


def _is_sound(tensor: Any, batched: bool) -> bool:
    if not tensor.data_type or not tensor.dims or any(dim < 1 and dim != -1 for dim in tensor.dims):
        return False
    if getattr(tensor, "format", 0) and len(tensor.dims) != 3:
        return False
    shape = tensor.reshape.shape
    return not tensor.HasField("reshape") or (
        element_counts(list(tensor.dims)) == element_counts(list(shape)) and bool(shape or batched)
    )


def forgetful(draft: Draft) -> None:
    """Leave something out of the config. Mostly the code of every version puts it in again, where the server asks."""
    if not draft.chance(30):
        lines = _lines(draft)
        for name, content in draft.files.items():
            if name.endswith("model.py") and isinstance(content, str):
                draft.files[name] = content.replace("    def execute", f"{lines}\n    def execute", 1)
    _forget(draft)


def _lines(draft: Draft) -> str:
    """auto_complete_config as it makes the config that is there now."""
    config = draft.config
    lines = ["    @staticmethod", "    def auto_complete_config(config):"]
    # A negative size raises, which only running the code would tell.
    lines.append(f"        config.set_max_batch_size({max(0, config.max_batch_size)})")
    for side in ("input", "output"):
        for tensor in getattr(config, side):
            kind = schema().DataType.Name(tensor.data_type)
            entry = {"name": tensor.name, "data_type": kind, "dims": list(tensor.dims)}
            if getattr(tensor, "optional", False):
                entry["optional"] = True
            lines.append(f"        config.add_{side}({entry})")
    return "\n".join([*lines, "        return config", ""])


def _forget(draft: Draft) -> None:
    config = draft.config
    if draft.chance(40):
        config.max_batch_size = 0
    what = draft.one("data_type", "dims", "both", "input", "output", "all")
    for side in ("input", "output"):
        if what in (side, "all"):
            config.ClearField(side)
        for tensor in getattr(config, side):
            if what in ("data_type", "both"):
                tensor.ClearField("data_type")
            if what in ("dims", "both"):
                tensor.ClearField("dims")
