"""The files of one version: each as its manifest says, and the manifest as the journal says."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

from modelwright import text
from modelwright.digest import list_tree, tree_digest
from modelwright.errors import RepositoryError, SigningError
from modelwright.project.signing import Signing
from modelwright.repair.damage import Damage, Kind, Where
from modelwright.repair.hashes import Hashed
from modelwright.repository import signing
from modelwright.repository.manifest import Manifest, read_ours
from modelwright.repository.recorded import KnownDigests
from modelwright.repository.records import NAMES
from modelwright.triton.layout import ABOUT, CONFIG, GOLDEN, MANIFEST, SBOM, SIGNATURE


@dataclass(frozen=True)
class VersionFolder:
    """A version, live or retired, or its record."""

    model: str
    version: int
    folder: Path
    where: Where

    @property
    def shown(self) -> str:
        return f"{self.model}/{self.version}"

    def damage(self, kind: Kind, name: str, problem: str, expected: str = "", hint: str = "") -> Damage:
        place = self.folder / name if name else self.folder
        return Damage(place, kind, problem, self.model, self.version, name, self.where, expected, hint=hint)


@dataclass(frozen=True)
class CheckedVersion:
    damages: list[Damage]
    manifest: Manifest | None  # where it is as it must be, as far as that is known
    foreign: bool = False  # without a manifest, and nothing says that it ever had one


def check_version(
    item: VersionFolder, hashes: Mapping[Path, Hashed], known: KnownDigests, settings: Signing, record: Path
) -> CheckedVersion:
    """Everything that is wrong with a version's files. `record` is the folder of its record."""
    files = {name: hashes[path] for name, path in list_tree(item.folder).items() if path in hashes}
    damages, manifest = _manifest(item, files.get(MANIFEST), known)
    if manifest is None:
        return CheckedVersion(damages, None, foreign=not damages)
    damages += _files(item, files, manifest)
    damages += _signature(
        item,
        files.get(SIGNATURE),
        known,
        settings,
        hashes.get(record / SIGNATURE, Hashed()).sha256,
        is_whole=not damages,
    )
    return CheckedVersion(damages, manifest)


def check_record(item: VersionFolder, hashes: Mapping[Path, Hashed], known: KnownDigests, twin: Path) -> list[Damage]:
    """What is wrong with the record of a version. `twin` is the version itself."""
    files = {name: hashes[path] for name, path in list_tree(item.folder).items() if path in hashes}
    damages, manifest = _manifest(item, files.get(MANIFEST), known)
    expected = {name: entry.sha256 for name, entry in manifest.files.items() if name in NAMES} if manifest else {}
    signature = known.signatures.get((item.model, item.version)) or hashes.get(twin / SIGNATURE, Hashed()).sha256
    if signature:
        expected[SIGNATURE] = signature
    for name, digest in expected.items():
        found = files.get(name, Hashed(problem="is missing"))
        if found.sha256 != digest:
            kind: Kind = "changed" if name in files else "missing"
            damages.append(item.damage(kind, name, found.problem or _differs(found.sha256, digest), digest))
    added = [name for name in files if name not in expected and name not in (MANIFEST, SIGNATURE)] if manifest else []
    return damages + [item.damage("added", name, "does not belong here") for name in added]


def _manifest(item: VersionFolder, found: Hashed | None, known: KnownDigests) -> tuple[list[Damage], Manifest | None]:
    expected = known.manifests.get((item.model, item.version), "")
    if found is None:
        problem = "the version has no manifest"
        return ([item.damage("missing", MANIFEST, problem, expected)] if expected else []), None
    if found.problem:
        return [item.damage("unreadable", MANIFEST, found.problem, expected)], None
    if expected and found.sha256 != expected:
        return [item.damage("changed", MANIFEST, _differs(found.sha256, expected), expected)], None
    try:
        manifest = read_ours(item.folder / MANIFEST)
    except RepositoryError as error:
        problem = error.message.partition(f"{MANIFEST}: ")[2]
        return [item.damage("changed", MANIFEST, problem, expected)], None
    if manifest is None:  # another tool's file of this name
        return [], None
    if (manifest.model, manifest.version) != (item.model, item.version):
        problem = f"is that of {manifest.model} version {manifest.version}"
        hint = "the folder was renamed or copied by hand: name it as it was, or move it out of the repository"
        return [item.damage("changed", MANIFEST, problem, expected, hint)], None
    return _version_digest(item, manifest), manifest


def _version_digest(item: VersionFolder, manifest: Manifest) -> list[Damage]:
    """Whether the version digest follows from the files that the manifest names."""
    own = {name: entry.sha256 for name, entry in manifest.files.items() if name != GOLDEN}
    # A prebuilt version may hold files that are elsewhere made with a version.
    kept = ((), (CONFIG,), (SBOM,), ABOUT)
    without = [[name for name in ABOUT if name != GOLDEN and name not in names] for names in kept]
    digests = {tree_digest({name: own[name] for name in own if name not in names}) for names in without}
    if manifest.version_digest in digests:
        return []
    return [item.damage("changed", MANIFEST, "its version digest does not follow from the files that it names")]


def _files(item: VersionFolder, files: Mapping[str, Hashed], manifest: Manifest) -> Iterator[Damage]:
    for name, record in manifest.files.items():
        found = files.get(name)
        if found is None:
            yield item.damage("missing", name, "is missing", record.sha256)
        elif found.problem:
            yield item.damage("unreadable", name, found.problem, record.sha256)
        elif found.size_bytes < record.size_bytes:
            problem = f"is cut short: {text.size(found.size_bytes)} of {text.size(record.size_bytes)}"
            yield item.damage("half", name, problem, record.sha256)
        elif found.sha256 != record.sha256:
            yield item.damage("changed", name, _differs(found.sha256, record.sha256), record.sha256)
    for name in files:
        if name not in manifest.files and name not in (MANIFEST, SIGNATURE):
            yield item.damage("added", name, "is not in the manifest")


def _signature(
    item: VersionFolder, found: Hashed | None, known: KnownDigests, settings: Signing, recorded: str, *, is_whole: bool
) -> Iterator[Damage]:
    expected = known.signatures.get((item.model, item.version), "")
    if found is None and (expected or recorded):
        yield item.damage("missing", SIGNATURE, "is missing", expected or recorded)
    elif found is None:
        if settings.required and item.where == "live":
            error = signing.is_required(settings, item.shown)
            yield item.damage("unsigned", SIGNATURE, "the version is not signed", hint=error.hint)
    elif found.problem:
        yield item.damage("unreadable", SIGNATURE, found.problem, expected or recorded)
    elif expected and found.sha256 != expected:
        yield item.damage("changed", SIGNATURE, _differs(found.sha256, expected), expected)
    elif is_whole and settings.checks:  # else it says again what the manifest said
        try:
            signing.check(item.folder, settings, item.shown)
        except SigningError as error:
            problem = error.message.partition(f"{item.shown}: ")[2] or error.message
            other = recorded if recorded != found.sha256 else ""
            yield item.damage("changed", SIGNATURE, problem.removeprefix(f"{SIGNATURE}: "), other, error.hint)


def _differs(found: str, expected: str) -> str:
    return f"changed: SHA-256 {found[:12]}…, published as {expected[:12]}…"
