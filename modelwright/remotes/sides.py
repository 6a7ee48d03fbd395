"""The models of a repository, here and at a remote, in one form: what lies where, and what its config serves."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from functools import cached_property, lru_cache
from pathlib import Path, PurePosixPath
from typing import Any, TypeVar

from modelwright.config.render import parse
from modelwright.digest import list_tree, sha256, sha256_file
from modelwright.errors import ConfigError, RemoteError, RepositoryError
from modelwright.fsops import read_text
from modelwright.remotes.index import INDEX, RemoteIndex
from modelwright.remotes.lock import LOCK
from modelwright.remotes.store import Entry, RemoteStore
from modelwright.repository import manifest as manifests
from modelwright.repository.manifest import Manifest
from modelwright.repository.pins import Pins, has_pins, pins_of, run_by
from modelwright.repository.repository import Repository
from modelwright.triton.layout import ABOUT, CONFIG, MANIFEST, environment_of, version_number
from modelwright.triton.policy import selected

_CLOSED = "# Modelwright closed this model while it uploads or removes it."
Item = TypeVar("Item")
Result = TypeVar("Result")


@dataclass(frozen=True)
class Held:
    """A file of a model, or an object."""

    sha256: str  # "" where it is not known
    size_bytes: int
    file: Path | None = None


@dataclass(frozen=True)
class Version:
    files: Mapping[str, Held]  # below the version's folder
    manifest: Manifest | None = None

    @property
    def digest(self) -> str:
        return self.manifest.version_digest if self.manifest else ""


@dataclass(frozen=True)
class ModelSide:
    """One model, here or there."""

    model: str
    texts: Mapping[str, str] = field(default_factory=dict)  # config.pbtxt, and the configs of environments
    tops: Mapping[str, Held] = field(default_factory=dict)  # every other file beside the versions
    versions: Mapping[int, Version] = field(default_factory=dict)

    @cached_property
    def config(self) -> Any:
        """The ModelConfig; None without one that a server reads."""
        return parsed(self.texts.get(CONFIG, ""), self.model)

    @cached_property
    def served(self) -> tuple[int, ...]:
        """The versions that its config serves, lowest first."""
        return served(self.texts.get(CONFIG, ""), self.model, self.versions)

    @cached_property
    def pins(self) -> Pins:
        return pinned(self.texts.get(CONFIG, ""), self.model, self.versions)

    @property
    def runs(self) -> set[str]:
        """The models that it runs, as far as its config says."""
        return set(run_by(self.config)) if self.config is not None else set()

    @property
    def is_closed(self) -> bool:
        return is_closed(self.texts.get(CONFIG, ""))


def closed_config(model: str) -> str:
    """A config that a server does not load, and that changes nothing else for it: neither a new model that is not there
    yet, nor the readiness of the server. (A config that names no version makes the server not ready; a missing one is
    made up by a server that completes configs.)"""
    return f'{_CLOSED}\nname: "{model} is closed"\nbackend: "none"\n'


def is_closed(text: str) -> bool:
    return text.startswith(_CLOSED)


@lru_cache(maxsize=4096)
def parsed(text: str, model: str) -> Any:
    """The ModelConfig of a text, which is not to be changed; None for one that a server does not take."""
    if not text or is_closed(text):
        return None
    try:
        return parse(text, f"{model}/{CONFIG}")
    except ConfigError:
        return None


def served(text: str, model: str, versions: Iterable[int]) -> tuple[int, ...]:
    """The versions that a config serves of these, lowest first."""
    config = parsed(text, model)
    return tuple(sorted(selected(config.version_policy, versions))) if config is not None else ()


def pinned(text: str, model: str, versions: Iterable[int]) -> Pins:
    """The versions of other models that a config needs."""
    config = parsed(text, model) if has_pins(text) else None
    try:
        return pins_of(config, served(text, model, versions)) if config is not None else {}
    except ConfigError:
        return {}


# --- here -------------------------------------------------------------------------------------------------------------


def here(repository: Repository, model: str) -> ModelSide:
    """A model of the repository.

    Raises RepositoryError for one that cannot be pushed: it is not what its manifests say, or was not made here.
    """
    folder = repository.root / model
    texts: dict[str, str] = {}
    tops: dict[str, Held] = {}
    for name, path in list_tree(folder).items():
        if version_number(name.partition("/")[0]) is not None and "/" in name:
            continue
        if is_config(name):
            try:
                texts[name] = read_text(path)
            except (OSError, UnicodeDecodeError) as error:
                raise RepositoryError(f"{model}/{name}: cannot be read: {error}") from None
        else:
            tops[name] = _of_file(path)
    if CONFIG not in texts:
        raise RepositoryError(f"{model}: has no {CONFIG}", f"build it again: modelwright build {model}")
    parse(texts[CONFIG], f"{model}/{CONFIG}")
    versions = {number: _version_here(repository, model, number) for number in repository.versions(model)}
    if not versions:
        raise RepositoryError(f"{model}: has no versions", f"build it: modelwright build {model}")
    return ModelSide(model, texts, tops, versions)


def _version_here(repository: Repository, model: str, number: int) -> Version:
    where = f"{model}: version {number}"
    manifest = repository.manifest(model, number)
    if manifest is None:
        hint = "build it with Modelwright: modelwright adopt makes a builder of it"
        raise RepositoryError(f"{where} has no {MANIFEST}: it was not made here", hint)
    found = list_tree(repository.folder(model, number))
    missing = [name for name in manifest.files if name not in found]
    added = [name for name in found if name not in manifest.files and name not in ABOUT]
    if missing or added:
        problems = [f"{name} is missing" for name in missing] + [f"{name} was added" for name in added]
        hint = "modelwright fsck says where it can be restored from"
        raise RepositoryError(f"{where} is not what its manifest says: {', '.join(problems)}", hint)
    listed = manifest.files
    files = {
        name: Held(listed[name].sha256, listed[name].size_bytes, path) if name in listed else _of_file(path)
        for name, path in found.items()
    }
    return Version(files, manifest)


def _of_file(path: Path) -> Held:
    return Held(sha256_file(path), path.stat().st_size, path)


def is_config(name: str) -> bool:
    return name == CONFIG or environment_of(name) is not None


# --- there ------------------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Remote:
    """What is at a remote now."""

    entries: Mapping[str, Entry]
    index: RemoteIndex | None
    sides: Mapping[str, ModelSide]

    def owned(self, name: str) -> bool:
        """Whether Modelwright wrote an object."""
        return self.index is not None and name in self.index.objects

    @cached_property
    def owned_models(self) -> set[str]:
        return {name.partition("/")[0] for name in self.index.objects} if self.index else set()


def look(store: RemoteStore, index: RemoteIndex | None, known: Mapping[str, ModelSide], jobs: int) -> Remote:
    """Read what is at a remote. What is the same as in `known`, the models here, is not read again."""
    entries = {name: entry for name, entry in store.entries().items() if name not in (INDEX, LOCK)}
    reader = _Reader(store, index, known, entries)
    names = [name for name in entries if _is_read(name)]
    contents = dict(zip(names, each(jobs, reader.content, names), strict=True))
    by_model: dict[str, list[str]] = {}
    for name in entries:
        if "/" in name:
            by_model.setdefault(name.partition("/")[0], []).append(name)
    return Remote(entries, index, {model: reader.side(model, own, contents) for model, own in by_model.items()})


def each(jobs: int, work: Callable[[Item], Result], items: Iterable[Item]) -> list[Result]:
    """Work on all, several at a time; the first error ends it."""
    with ThreadPoolExecutor(max_workers=jobs) as pool:
        futures = [pool.submit(work, item) for item in items]
        try:
            return [future.result() for future in futures]
        except BaseException:
            pool.shutdown(wait=True, cancel_futures=True)
            raise


def _is_read(name: str) -> bool:
    """Whether an object is small and says something: a config, or a version's manifest."""
    _, _, inner = name.partition("/")
    folder, _, rest = inner.partition("/")
    return is_config(inner) or (rest == MANIFEST and version_number(folder) is not None)


@dataclass(frozen=True)
class _Reader:
    store: RemoteStore
    index: RemoteIndex | None
    known: Mapping[str, ModelSide]
    entries: Mapping[str, Entry]

    def sha256(self, name: str) -> str:
        return self.index.sha256(name, self.entries[name]) if self.index else ""

    def content(self, name: str) -> bytes | Manifest | None:
        """A config's text, or a version's manifest; taken from here where it is the same."""
        model, _, inner = name.partition("/")
        side, trusted = self.known.get(model), self.sha256(name)
        folder, _, rest = inner.partition("/")
        if side is not None and trusted:
            text = side.texts.get(inner)
            if text is not None and sha256(text.encode()) == trusted:
                return text.encode()
            version = side.versions.get(version_number(folder) or -1)
            if rest == MANIFEST and version is not None and version.files[MANIFEST].sha256 == trusted:
                return version.manifest
        return self.store.read(name)

    def side(self, model: str, names: Sequence[str], contents: Mapping[str, bytes | Manifest | None]) -> ModelSide:
        texts: dict[str, str] = {}
        tops: dict[str, Held] = {}
        versions: dict[int, dict[str, Held]] = {}
        for name in names:
            inner = name[len(model) + 1 :]
            folder, slash, rest = inner.partition("/")
            number = version_number(folder)
            held = Held(self.sha256(name), self.entries[name].size_bytes)
            content = contents.get(name)
            if slash and number is not None:
                versions.setdefault(number, {})[rest] = held
            elif isinstance(content, bytes):
                texts[inner] = content.decode("utf-8", "replace")
            else:
                tops[inner] = held
        made = {number: self._version(model, number, files, contents) for number, files in versions.items()}
        return ModelSide(model, texts, tops, made)

    def _version(
        self, model: str, number: int, files: Mapping[str, Held], contents: Mapping[str, bytes | Manifest | None]
    ) -> Version:
        name = f"{model}/{number}/{MANIFEST}"
        content = contents.get(name)
        if isinstance(content, bytes):
            where = self.store.place.of(name)
            found = manifests.parse(content, where)
            if found is not None and (found.model, found.version) != (model, number):
                hint = "objects were copied by hand: remove them, or name the folder as it was"
                raise RemoteError(f"{where}: is that of {found.model} version {found.version}", hint)
            return Version(files, found)
        return Version(files, content)


def check_names(names: Iterable[str], where: str) -> None:
    """Raises RemoteError for a name that object stores do not hold."""
    for name in names:
        if any(ord(char) < 32 or ord(char) == 127 for char in name) or "?versionId=" in name:
            raise RemoteError(
                f"{name!r}: cannot be the name of an object at {where}", "rename the file, and build again"
            )
        if len(name.encode("utf-8", "surrogateescape")) > 900:
            raise RemoteError(f"{name[:60]}…: is too long for an object at {where}", "shorten the file's name")
        if PurePosixPath(name).as_posix() != name:
            raise RemoteError(f"{name!r}: cannot be the name of an object", "rename the file, and build again")
