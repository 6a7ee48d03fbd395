"""What lies at a URI, fetched to be looked at: the same recognisers as for files of this machine."""

from __future__ import annotations

import contextlib
import os
import shutil
from collections.abc import Collection, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from modelwright.build.lock_files import Say
from modelwright.errors import ModelwrightError, SpecError
from modelwright.kinds.registry import find, registered
from modelwright.project.project import ProjectConfig
from modelwright.project.source_lock import SourceLock
from modelwright.project.uris import file_name, file_uri, is_file_scheme
from modelwright.steps.sources.registry import open_source
from modelwright.steps.sources.resolve import KEPT, Resolver, Selection


@dataclass(frozen=True)
class LookedAt:
    """A URI whose files lie at `path` for now."""

    path: Path
    lock: SourceLock


@contextlib.contextmanager
def looked_at(project: ProjectConfig, uri: str, say: Say) -> Iterator[LookedAt]:
    """Fetch what a URI stands for. What was fetched stays for the first build, unless the block raises.

    Raises ModelwrightError for what is no URI, not there, or does not answer.
    """
    cache = project.state / "cache"
    with _from(uri):
        _check(uri)
        lock = Resolver(cache, project.fetch_limits, say, project.registry).resolve(
            uri, Selection(_beside, _left_out(uri))
        )
    folder = cache / f"looking-{os.getpid()}"
    try:
        for name, file in lock.files.items():
            (folder / name).parent.mkdir(parents=True, exist_ok=True)
            os.link(cache / KEPT / file.sha256, folder / name)
        yield LookedAt(folder if lock.is_folder else folder / file_name(uri), lock)
    except BaseException:
        for file in lock.files.values():
            (cache / KEPT / file.sha256).unlink(missing_ok=True)
        raise
    finally:
        shutil.rmtree(folder, ignore_errors=True)


@contextlib.contextmanager
def _from(uri: str) -> Iterator[None]:
    """Say in messages where the URI comes from; most begin with it."""
    try:
        yield
    except ModelwrightError as error:
        where = "--from" if error.message.startswith(uri) else f"--from {uri}:"
        raise type(error)(f"{where} {error.message}", error.hint) from error.__cause__


def _check(uri: str) -> None:
    if is_file_scheme(uri):
        try:
            file_uri(uri)
        except ValueError as error:
            raise SpecError(str(error)) from None


def _beside(path: Path) -> list[str]:
    """What any kind takes from beside a file: which kind it will be is seen once the file is there."""
    return sorted({name for kind in registered().kinds.values() for name in kind.files_beside_source(path)})


def _left_out(uri: str) -> Sequence[str]:
    """What is not fetched of a Hugging Face directory, which often has the weights in several formats."""
    if not is_file_scheme(uri):
        return ()
    source = open_source(uri)
    is_one = source.is_folder and _is_huggingface(source.files().keys())
    return find("huggingface").left_out_of_source if is_one else ()


def _is_huggingface(names: Collection[str]) -> bool:
    return "config.json" in names and any("/" not in name and name.endswith(".safetensors") for name in names)
