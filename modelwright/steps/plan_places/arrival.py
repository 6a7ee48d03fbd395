"""A result that came back: complete and for this request, or the error that says how its builder ended."""

from __future__ import annotations

from pathlib import Path

from modelwright.steps.plan_places.log import BuildersLog
from modelwright.steps.plan_places.parcel import LIST, check

OUT_OF_MEMORY = 137  # 128 + SIGKILL: what the kernel sends when memory runs out
_HINT = "nothing of it was used; build again, and report it if it dies again"
_NAME_IMAGE = "by tensorrt.image in modelwright.toml"
# What is in a builder's last lines → what to do.
_HINTS = {
    "could not select device driver": "install the NVIDIA Container Toolkit, and restart Docker",
    "pull access denied": f"log in to the registry, or name an image that can be pulled, {_NAME_IMAGE}",
    "manifest unknown": f"the registry has no such image: name one that it has, {_NAME_IMAGE}",
    "manifest for": f"the registry has no such image: name one that it has, {_NAME_IMAGE}",
    "unauthorized": "log in to the registry: docker login nvcr.io",
    "Cannot connect to the Docker daemon": "start Docker",
    "permission denied while trying to connect": "let this user talk to Docker: add it to the group docker",
    "no such service": "add the service plan-builder to docker-compose.yml, as `modelwright init` writes it",
    "No such service": "add the service plan-builder to docker-compose.yml, as `modelwright init` writes it",
    "start.sh": "the container does not see this machine's folders: Docker's engine must run on this machine",
    "No module named pip": f"the image has no pip: name one that holds polygraphy and pydantic, {_NAME_IMAGE}",
    "No matching distribution": f"no package index there: name an image with polygraphy and pydantic, {_NAME_IMAGE}",
    "No space left on device": "free some space there",
}


def arrived(folder: Path, out: Path, answers: str, *, code: int, log: BuildersLog, where: str) -> None:
    """Move a checked result to `out`. Raises StepError for any other end of the builder than a complete result."""
    if not (folder / LIST).is_file():
        raise log.died(f"{where}: the plan builder died half-way, {ending(code)}", hint_for(code, log))
    check(folder, f"{where}: the plan builder's result", answers)
    (folder / LIST).unlink()
    folder.rename(out)


def ending(code: int) -> str:
    return "killed: the machine may be out of memory" if code == OUT_OF_MEMORY else f"exit code {code}"


def hint_for(code: int, log: BuildersLog) -> str:
    if code == OUT_OF_MEMORY:
        return "give it more memory, or lower tensorrt.workspace of the variant"
    end = log.end
    return next((hint for text, hint in _HINTS.items() if text in end), _HINT)
