"""A stamp of the last build that had nothing to do: the state of every file it looked at, by stat.

While the stamp holds, a build would read the same files and do nothing again, so its answer is known without reading
model.yaml, manifests or the store. The stamp covers the project's builders, templates and repository, the artifacts of
every step, files of installed packages that builders read, the installed packages, and this program itself. Any
change there, also one that would not matter, makes the next build look closely again. `--json` and the Python API never
use it. A project with a plugged-in kind has no stamp.
"""

from __future__ import annotations

import hashlib
import json
import os
import stat
import sys
from collections.abc import Iterable, Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from modelwright import __version__
from modelwright.fsops import read_file, write_cache
from modelwright.project.project import FILE, ProjectConfig

# A file changed this recently may change again without its timestamps moving.
_RACY_NS = 2_000_000_000
_IGNORED = "__pycache__"


@dataclass(frozen=True)
class Stamp:
    """What is known without looking: how many models the project has, and whether all were replayed as they are."""

    models: int
    replayed: bool


def asked(names: Sequence[str], everything: bool) -> list[str]:
    """What a build was asked for, as `read` and `write` take it: `*` is no model's name."""
    return [*names, "*"] if everything else list(names)


def read(project: ProjectConfig, names: Sequence[str] = ()) -> Stamp | None:
    """The stamp of a build of these models, or None when anything changed since, or there is no stamp."""
    with suppress(RecursionError, OSError, ValueError, KeyError, TypeError):
        data = json.loads(read_file(_file(project)))
        if data["key"] == _key(project, names):
            state, _ = _state([*_roots(project), *data["folders"]], [*_own_files(project), *data["files"]])
            if state == data["state"]:
                return Stamp(int(data["models"]), bool(data["replayed"]))
    return None


def write(
    project: ProjectConfig, names: Sequence[str], models: int, looked_at: Iterable[Path], started_ns: int
) -> None:
    """Keep the stamp of a build of `models` models that had nothing to do.

    `looked_at` are the files that it read outside of the project's own folders; `started_ns` (time.time_ns) is when it
    began. Nothing is kept when something changed since shortly before: another build must look again.
    """
    roots = _roots(project)
    # As texts: of a thousand models there are thousands of paths.
    inside, store = tuple(f"{root}{os.sep}" for root in roots), f"{project.store}{os.sep}"
    outside = {path for path in map(str, looked_at) if not path.startswith(inside)}
    alone = {path for path in outside if path.startswith(store) or os.path.dirname(path) in sys.path}  # noqa: PTH120
    # Of installed packages whole folders: a builder may read all that is in one.
    folders, files = sorted({os.path.dirname(path) for path in outside - alone}), sorted(alone)  # noqa: PTH120
    with suppress(RecursionError, OSError, ValueError):
        state, newest_ns = _state([*roots, *folders], [*_own_files(project), *files])
        if newest_ns + _RACY_NS > started_ns:
            return
        data = {"models": models, "key": _key(project, names), "state": state, "folders": folders, "files": files}
        if not data.items() <= _kept(project).items():  # else what is there may know of a replay, too
            _keep(project, data | {"replayed": False})


def mark_replayed(project: ProjectConfig, names: Sequence[str] = ()) -> None:
    """Note in the stamp of a build of these models, where that is the last one, that each version of them passed."""
    known = _kept(project)
    if known and known["key"] == _key(project, names):
        _keep(project, known | {"replayed": True})


def _kept(project: ProjectConfig) -> dict[str, Any]:
    """The stamp's file; empty where there is none, or it is damaged."""
    with suppress(RecursionError, OSError, ValueError):
        data = json.loads(read_file(_file(project)))
        return data if isinstance(data, dict) else {}
    return {}


def _keep(project: ProjectConfig, data: dict[str, Any]) -> None:
    write_cache(_file(project), json.dumps(data))


def _file(project: ProjectConfig) -> Path:
    return project.state / "cache" / "nothing-to-do.json"


def _key(project: ProjectConfig, names: Sequence[str]) -> list[Any]:
    """What is no file: the program, the interpreter, where packages are found, and what a command chooses."""
    chosen = project.plan_places.plan_builder
    return [__version__, sys.version, sys.executable, sys.path, str(project.root), sorted(names), chosen]


def _roots(project: ProjectConfig) -> list[str]:
    """Folders of which every file counts."""
    program = Path(__file__).parents[1]
    templates = (project.templates, program.parent / "templates")
    return [str(path) for path in (project.builders, project.repository, *templates, program)]


def _own_files(project: ProjectConfig) -> list[str]:
    """Single files, and the folders in which packages are installed: their timestamps change with what is installed."""
    cache = project.state / "cache"
    caches = (cache / "configs.json", cache / "replayed.json")
    return [*map(str, (project.root / FILE, project.server, *caches)), *sys.path, *_metadata()]


def _metadata() -> Iterator[str]:
    """What installed distributions say of their versions and plug-ins. It can be rewritten in place."""
    for place in sys.path:
        with suppress(OSError), os.scandir(place) as entries:
            for entry in sorted(entries, key=lambda item: item.name):
                if entry.name.endswith((".dist-info", ".egg-info")):
                    yield from (f"{entry.path}/{name}" for name in ("METADATA", "PKG-INFO", "entry_points.txt"))


def _state(roots: Iterable[str], files: Iterable[str]) -> tuple[str, int]:
    """A digest of the stat of everything, and the time of the newest change in ns.

    Raises ValueError for a link to a folder: what it leads to is not looked at here.
    """
    digest = hashlib.sha256()
    newest_ns = 0
    for path, status in _statuses(roots, files):
        if status is None:
            digest.update(f"{path}\0-\n".encode("utf-8", "surrogateescape"))
            continue
        newest_ns = max(newest_ns, status.st_mtime_ns, status.st_ctime_ns)
        fields = (status.st_mode, status.st_ino, status.st_size, status.st_mtime_ns, status.st_ctime_ns)
        digest.update(f"{path}\0{fields}\n".encode("utf-8", "surrogateescape"))
    return digest.hexdigest(), newest_ns


def _statuses(roots: Iterable[str], files: Iterable[str]) -> Iterator[tuple[str, os.stat_result | None]]:
    for path in files:
        yield path, _stat(path)
    waiting = list(roots)
    while waiting:
        folder = waiting.pop()
        yield folder, _stat(folder)
        with suppress(FileNotFoundError, NotADirectoryError), os.scandir(folder) as entries:
            for entry in sorted(entries, key=lambda item: item.name):
                if entry.name == _IGNORED:
                    continue
                status = entry.stat(follow_symlinks=False)
                if stat.S_ISDIR(status.st_mode):
                    waiting.append(entry.path)
                    continue
                yield entry.path, status
                if stat.S_ISLNK(status.st_mode):
                    target = _stat(entry.path)
                    if target is not None and stat.S_ISDIR(target.st_mode):
                        raise ValueError(f"{entry.path}: a link to a folder")
                    yield entry.path, target


def _stat(path: str) -> os.stat_result | None:
    try:
        return os.stat(path)  # noqa: PTH116  (thousands of these: a Path costs more than the call)
    except (FileNotFoundError, NotADirectoryError):
        return None
