"""source.kind python: a version of Triton's Python backend that needs nothing installed where it is served.

version/model.py                the builder's own file, or a few lines that make the vendored packages importable
                                and then load it
version/<source.files>          as named
version/site-packages/          the wheels of requirements.lock, for the target release's Python
version/calls.json              the models that it calls, with the digest of what each one's version held
"""

from __future__ import annotations

import json
import shutil
from pathlib import Path

from modelwright.errors import StepError, located
from modelwright.facts.made import Made
from modelwright.kinds.python import PythonSource, Vendoring, lock_key, lock_of
from modelwright.project.files import local_file, published_file
from modelwright.project.lockfile import Lock
from modelwright.steps.context import StepContext
from modelwright.steps.ensemble import composing_digests
from modelwright.triton.layout import CALLS

PACKAGES = "site-packages"
OWN = "builder_model.py"  # the builder's file, where model.py is the one below

# Triton appends the version's folder to sys.path, behind the container's packages; vendored ones must come first.
_BOOTSTRAP = f'''"""Made by modelwright: puts the vendored packages first, then loads {OWN}, the builder's model.py."""

import importlib.util
import sys
from pathlib import Path

_here = Path(__file__).resolve().parent
sys.path.insert(0, str(_here / "{PACKAGES}"))
_spec = importlib.util.spec_from_file_location("builder_model", _here / "{OWN}")
_module = importlib.util.module_from_spec(_spec)
sys.modules["builder_model"] = _module
_spec.loader.exec_module(_module)
TritonPythonModel = _module.TritonPythonModel
'''


def run(context: StepContext, out: Path) -> Made:
    """Put the version's files together."""
    builder = context.builder
    source = context.source(PythonSource)
    version = out / "version"
    version.mkdir()
    for name, origin in source.files.items():
        target = version / name
        target.parent.mkdir(parents=True, exist_ok=True)
        shutil.copyfile(published_file(builder, f"source.files.{name}", origin), target)
    composing = composing_digests(context)
    if composing:
        (version / CALLS).write_text(json.dumps({"calls": composing}, indent=1) + "\n")
    own = local_file(builder, "source.model", source.model)
    lock = lock_in_key(context, source)
    if lock is None or not lock.wheels:
        shutil.copyfile(own, version / "model.py")
        return Made(composing_models=composing)
    shutil.copyfile(own, version / OWN)
    (version / "model.py").write_text(_BOOTSTRAP)
    return vendored(context, lock, version / PACKAGES, out).model_copy(update={"composing_models": composing})


def lock_in_key(context: StepContext, source: Vendoring) -> Lock | None:
    """The lock that the step's key has. Raises StepError where another one lies there by now."""
    lock = lock_of(context.builder, source, context.target)
    if lock and lock_key(lock) != context.config["lock"]:
        raise StepError(f"{context.builder.file}: requirements.lock was changed while the build ran", "build again")
    return lock


def vendored(context: StepContext, lock: Lock, folder: Path, out: Path) -> Made:
    """Put the wheels of a lock into a folder of the version."""
    from modelwright.steps.vendor import vendor

    log = out.parent / "pip.log"
    with located(f"{context.builder.file}: source.requirements"):
        missing = vendor(lock, context.wheels, folder, log)
    if missing:
        context.say(f"not vendored, though the requirements name them as dependencies: {', '.join(missing)}")
    pins = tuple(wheel.pin for wheel in lock.wheels)
    return Made(requirements=pins, dependencies_left_out=tuple(missing))
