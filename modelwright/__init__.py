"""Builds versioned model repositories for NVIDIA Triton Inference Server."""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

__version__ = "0.1.0"

if TYPE_CHECKING:
    from modelwright.api import Project, lint_repository
    from modelwright.bench.bench import Asked
    from modelwright.bench.document import BenchResult
    from modelwright.build.listener import Listener
    from modelwright.build.locks import LockedModel
    from modelwright.build.outcome import Outcome
    from modelwright.build.plan import BuildPlan, Planned
    from modelwright.build.source_locks import LockedSources
    from modelwright.errors import ModelwrightError
    from modelwright.lint.engine import Finding, LintReport
    from modelwright.operations.adopt import Adoption
    from modelwright.operations.change import Changed
    from modelwright.operations.diff import VersionDiff
    from modelwright.operations.gc import Collected
    from modelwright.operations.history import History
    from modelwright.operations.infer import Answer
    from modelwright.operations.pick import Picked
    from modelwright.operations.preview import Preview
    from modelwright.operations.remote import RemoteDifference
    from modelwright.operations.replay import Replayed
    from modelwright.operations.scaffold import Scaffold
    from modelwright.operations.status import ModelStatus
    from modelwright.operations.track import Bundled
    from modelwright.operations.versions import ModelVersions, VersionStatus
    from modelwright.remotes.pull import Pulled
    from modelwright.remotes.push import Pushed
    from modelwright.server.local import Ports
    from modelwright.server.session import Served
    from modelwright.tracking.recorder import Sent

# The same, for running code: imported when first used, so that `import modelwright` costs nothing.
_PUBLIC = {
    "Adoption": "operations.adopt:Adoption",
    "Answer": "operations.infer:Answer",
    "Asked": "bench.bench:Asked",
    "BenchResult": "bench.document:BenchResult",
    "BuildPlan": "build.plan:BuildPlan",
    "Bundled": "operations.track:Bundled",
    "Changed": "operations.change:Changed",
    "Collected": "operations.gc:Collected",
    "Finding": "lint.engine:Finding",
    "History": "operations.history:History",
    "LintReport": "lint.engine:LintReport",
    "Listener": "build.listener:Listener",
    "LockedModel": "build.locks:LockedModel",
    "LockedSources": "build.source_locks:LockedSources",
    "ModelStatus": "operations.status:ModelStatus",
    "ModelVersions": "operations.versions:ModelVersions",
    "ModelwrightError": "errors:ModelwrightError",
    "Outcome": "build.outcome:Outcome",
    "Picked": "operations.pick:Picked",
    "Planned": "build.plan:Planned",
    "Ports": "server.local:Ports",
    "Preview": "operations.preview:Preview",
    "Project": "api:Project",
    "Pulled": "remotes.pull:Pulled",
    "Pushed": "remotes.push:Pushed",
    "RemoteDifference": "operations.remote:RemoteDifference",
    "Replayed": "operations.replay:Replayed",
    "Scaffold": "operations.scaffold:Scaffold",
    "Sent": "tracking.recorder:Sent",
    "Served": "server.session:Served",
    "VersionDiff": "operations.diff:VersionDiff",
    "VersionStatus": "operations.versions:VersionStatus",
    "lint_repository": "api:lint_repository",
}
__all__ = [
    "Adoption",
    "Answer",
    "Asked",
    "BenchResult",
    "BuildPlan",
    "Bundled",
    "Changed",
    "Collected",
    "Finding",
    "History",
    "LintReport",
    "Listener",
    "LockedModel",
    "LockedSources",
    "ModelStatus",
    "ModelVersions",
    "ModelwrightError",
    "Outcome",
    "Picked",
    "Planned",
    "Ports",
    "Preview",
    "Project",
    "Pulled",
    "Pushed",
    "RemoteDifference",
    "Replayed",
    "Scaffold",
    "Sent",
    "Served",
    "VersionDiff",
    "VersionStatus",
    "__version__",
    "lint_repository",
]


def __getattr__(name: str) -> Any:
    if name not in _PUBLIC:
        raise AttributeError(f"module 'modelwright' has no attribute '{name}'")
    module, _, attribute = _PUBLIC[name].partition(":")
    return getattr(import_module(f"modelwright.{module}"), attribute)


def __dir__() -> list[str]:
    return sorted({*globals(), *_PUBLIC})
