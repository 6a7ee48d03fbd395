"""Versions come from a remote whole and checked, under their own numbers, or not at all."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest

from modelwright.digest import list_tree
from modelwright.errors import DiskFullError, ModelwrightError, RemoteConflictError, RemoteError
from modelwright.project.signing import Signing
from modelwright.remotes import pull as pulling
from modelwright.remotes.index import INDEX
from modelwright.remotes.place import place_of
from modelwright.remotes.pull import PullSurvey, look_for, pull
from modelwright.remotes.record import Copy
from modelwright.remotes.store import FolderStore, RemoteStore
from modelwright.repository.move import carry_out as move
from modelwright.repository.moves import promote, rollback
from modelwright.repository.sealed import sealed
from modelwright.triton.layout import LEDGER
from tests.remotes.buckets import Bucket
from tests.remotes.repositories import MadeRepository, content
from tests.remotes.s3 import Answer, Fault, Reset, Truncate
from tests.remotes.scenarios import both, first, moved_pipeline, push


@pytest.fixture
def there(tmp_path: Path) -> FolderStore:
    return FolderStore(place_of(str(tmp_path / "there")))


@pytest.fixture
def other(tmp_path: Path) -> MadeRepository:
    """Another project, which pulls."""
    return MadeRepository(tmp_path / "other")


def pulled(store: RemoteStore, made: MadeRepository, *names: str) -> PullSurvey:
    survey = look_for(store, made.repository, names, jobs=2)
    pull(store, made.repository, survey, Signing(), jobs=2, say=lambda _: None)
    return survey


def models(made: MadeRepository) -> dict[str, str]:
    root = made.repository.root
    return {name: digest for name, digest in content(root).items() if name != LEDGER} if root.exists() else {}


def test_a_repository_comes_back_as_it_was(made: MadeRepository, other: MadeRepository, there: FolderStore) -> None:
    both(made)
    push(there, made)
    pulled(there, other)
    assert models(other) == models(made)
    assert other.repository.ledger().versions == made.repository.ledger().versions
    event = list(other.repository.journal.events())[-1]
    assert (event.what, event.details["from"]) == ("pull", there.place.url)
    assert not any(model.changes_anything for model in pulled(there, other).models)
    assert not other.repository.staging.exists() or list_tree(other.repository.staging) == {}


def test_a_named_pipeline_brings_what_it_runs(made: MadeRepository, other: MadeRepository, there: FolderStore) -> None:
    both(made)
    push(there, made)
    pulled(there, other, "both")
    assert other.repository.models() == ["both", "digits"]


def test_new_versions_and_decisions_follow(made: MadeRepository, other: MadeRepository, there: FolderStore) -> None:
    first(made)
    push(there, made)
    pulled(there, other)
    moved_pipeline(made)
    move(made.repository, promote(made.repository, "digits", 3))
    push(there, made)
    pulled(there, other)
    assert models(other) == models(made)
    assert other.repository.ledger().state("digits").promoted == 3


def test_what_was_rolled_back_stays_out(made: MadeRepository, other: MadeRepository, there: FolderStore) -> None:
    """Also while it still lies at the remote."""
    both(made)
    push(there, made)
    move(made.repository, rollback(made.repository, "both"))
    push(there, made)
    survey = pulled(there, other)
    assert other.repository.versions("both") == [1]
    assert other.served("both") == [1]
    assert any("both: version 2 was withdrawn" in line for line in survey.says)
    assert other.repository.next_number("both", other.repository.ledger()) == 3


def test_where_this_repository_is_ahead_its_config_stays(
    made: MadeRepository, other: MadeRepository, there: FolderStore
) -> None:
    first(made)
    push(there, made)
    pulled(there, other)
    other.version("digits", 5, versions=[2, 5])
    before = models(other)
    assert not any(model.changes_anything for model in pulled(there, other).models)
    assert models(other) == before
    made.version("digits", 3)
    push(there, made)
    with pytest.raises(RemoteConflictError, match="digits: version 3 was used here"):  # below the highest
        pulled(there, other)
    assert other.served("digits") == [2, 5]


def test_another_version_under_the_same_number_is_refused(
    made: MadeRepository, other: MadeRepository, there: FolderStore
) -> None:
    first(made)
    push(there, made)
    other.version("digits", 2, content=b"other")
    before = models(other)
    with pytest.raises(RemoteConflictError, match=r"digits: version 2 is another one here"):
        pulled(there, other)
    assert models(other) == before


def test_a_number_that_was_used_is_not_used_again(
    made: MadeRepository, other: MadeRepository, there: FolderStore
) -> None:
    first(made)
    push(there, made)
    pulled(there, other)
    ledger = other.repository.root / LEDGER
    data = json.loads(ledger.read_text())
    shutil.rmtree(other.repository.folder("digits", 1))
    pulled(there, other)  # the ledger knows what it was
    assert 1 in other.repository.versions("digits")
    shutil.rmtree(other.repository.folder("digits", 1))
    del data["fixed"]
    ledger.write_text(sealed(data))
    with pytest.raises(RemoteConflictError, match="digits: version 1 was used here, and nothing tells for what"):
        pulled(there, other)
    copies = {("digits", 1): [Copy(there.place.url, made.digest("digits", 1))]}
    survey = look_for(there, other.repository, (), jobs=2, copies=copies)
    assert next(model for model in survey.models if model.model == "digits").add == (1,)


DAMAGE: dict[str, tuple[Callable[[Path], object], str]] = {
    "a flipped bit": (
        lambda folder: (folder / "digits/2/model.onnx").write_bytes(
            bytes([(folder / "digits/2/model.onnx").read_bytes()[0] ^ 1])
            + (folder / "digits/2/model.onnx").read_bytes()[1:]
        ),
        r"digits/2/model\.onnx: is not what its manifest says",
    ),
    "an added file": (
        lambda folder: (folder / "digits/2/extra.py").write_bytes(b"x"),
        r"digits/2: is not what its manifest says: extra\.py was added",
    ),
    "a newer manifest": (
        lambda folder: (folder / "digits/2/manifest.json").write_text('{"schema": 99, "modelwright": "9.0"}'),
        "schema 99: written by a newer Modelwright",
    ),
    "a manifest of another version": (
        lambda folder: shutil.copy(folder / "digits/1/manifest.json", folder / "digits/2/manifest.json"),
        "is that of digits version 1",
    ),
    "a broken manifest": (lambda folder: (folder / "digits/2/manifest.json").write_text("{"), "damaged: not JSON"),
}


@pytest.mark.parametrize(("damage", "message"), DAMAGE.values(), ids=DAMAGE)
def test_what_is_damaged_there_does_not_come(
    damage: Callable[[Path], object], message: str, made: MadeRepository, other: MadeRepository, there: FolderStore
) -> None:
    first(made)
    push(there, made)
    damage(Path(there.place.root))
    with pytest.raises(ModelwrightError, match=message):
        pulled(there, other)
    assert models(other) == {}


def test_models_that_others_made_and_halves_stay_out(
    made: MadeRepository, other: MadeRepository, there: FolderStore
) -> None:
    first(made)
    push(there, made)
    root = Path(there.place.root)
    (root / "theirs/1").mkdir(parents=True)
    (root / "theirs/config.pbtxt").write_text('name: "theirs" backend: "onnxruntime"')
    (root / "theirs/1/model.onnx").write_bytes(b"theirs")
    (root / "digits/1/model.onnx").unlink()
    survey = pulled(there, other)
    assert other.repository.models() == ["both", "digits", "gone"]
    assert other.repository.versions("digits") == [2]
    assert len(survey.says) == 2
    with pytest.raises(RemoteError, match="theirs: has versions that Modelwright did not make"):
        pulled(there, other, "theirs")
    with pytest.raises(RemoteError, match="digitz: is not at"):
        pulled(there, other, "digitz")


def test_a_version_that_must_be_signed_and_is_not_does_not_come(
    made: MadeRepository, other: MadeRepository, there: FolderStore
) -> None:
    first(made)
    push(there, made)
    survey = look_for(there, other.repository, (), jobs=2)
    with pytest.raises(ModelwrightError, match="is not signed"):
        pull(there, other.repository, survey, Signing(required=True), jobs=2, say=lambda _: None)
    assert models(other) == {}


def test_without_room_nothing_is_begun(
    made: MadeRepository, other: MadeRepository, there: FolderStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    first(made)
    push(there, made)
    monkeypatch.setattr(pulling, "_SPARE", 1e15)
    with pytest.raises(DiskFullError, match="are needed"):
        pulled(there, other)
    assert models(other) == {}


def test_a_pull_from_s3_survives_faults(bucket: Bucket, made: MadeRepository, other: MadeRepository) -> None:
    first(made)
    push(bucket.store, made)
    bucket.proxy.reset()
    faults: dict[str, Fault] = {
        "labels.txt": Truncate(),
        "model.onnx": Reset(),
        "ensemble.json": Answer(503, "SlowDown"),
    }
    bucket.proxy.on_request = lambda request: faults.pop(request.path.rpartition("/")[2], None)
    pulled(bucket.store, other)
    assert not faults
    assert models(other) == models(made)
    assert INDEX not in models(other)
