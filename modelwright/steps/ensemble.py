"""source.kind ensemble: nothing to run, but a version to tell apart.

An ensemble's answers change when a member's do. So its version holds `ensemble.json`: the steps, and the digest of what
each member's version held when this one was verified. A member's new payload gives the ensemble a new version, with
golden outputs of its own. (It also keeps the version's folder from being empty, which some copy tools drop.)
"""

from __future__ import annotations

import json
from pathlib import Path

from modelwright.digest import list_tree, sha256_file, tree_digest
from modelwright.facts.made import Made
from modelwright.steps.context import StepContext
from modelwright.triton.layout import ENSEMBLE


def run(context: StepContext, out: Path) -> Made:
    """Write the version's `ensemble.json`."""
    composing = composing_digests(context)
    version = out / "version"
    version.mkdir()
    content = {"steps": context.config["steps"], "members": composing}
    (version / ENSEMBLE).write_text(json.dumps(content, indent=1, sort_keys=True) + "\n")
    return Made(composing_models=composing)


def composing_digests(context: StepContext) -> dict[str, str]:
    """{composing model: version digest}: what each one's version holds that this version is made to run with."""
    return {role: version_digest(newest_version(folder)) for role, folder in sorted(context.inputs.items())}


def newest_version(artifact: Path) -> Path:
    """What a model's payload step made: one version, or those of a prebuilt model, of which the newest counts."""
    prebuilt = artifact / "versions"
    return max(prebuilt.iterdir(), key=lambda path: int(path.name)) if prebuilt.is_dir() else artifact / "version"


def version_digest(version: Path) -> str:
    """The digest of what a version holds, less its manifest and golden samples."""
    return tree_digest({name: sha256_file(path) for name, path in list_tree(version).items()})
