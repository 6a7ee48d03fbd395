"""A model repository that others made, as adoption reads it: nothing is written there, files are opened to be read.

Names mean what they mean to a server: `0` and `5.tmp` are versions, `05` is not, and every folder at the root is a
model. What cannot be carried over is reported (`NotCarried`). Where the model changes without it, that is an error.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from modelwright.config.render import parse
from modelwright.digest import sha256_file
from modelwright.errors import RepositoryError, SpecError
from modelwright.facts.verified import GoldenComparison
from modelwright.fsops import TooLargeError, read_file
from modelwright.project.spec import FILE
from modelwright.repository.manifest import is_ours, read
from modelwright.triton.layout import (
    CONFIG,
    GOLDEN,
    LEDGER,
    MANIFEST,
    SBOM,
    SIGNATURE,
    in_range,
    leading_number,
    version_number,
    version_served,
)
from modelwright.triton.pbtext import invalid_strings, parse_tree

WHOLE = "(the model)"
_MOST_ENTRIES = 10_000  # digests of files stand in model.yaml; and links to folders can multiply what is there
_MOST_CONFIG_BYTES = 1_000_000
_STRING = re.compile(r'"(?:\\.|[^"\\\n])*"|\'(?:\\.|[^\'\\\n])*\'')


@dataclass(frozen=True)
class NotCarried:
    """One thing that is not carried over, and why."""

    model: str
    thing: str
    why: str


@dataclass(frozen=True)
class FoundGolden:
    """Golden samples of a version that Modelwright made."""

    path: Path
    comparison: GoldenComparison
    composing_models: dict[str, str]  # an ensemble's: name → version digest when they were recorded


@dataclass
class FoundModel:
    """One model of the repository: its files by their names there."""

    name: str
    config: Any  # the ModelConfig; empty where there is no config.pbtxt
    has_config: bool = False
    has_comments: bool = False
    versions: dict[int, dict[str, Path]] = field(default_factory=dict)
    files: dict[str, Path] = field(default_factory=dict)  # beside config.pbtxt
    golden: dict[int, FoundGolden] = field(default_factory=dict)
    is_ours: bool = False  # Modelwright published versions of it
    left: list[NotCarried] = field(default_factory=list)


def models_of(root: Path) -> tuple[dict[str, Path], list[NotCarried]]:
    """Every folder that a server takes for a model; and what lies beside them. Raises RepositoryError for no folder."""
    if not root.is_dir():
        raise RepositoryError(f"{root}: there is no such folder", "give the folder that --model-repository would name")
    if (root / CONFIG).is_file():
        raise RepositoryError(f"{root}: is one model, not a repository of models", f"give {root.parent}")
    models, left = {}, []
    for path in sorted(root.iterdir()):
        if path.is_dir():
            models[path.name] = path
        elif path.is_symlink() and not path.exists():
            left.append(NotCarried(_shown(path.name), WHOLE, "a dangling link"))
        elif path.name == LEDGER:
            left.append(NotCarried("", LEDGER, "the ledger of that repository: this one has its own"))
        else:
            left.append(NotCarried("", _shown(path.name), "no folder, so no model: a server does not look at it"))
    return models, left


def read_model(root: Path, folder: Path) -> FoundModel:
    """One model, with everything of it that can be carried over. `root` is resolved: links must stay below it.

    Raises ConfigError for a config.pbtxt that does not parse, SpecError for what cannot be left behind.
    """
    name = folder.name
    if not folder.resolve().is_relative_to(root):
        raise SpecError(f"a link that leads out of the repository, to {folder.resolve()}", "adopt that repository")
    found = FoundModel(name, parse("", name))
    walk = _Walk(root, found)
    for path in walk.entries(folder, ""):
        if path.is_dir():
            _take_folder(walk, path)
        elif path.name == CONFIG:
            _take_config(found, path)
        elif path.name.startswith("."):
            found.left.append(NotCarried(name, path.name, "hidden"))
        elif path.name == FILE or path.name.endswith(".j2"):
            found.left.append(NotCarried(name, path.name, "Modelwright reads a file of this name in a builder itself"))
        else:
            walk.take(path, path.name)
            found.files[path.name] = path
    found.versions = dict(sorted(found.versions.items()))
    if not found.versions:
        raise SpecError("has no version directory (0, 1, 2, …): a server would not load it")
    for number in found.versions:
        _take_golden(found, number)
    if walk.executable:
        why = "Modelwright publishes files without it"
        found.left.append(
            NotCarried(name, f"the executable bit of {walk.executable[0]}{_and_more(walk.executable)}", why)
        )
    if found.is_ours:
        why = "Modelwright's own: publishing writes a new one; metrics and lineage stay with the old"
        found.left.append(NotCarried(name, f"{MANIFEST} of each version", why))
    return found


def _take_config(found: FoundModel, path: Path) -> None:
    where = f"{found.name}/{CONFIG}"
    try:
        data = read_file(path, _MOST_CONFIG_BYTES)
    except TooLargeError as error:
        raise SpecError(f"{where}: {error.strerror}: too large for a config") from None
    except OSError as error:
        raise SpecError(f"{where}: cannot be read: {error.strerror}") from None
    found.config, found.has_config = parse(data, where), True
    for wrong in invalid_strings(parse_tree(data)):
        raise SpecError(f"{where}:{wrong.line}: {wrong.name} is not UTF-8", "the server reads an empty string there")
    found.has_comments = "#" in _STRING.sub("", data.decode("utf-8", "replace"))


def _take_folder(walk: _Walk, path: Path) -> None:
    """A folder of the model: a version, one that a server mistakes for one, or files that the model reads."""
    found, name = walk.found, path.name
    reason = _not_carried(name)
    if reason:
        found.left.append(NotCarried(found.name, f"{name}/", reason))
        return
    number = version_number(name)
    if number is not None:
        found.versions[number] = walk.files(path, f"{name}/")
    else:
        found.files |= {f"{name}/{file}": origin for file, origin in walk.files(path, f"{name}/").items()}


def _not_carried(name: str) -> str:
    """Why a folder is neither a version nor files of the model; '' when it is."""
    number = leading_number(name)
    if name.startswith("."):
        return "hidden"
    if name == "__pycache__":
        return "Python makes it again"
    if number is None or version_number(name) is not None:
        return ""
    if version_served(name) is None:
        return "a server ignores versions with leading zeros"
    if not in_range(number):
        return "a number too large for a version: a server aborts over it"
    return f"no version, though a server takes it for version {number} and fails to load it"


def _take_golden(found: FoundModel, number: int) -> None:
    """Golden samples of a version that Modelwright made; `manifest.json` and `golden.npz` of anyone else are refused.

    The samples go along while the version's files are still what they were recorded for.
    """
    files = found.versions[number]
    if MANIFEST not in files or not is_ours(files[MANIFEST]):
        for name in (MANIFEST, GOLDEN):
            if name in files:
                where = f"{found.name}/{number}/{name}"
                raise SpecError(f"{where}: Modelwright writes a file of this name itself", "give it another name")
        return
    path = files.pop(MANIFEST)
    found.is_ours = True
    about = {name: files.pop(name) for name in (CONFIG, SBOM, SIGNATURE) if name in files}
    if GOLDEN not in files:
        return
    try:
        found.golden[number] = _golden({**files, **about}, path)
    except RepositoryError as error:
        found.left.append(NotCarried(found.name, f"{number}/{GOLDEN}", error.message.replace(str(path), MANIFEST)))
    files.pop(GOLDEN)


def _golden(files: dict[str, Path], path: Path) -> FoundGolden:
    """The golden samples among a version's files. Raises RepositoryError where they do not belong to these files."""
    manifest = read(path)
    comparison = manifest.verification.golden if manifest else None
    if manifest is None or comparison is None:
        raise RepositoryError("the manifest does not say how they are compared")
    for name in sorted({*files, *manifest.files} - {SIGNATURE}):
        recorded = manifest.files.get(name)
        if name not in files or recorded is None or sha256_file(files[name]) != recorded.sha256:
            raise RepositoryError(f"recorded for other files: {name} is not what the manifest says")
    return FoundGolden(files[GOLDEN], comparison, manifest.made.composing_models)


class _Walk:
    """Lists folders of one model. Links are followed below `root`, never in a circle, and only to files and folders."""

    def __init__(self, root: Path, found: FoundModel) -> None:
        self.root, self.found = root, found
        self._seen = 0
        self.executable: list[str] = []

    def take(self, path: Path, shown: str) -> None:
        if path.stat().st_mode & 0o111 and ".so" not in path.suffixes:  # a library is loaded without it
            self.executable.append(shown)

    def files(self, folder: Path, prefix: str, above: tuple[Path, ...] = ()) -> dict[str, Path]:
        """{relative name: file} of everything below a folder; `prefix` is how messages call the folder."""
        folder = folder.resolve()  # once: a path through many links is long to look up
        above, files = (*above, folder), {}
        for path in self.entries(folder, prefix, above):
            if not path.is_dir():
                self.take(path, f"{prefix}{path.name}")
                files[path.name] = path
            elif path.name == "__pycache__":
                self._leave(f"{prefix}{path.name}/", "Python makes it again")
            else:
                below = self.files(path, f"{prefix}{path.name}/", above)
                files |= {f"{path.name}/{name}": origin for name, origin in below.items()}
        return files

    def entries(self, folder: Path, prefix: str, above: tuple[Path, ...] = ()) -> Iterator[Path]:
        """What is in a folder and can be carried over; the rest is named."""
        for path in sorted(folder.iterdir()):
            self._seen += 1
            if self._seen > _MOST_ENTRIES:
                hint = "pack what they belong to: an environment as one archive"
                raise SpecError(f"more than {_MOST_ENTRIES:,} files and folders", hint)
            reason = self._refused(path, above)
            if reason:
                self._leave(f"{prefix}{_shown(path.name)}", reason)
            else:
                yield path

    def _refused(self, path: Path, above: tuple[Path, ...]) -> str:
        """Why an entry cannot be carried over; '' when it can."""
        if path.is_symlink():
            try:
                target = path.resolve(strict=True)
            except (OSError, RuntimeError):
                return "a dangling link"
            if not target.is_relative_to(self.root):
                return f"a link that leads out of the repository, to {target}"
            if target in above:
                return "a link to a folder that it is in"
        if not (path.is_file() or path.is_dir()):
            return "neither a file nor a folder"
        return "" if path.name.isprintable() and _is_utf8(path.name) else "its name cannot be written in model.yaml"

    def _leave(self, thing: str, why: str) -> None:
        self.found.left.append(NotCarried(self.found.name, thing, why))


def _and_more(things: list[str]) -> str:
    return f" and {len(things) - 1} more" if len(things) > 1 else ""


def _is_utf8(name: str) -> bool:
    try:
        name.encode()
    except UnicodeEncodeError:
        return False
    return True


def _shown(name: str) -> str:
    return name if name.isprintable() and _is_utf8(name) else ascii(name)
