"""What the journal says that files must be: manifests, signatures, and the files beside the versions.

A manifest says what the other files of its version must be; what the manifest itself must be, the journal says, since a
line that announces a change has the digests of what is then written. What was there before the journal began is written
into it once, as it was found: `record`.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from modelwright.config.edit import with_own_policy
from modelwright.digest import list_tree, sha256, sha256_file
from modelwright.errors import ConfigError
from modelwright.facts.part import JsonObject
from modelwright.fsops import read_text
from modelwright.repository.journal import Event, Told
from modelwright.repository.records import keep_record, record_folder
from modelwright.repository.repository import Change, Repository
from modelwright.triton.layout import CONFIG, MANIFEST, SIGNATURE, environment_of, version_number

RECORD = "record"  # the event that notes what was found


@dataclass
class KnownDigests:
    manifests: dict[tuple[str, int], str] = field(default_factory=dict)  # (model, version) → SHA-256
    signatures: dict[tuple[str, int], str] = field(default_factory=dict)
    # model → file beside its versions → all the digests that it had, the newest last; None where it was removed
    tops: dict[str, dict[str, list[str | None]]] = field(default_factory=dict)
    # model → config → the digests that it had with the model's own version_policy
    plain: dict[str, dict[str, set[str]]] = field(default_factory=dict)
    there: dict[str, set[int]] = field(default_factory=dict)  # model → versions that were seen after their publish

    def has_plain(self, model: str, name: str, text: str) -> bool:
        """Whether a config is one that was published, but for the versions that it serves."""
        return _plain(text) in self.plain.get(model, {}).get(name, ())


def recorded(events: Iterable[Event]) -> KnownDigests:
    """What these events say, the oldest first."""
    found = KnownDigests()
    for event in events:
        details = event.details
        if event.what == "delete" and event.version is not None:
            found.there.get(event.model, set()).discard(event.version)
        for number, entry in _items(details.get("versions")):
            if isinstance(entry, dict) and number.isdecimal() and isinstance(entry.get("manifest"), str):
                found.manifests[event.model, int(number)] = str(entry["manifest"])
        for number, digest in _items(details.get("signatures")):
            if number.isdecimal():
                found.signatures[event.model, int(number)] = str(digest)
        for model, name, digest in _by_model(event, "top"):
            found.tops.setdefault(model, {}).setdefault(name, []).append(digest)
        for model, name, digest in _by_model(event, "plain"):
            found.plain.setdefault(model, {}).setdefault(name, set()).add(str(digest))
        live = details.get("live")
        if isinstance(live, list):
            found.there.setdefault(event.model, set()).update(number for number in live if isinstance(number, int))
    return found


def record(repository: Repository, models: Iterable[str] = (), *, why: str = "") -> list[str]:
    """Write into the journal what it does not know yet of these models, or of all. Gives those that had something new.

    Only for the holder of the build lock, and for files that were found to be right, as far as that can be told.
    """
    known = recorded(repository.journal.read()[0])
    told = []
    for model in models or repository.known_models():
        details = unrecorded(repository, model, known)
        if details:
            for number, folder in version_folders(repository, model).items():
                if not record_folder(repository.history, model, number).is_dir():
                    keep_record(repository.history, model, number, folder, repository.staging)
            live: list[Any] = [*repository.versions(model)]
            told.append(Told(RECORD, model, why=why, details={**details, "live": live}))
    if told:
        repository.journal.append_all(told)
    return [item.model for item in told]


def unrecorded(repository: Repository, model: str, known: KnownDigests) -> JsonObject:
    """The digests of what the journal does not know yet of a model, as an event has them."""
    versions: dict[str, Any] = {}
    signatures: dict[str, Any] = {}
    for number, folder in version_folders(repository, model).items():
        if (model, number) not in known.manifests and (folder / MANIFEST).is_file():
            versions[str(number)] = {"manifest": sha256_file(folder / MANIFEST)}
        if (model, number) not in known.signatures and (folder / SIGNATURE).is_file():
            signatures[str(number)] = sha256_file(folder / SIGNATURE)
    tops = {
        name: sha256_file(path)
        for name, path in top_files(repository, model).items()
        if name not in known.tops.get(model, {}) and path.is_file()
    }
    plain = {
        name: _plain(read_text(repository.root / model / name, errors="replace")) for name in tops if _is_config(name)
    }
    found: JsonObject = {"versions": versions, "signatures": signatures, "top": {**tops}, "plain": {**plain}}
    return {name: value for name, value in found.items() if value}


def plain_digests(change: Change) -> dict[str, str]:
    """{config: the SHA-256 that it is to have but for the versions that it serves}: a swap writes it more than once."""
    configs = {name: data for name, data in change.top_files.items() if data is not None and _is_config(name)}
    return {name: _plain(data.decode(errors="replace")) for name, data in configs.items()}


def _is_config(name: str) -> bool:
    return name == CONFIG or environment_of(name) is not None


def _plain(text: str) -> str:
    try:
        return sha256(with_own_policy(text).encode())
    except ConfigError:
        return sha256(text.encode())


def top_digests(change: Change) -> dict[str, str | None]:
    """{file beside the versions: the SHA-256 that it is to have; None where it goes}."""
    written = {name: sha256(data) if data is not None else None for name, data in change.top_files.items()}
    return written | {name: sha256_file(path) for name, path in change.top_copies.items()}


def version_folders(repository: Repository, model: str) -> dict[int, Path]:
    """{number: folder} of a model's versions, live and retired."""
    retired = {number: repository.retired_folder(model, number) for number in repository.retired(model)}
    return retired | {number: repository.folder(model, number) for number in repository.versions(model)}


def top_files(repository: Repository, model: str) -> dict[str, Path]:
    """{name: path} of the files of a model's folder that are in no version of it."""
    files = list_tree(repository.root / model)
    return {name: path for name, path in files.items() if version_number(name.partition("/")[0]) is None}


def _items(value: Any) -> Iterator[tuple[str, Any]]:
    if isinstance(value, Mapping):
        yield from value.items()


def _by_model(event: Event, part: str) -> Iterator[tuple[str, str, str | None]]:
    """(model, file, digest or None). An event of one model has {file: digest}; a move, {model: {file: digest}}."""
    for name, value in _items(event.details.get(part)):
        if isinstance(value, Mapping):
            yield from ((name, file, digest) for file, digest in value.items())
        else:
            yield event.model, name, value
