"""One flipped bit anywhere is found, and what can be restored is."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest

from modelwright.config.edit import with_versions
from modelwright.digest import list_tree, sha256_file
from modelwright.operations.fsck import Checkup, fsck
from modelwright.remotes.record import RECORD, write_record
from modelwright.repository.move import carry_out
from modelwright.repository.moves import promote, retire
from modelwright.triton.layout import LEDGER
from tests.conftest import ONNX_YAML, Sandbox, new_sandbox


@pytest.fixture(scope="module")
def built(tmp_path_factory: pytest.TempPathFactory) -> Sandbox:
    """A model with three versions, of which the first is retired, and a record of what a remote serves."""
    sandbox = new_sandbox(tmp_path_factory.mktemp("built") / "project")
    for factor in (2.0, 2.001, 2.002):
        sandbox.onnx_builder("doubled", ONNX_YAML, factor)
        assert sandbox.build()["doubled"].error is None
    carry_out(sandbox.repository, retire(sandbox.repository, "doubled", 1))
    write_record(
        sandbox.project.history, "s3://bucket/models", {"doubled": {2: sandbox.manifest("doubled", 2).version_digest}}
    )
    return sandbox


@pytest.fixture
def copy(built: Sandbox, tmp_path: Path) -> Sandbox:
    shutil.copytree(built.root, tmp_path / "project", symlinks=True)
    return Sandbox(tmp_path / "project")


def run(sandbox: Sandbox, *, repair: bool = False, remotes: tuple[str, ...] = ()) -> Checkup:
    return fsck(sandbox.project, repair=repair, remotes=remotes, say=lambda text: None)


def files(sandbox: Sandbox) -> dict[str, Path]:
    """Every file of the repository and its history."""
    found: dict[str, Path] = {}
    for folder in (sandbox.project.repository, sandbox.project.history):
        found |= {f"{folder.name}/{name}": path for name, path in list_tree(folder).items()}
    return found


def found_at(checkup: Checkup) -> set[Path]:
    return {damage.place for damage in checkup.damages}


def flip(path: Path, bit: int) -> None:
    data = bytearray(path.read_bytes())
    data[bit // 8] ^= 1 << bit % 8
    path.write_bytes(data)


def test_a_repository_as_it_was_published_is_clean(copy: Sandbox) -> None:
    before = {name: sha256_file(path) for name, path in files(copy).items()}
    found = run(copy)
    assert (found.damages, found.notes, found.versions) == ((), (), 3)
    assert run(copy, repair=True).damages == ()
    assert {name: sha256_file(path) for name, path in files(copy).items()} == before


def test_a_flipped_bit_in_any_file_is_found(copy: Sandbox) -> None:
    """In the first byte, in the middle and in the last; all bits of all files were tried once, which takes minutes."""
    for name, path in files(copy).items():
        whole = path.read_bytes()
        for bit in (0, len(whole) * 4, len(whole) * 8 - 1):
            flip(path, bit)
            assert path in found_at(run(copy)), f"{name}, bit {bit}"
        path.write_bytes(whole)
    assert run(copy).damages == ()


def test_a_file_that_is_cut_short_or_gone_is_found(copy: Sandbox) -> None:
    for name, path in files(copy).items():
        whole = path.read_bytes()
        path.write_bytes(whole[:-1])
        assert path in found_at(run(copy)), f"{name}, cut short"
        path.unlink()
        if path.name not in (RECORD,) and path != copy.project.history / LEDGER:  # which need not be there
            assert path in found_at(run(copy)), f"{name}, gone"
        path.write_bytes(whole)
    assert run(copy).damages == ()


ADDED = (
    "model_repository/doubled/2/stray",
    "model_repository/doubled/stray",
    "model_repository/doubled/5.tmp/model.onnx",
    "model_history/retired/doubled/1/stray",
    "model_history/records/doubled/2/stray",
    "model_history/stray",
)


@pytest.mark.parametrize("name", ADDED)
def test_a_file_that_nothing_published_is_found_and_kept_aside(copy: Sandbox, name: str) -> None:
    path = copy.root / name
    path.parent.mkdir(exist_ok=True)
    path.write_text("mine")
    assert found_at(run(copy)) & {path, path.parent}
    assert run(copy, repair=True).damages == ()
    assert not path.exists()
    (kept,) = copy.repository.damaged.glob(f"*/{name}")
    assert kept.read_text() == "mine"


def damaged_ways() -> dict[str, Callable[[Sandbox], None]]:
    def at(name: str) -> Callable[[Sandbox], None]:
        return lambda sandbox: flip(sandbox.root / name, 99)

    def gone(name: str) -> Callable[[Sandbox], None]:
        return lambda sandbox: shutil.rmtree(sandbox.root / name)

    return {
        "a model": at("model_repository/doubled/2/model.onnx"),
        "golden samples": at("model_repository/doubled/3/golden.npz"),
        "a manifest": at("model_repository/doubled/3/manifest.json"),
        "a bill of materials": at("model_repository/doubled/3/sbom.cdx.json"),
        "the config of a version": at("model_repository/doubled/2/config.pbtxt"),
        "a retired model": at("model_history/retired/doubled/1/model.onnx"),
        "a retired manifest": at("model_history/retired/doubled/1/manifest.json"),
        "a record": at("model_history/records/doubled/1/manifest.json"),
        "the ledger": at(f"model_repository/{LEDGER}"),
        "the copy of the ledger": at(f"model_history/{LEDGER}"),
        "a version that is gone": gone("model_repository/doubled/2"),
        "a config": at("model_repository/doubled/config.pbtxt"),
    }


@pytest.mark.parametrize("way", damaged_ways())
def test_what_can_be_restored_is(copy: Sandbox, way: str) -> None:
    before = {
        name: sha256_file(path) for name, path in files(copy).items() if "journal" not in name and LEDGER not in name
    }
    damaged_ways()[way](copy)
    found = run(copy, repair=True)
    assert found.failed == {}
    assert found.damages == ()
    assert len(found.repaired) >= 1
    after = {name: sha256_file(path) for name, path in files(copy).items() if name in before}
    assert after == before
    assert run(copy).damages == ()
    assert copy.build()["doubled"].status == "unchanged"


def test_what_cannot_be_restored_is_kept_and_named(copy: Sandbox) -> None:
    shutil.rmtree(copy.project.store)
    (copy.root / "builders/doubled/model.yaml").unlink()
    place = copy.root / "model_repository/doubled/3/model.onnx"
    flip(place, 8)
    damaged = place.read_bytes()
    found = run(copy, repair=True)
    assert [damage.place for damage in found.damages] == [place]
    assert found.damages[0].remedy is None
    assert place.read_bytes() == damaged
    result = copy.cli("fsck")
    assert result.exit_code == 1
    assert "model_repository/doubled/3/model.onnx: changed: SHA-256 " in result.output
    assert "no copy of it was found: restore it from a backup, or name a remote (--remote URL)" in result.output


def test_a_model_whose_builder_is_as_it_was_is_built_again(copy: Sandbox) -> None:
    shutil.rmtree(copy.project.store)
    place = copy.root / "model_repository/doubled/3/model.onnx"
    whole = place.read_bytes()
    flip(place, 8)
    (damage,) = run(copy).damages
    assert damage.remedy is not None
    assert damage.remedy.says.startswith("build it again: doubled is as it was")
    result = copy.cli("fsck", "--repair")
    assert result.exit_code == 0, result.output
    assert place.read_bytes() == whole
    assert copy.repository.versions("doubled") == [2, 3]


def test_a_version_is_fetched_from_a_remote(copy: Sandbox, tmp_path: Path) -> None:
    remote = tmp_path / "remote"
    shutil.copytree(copy.project.repository, remote)
    shutil.rmtree(copy.project.store)
    for name in ("model_repository/doubled/2", "model_history/records/doubled/2"):
        shutil.rmtree(copy.root / name)
    flip(copy.root / "model_repository/doubled/3/model.onnx", 8)
    (copy.project.history / RECORD).unlink()
    found = run(copy, repair=True, remotes=(remote.as_uri(),))
    assert (found.failed, found.damages) == ({}, ())
    assert copy.repository.damage("doubled", 2) == copy.repository.damage("doubled", 3) == []


def test_a_journal_that_was_edited_is_kept_and_a_new_one_begins(copy: Sandbox) -> None:
    journal = copy.repository.journal.file
    edited = journal.read_text().replace('"what":"retire"', '"what":"ignore"')
    journal.write_text(edited)
    (damage,) = run(copy).damages
    assert damage.problem.startswith("line 4: ")
    assert run(copy, repair=True).damages == ()
    (begin,) = (event for event in copy.repository.journal.events() if event.what == "begin")
    assert (copy.root / str(begin.details["kept"])).read_text() == edited
    assert run(copy).damages == ()


def test_a_journal_and_a_ledger_that_are_both_damaged(copy: Sandbox) -> None:
    journal = copy.repository.journal.file
    journal.write_text(journal.read_text()[:-40] + "\n")
    (copy.project.repository / LEDGER).write_text("{")
    found = run(copy, repair=True)
    assert (found.failed, found.damages) == ({}, ())
    assert copy.repository.ledger().versions == {"doubled": 3}
    assert run(copy).damages == ()


def test_the_ledger_is_written_again_without_its_copy(copy: Sandbox) -> None:
    """No number is given out twice, and numbers of versions that are deleted are not, either."""
    for folder in (copy.project.repository, copy.project.history):
        (folder / LEDGER).write_text("{")
    shutil.rmtree(copy.repository.folder("doubled", 3))
    assert copy.project.repository / LEDGER in found_at(run(copy))
    run(copy, repair=True)
    assert copy.repository.ledger().versions == {"doubled": 3}


def test_a_version_that_is_live_and_retired_is_tidied(copy: Sandbox) -> None:
    shutil.copytree(copy.repository.folder("doubled", 2), copy.repository.retired_folder("doubled", 2))
    (damage,) = run(copy).damages
    assert (damage.kind, damage.problem) == ("twice", "is live, too")
    assert run(copy, repair=True).damages == ()
    assert copy.repository.kept_twice() == []


def test_the_retired_copy_mends_the_live_one(copy: Sandbox) -> None:
    shutil.rmtree(copy.project.store)
    shutil.copytree(copy.repository.folder("doubled", 2), copy.repository.retired_folder("doubled", 2))
    flip(copy.repository.folder("doubled", 2) / "model.onnx", 8)
    assert run(copy, repair=True).damages == ()
    assert copy.repository.damage("doubled", 2) == []
    assert copy.repository.kept_twice() == []


def test_a_config_that_serves_what_it_should_not_is_written_again(copy: Sandbox) -> None:
    carry_out(copy.repository, promote(copy.repository, "doubled", 2))
    config = copy.repository.root / "doubled/config.pbtxt"
    right = config.read_text()
    config.write_text(with_versions(right, [3]))
    (damage,) = run(copy).damages
    assert (damage.place, damage.problem) == (config, "serves 3, and 2 is right")
    assert run(copy, repair=True).damages == ()
    assert config.read_text() == right


def test_what_a_killed_process_left_is_removed(copy: Sandbox) -> None:
    (copy.project.staging / "half").mkdir(parents=True)
    (damage,) = run(copy).damages
    assert damage.kind == "leftover"
    assert run(copy, repair=True).damages == ()


def test_an_unknown_name(copy: Sandbox) -> None:
    assert "doubld: is not in model_repository\n  hint: did you mean 'doubled'" in copy.error("fsck", "doubld")


def test_the_command_says_what_it_found_and_did(copy: Sandbox) -> None:
    clean = copy.cli("fsck")
    assert (clean.exit_code, clean.output.startswith("Nothing is wrong: 3 versions, ")) == (0, True)
    flip(copy.root / "model_repository/doubled/3/model.onnx", 8)
    found = json.loads(copy.cli("fsck", "--json").output)
    assert [item["repair"] for item in found["damages"]] == ["copy it from the store"]
    result = copy.cli("fsck", "--repair", "-m", "the disk was changed")
    assert "  repaired: copy it from the store\nNothing is wrong: 3 versions, " in result.output
    last = list(copy.repository.journal.events())[-1]
    assert (last.what, last.model, last.version, last.why) == ("repair", "doubled", 3, "the disk was changed")


# --- repositories of older Modelwrights -------------------------------------------------------------------------------


def forget(sandbox: Sandbox) -> None:
    """As an older Modelwright left it."""
    shutil.rmtree(sandbox.project.history)
    (sandbox.project.repository / LEDGER).write_text('{"versions": {"doubled": 3}}')


def test_what_no_journal_knows_is_written_down_once(copy: Sandbox) -> None:
    forget(copy)
    found = run(copy)
    assert found.damages == ()
    assert found.notes[0].startswith("doubled: the journal does not know yet")
    assert run(copy, repair=True).damages == ()
    assert run(copy).notes == ()
    place = copy.repository.root / "doubled/2/manifest.json"
    flip(place, 99)
    assert place in found_at(run(copy))
    assert run(copy, repair=True).damages == ()


def test_a_config_that_is_not_as_it_was_rendered_is_not_written_down(copy: Sandbox) -> None:
    forget(copy)
    config = copy.repository.root / "doubled/config.pbtxt"
    right = config.read_text()
    config.write_text(right.replace("max_batch_size: 8", "max_batch_size: 4"))
    (damage,) = run(copy).damages
    assert damage.place == config
    assert copy.cli("fsck", "--repair").exit_code == 0
    assert config.read_text() == right
