"""From `requirements` to a lock: uv finds the versions for the target's Python, pip fetches the wheels of them.

uv resolves for another interpreter and platform than its own, markers included, which pip cannot. It is needed only
here: a build installs from the lock with pip alone.
"""

from __future__ import annotations

import importlib.util
import re
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path

from modelwright.errors import SpecError, StepError
from modelwright.project.lockfile import Lock, Wanted
from modelwright.steps.wheels import download, glibc_minor

_INSTALL_UV = "pip install 'modelwright[lock]'"
_UNREACHABLE = re.compile(
    r"Failed to fetch|error sending request|network was disabled|dns error|Could not connect|tcp connect|timed out",
    re.IGNORECASE,
)


def resolve(wanted: Wanted, shown: str, before: Lock | None, cache: Path) -> Lock:
    """The lock of what is wanted. Versions that `before` has are kept where they still fit.

    `shown` is how messages call the model.yaml. The wheels end up in `cache`. Raises SpecError for requirements that
    cannot be met, StepError where uv is missing or the package index cannot be reached.
    """
    for text in wanted.requirements:
        _check(text, wanted, shown)
    uv = _uv()
    if uv is None:
        message = f"{shown}: source.requirements: uv, which resolves them, is not installed"
        raise StepError(message, f"{_INSTALL_UV}, or commit a requirements.lock that was made elsewhere")
    with tempfile.TemporaryDirectory(prefix="modelwright-lock-") as name:
        folder = Path(name)
        compiled = _compile(uv, wanted, shown, before, folder)
        try:
            wheels = download(compiled, wanted.python, cache, folder / "pip.log") if compiled else []
        except StepError as error:
            raise StepError(f"{shown}: source.requirements: {error.message}", error.hint) from None
    return Lock(wanted, tuple(wheels))


def _check(text: str, wanted: Wanted, shown: str) -> None:
    from packaging.requirements import InvalidRequirement, Requirement
    from packaging.utils import canonicalize_name

    where = f"{shown}: source.requirements: '{text}'"
    try:
        requirement = Requirement(text)
    except InvalidRequirement as error:
        hint = "write a name and its versions, as pip takes them: jinja2>=3.1"
        raise SpecError(f"{where}: {str(error).splitlines()[0]}", hint) from None
    if requirement.url:
        raise SpecError(f"{where}: a package of an index is needed, not a URL", f"write {requirement.name}==VERSION")
    if canonicalize_name(requirement.name) in map(canonicalize_name, wanted.exclude):
        raise SpecError(f"{where}: source.exclude_dependencies leaves it out", "take it out of one of the two")


def _uv() -> str | None:
    """The uv of this environment, or the one on PATH."""
    if importlib.util.find_spec("uv"):
        from uv import find_uv_bin

        try:
            return str(find_uv_bin())
        except FileNotFoundError:
            pass
    return shutil.which("uv")


def _compile(uv: str, wanted: Wanted, shown: str, before: Lock | None, folder: Path) -> list[str]:
    """uv's answer: a requirement line with the hashes of all its files for each distribution, numpy left out."""
    texts = {
        "requirements.in": wanted.requirements,
        "constraints.txt": [f"numpy=={wanted.numpy}"],
        # A distribution that is needed nowhere: with it goes what only it needs.
        "overrides.txt": [f"{name}; sys_platform == 'never'" for name in wanted.exclude],
        "out.txt": [wheel.pin for wheel in before.wheels] if before else [],
    }
    for name, lines in texts.items():
        (folder / name).write_text("".join(f"{line}\n" for line in lines), encoding="utf-8")
    done = subprocess.run(
        [
            uv, "pip", "compile", str(folder / "requirements.in"), f"--output-file={folder / 'out.txt'}",
            f"--constraints={folder / 'constraints.txt'}", f"--override={folder / 'overrides.txt'}",
            f"--python={sys.executable}", f"--python-version={wanted.python}",
            f"--python-platform=x86_64-manylinux_2_{glibc_minor(wanted.python)}", "--only-binary=:all:",
            "--generate-hashes", "--no-emit-package=numpy", "--no-header", "--no-annotate", "--quiet", "--color=never",
        ],
        capture_output=True, text=True, errors="replace", check=False,
    )  # fmt: skip
    if done.returncode:
        raise _uv_error(done.stderr, wanted, shown)
    return _joined((folder / "out.txt").read_text(encoding="utf-8"))


def _joined(text: str) -> list[str]:
    lines = text.replace("\\\n", " ").splitlines()
    return [" ".join(line.split()) for line in lines if line.strip() and not line.startswith("#")]


def _uv_error(output: str, wanted: Wanted, shown: str) -> SpecError | StepError:
    lines = [line.strip() for line in output.splitlines() if line.strip()]
    reason = "\n".join(lines).removeprefix("error: ")
    where = f"{shown}: source.requirements"
    if _UNREACHABLE.search(output):
        hint = "check the network and uv's index settings; what is locked already needs neither"
        return StepError(f"{where}: the package index cannot be reached: {_first(lines)}", hint)
    if f"numpy=={wanted.numpy}" in output:
        hint = f"the container has numpy {wanted.numpy}, and models use that one: choose versions that work with it"
        return SpecError(f"{where}: {reason}", hint)
    hint = f"wheels for CPython {wanted.python} on manylinux x86-64 are needed: check names and versions"
    return SpecError(f"{where}: {reason}", hint)


def _first(lines: Sequence[str]) -> str:
    return lines[0].removeprefix("error: ") if lines else "uv said nothing"
