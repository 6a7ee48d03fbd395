"""The linter, as the differential test asks it: which errors does each model of a repository have?"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING

from modelwright.triton.releases import release

if TYPE_CHECKING:
    from modelwright.triton.releases import Release

Judge = Callable[[Path, bool], dict[str, list[str]]]  # (root, auto_complete) → {model: ids of the rules it breaks}

# What `harness.Servers` run: tritonserver 2.51.0, and the onnxruntime of the release that its environment is made for.
SERVER = "24.10"
ONNXRUNTIME_OF = "26.07"


@cache
def local_target() -> Release:
    """A release that was never published: the local server's."""
    new = release(ONNXRUNTIME_OF)
    return replace(release(SERVER), onnxruntime=new.onnxruntime, max_opset=new.max_opset, max_ir=new.max_ir)


def judge(root: Path, auto_complete: bool) -> dict[str, list[str]]:
    """The ids of the error rules that each model breaks, sorted. Warnings do not count; '' is the repository itself.

    Left out is what these servers do not look at: flavours of configs (they run without --model-config-name), and, of
    models that are ones, rules about servers that run otherwise: a hidden model loads if it is asked for by name.
    """
    from modelwright.lint.engine import lint
    from modelwright.lint.tree import RepositoryTree
    from modelwright.lint.view import Options

    found: dict[str, set[str]] = {}
    tree = RepositoryTree.read(root)
    for error in lint(tree, Options(local_target(), auto_complete)).errors:
        elsewhere = error.rule.unexercised and (root / error.model / "config.pbtxt").is_file()
        if not elsewhere and not error.file.startswith(f"{error.model}/configs/"):
            found.setdefault(error.model, set()).add(error.rule.id)
    for name, entry in tree.entries.items():
        if entry.kind == "file":
            found.setdefault(name, set()).add("no folder, so no model")  # which only these servers are asked for
    return {model: sorted(rules) for model, rules in found.items()}
