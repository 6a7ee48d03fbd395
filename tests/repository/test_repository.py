"""Publishing: one rename, whatever changes, and nothing in between that a killed process could leave."""

from __future__ import annotations

import hashlib
import shutil
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest

from modelwright.config.render import parse
from modelwright.digest import list_tree, sha256_file
from modelwright.errors import RepositoryError
from modelwright.repository.repository import Change, Repository, _replace_in_turn
from modelwright.triton.layout import LEDGER
from modelwright.triton.policy import selected
from tests.repository.killing import in_child
from tests.repository.manifests import a_manifest


def change(
    tmp_path: Path,
    version: int | None,
    *,
    config: bytes | None = None,
    labels: bytes | None = None,
    **more: bytes | None,
) -> Change:
    """A publish of a version with a model of 3 kB and a file in a folder, or of top files alone.

    `more` has top files in folders, `configs__cpu`; None removes one.
    """
    files = {}
    if version is not None:
        for name in ("model.onnx", "site-packages/package/__init__.py"):
            path = tmp_path / "artefact" / str(version) / name
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_bytes(f"{name} {version}".encode() * 100)
            files[name] = path
    top = {name: data for name, data in {"config.pbtxt": config, "labels.txt": labels}.items() if data is not None}
    below = {name.replace("__", "/"): data for name, data in more.items()}
    manifest = a_manifest(files, version=version or 1)
    return Change("m", version, files, manifest, {**top, **below})


def repository(tmp_path: Path) -> Repository:
    return Repository(tmp_path / "model_repository", tmp_path / ".modelwright/staging")


def seen(root: Path) -> dict[str, str]:
    """What a server sees: every file of every model."""
    return {name: sha256_file(path) for name, path in list_tree(root).items() if name != LEDGER}


SCENARIOS: dict[str, Callable[[Path], Change]] = {
    "a new model": lambda tmp: change(tmp, 1, config=b"one", labels=b"a"),
    "a new version": lambda tmp: change(tmp, 2),
    "a new version and a new config": lambda tmp: change(tmp, 2, config=b"two"),
    "a new config": lambda tmp: change(tmp, None, config=b"two"),
    "a new config and new labels": lambda tmp: change(tmp, None, config=b"two", labels=b"b"),
    "a new version, config and labels": lambda tmp: change(tmp, 2, config=b"two", labels=b"b"),
    "a new environment": lambda tmp: change(tmp, None, config=b"two", configs__gpu=b"gpu"),
    "another config of an environment": lambda tmp: change(tmp, None, configs__cpu=b"other"),
    "a first file in a folder": lambda tmp: change(tmp, None, warmup__x=b"x"),
    "an environment that goes": lambda tmp: change(tmp, None, config=b"two", configs__cpu=None),
    "two versions, a config and a file that is copied": lambda tmp: replace(
        change(tmp, 2, config=b"two"),
        more=(change(tmp, 5),),
        top_copies={"lib/x.so": tmp / "artefact/2/model.onnx"},
    ),
    "one environment for another, and a version": lambda tmp: change(
        tmp, 2, config=b"two", configs__cpu=None, configs__gpu=b"gpu"
    ),
}


def prepare(tmp_path: Path, scenario: str) -> tuple[Repository, Change]:
    target = repository(tmp_path)
    if scenario != "a new model":
        target.publish(change(tmp_path, 1, config=b"one", labels=b"a", configs__cpu=b"cpu"))
    return target, SCENARIOS[scenario](tmp_path)


@pytest.mark.parametrize("scenario", SCENARIOS)
def test_kill_9_at_any_file_operation_leaves_the_old_or_the_new(tmp_path: Path, scenario: str) -> None:
    target, wanted = prepare(tmp_path / "whole", scenario)
    operations = in_child(lambda: target.publish(wanted), kill_at=None).operations
    after = seen(target.root)
    assert operations >= 5
    before: dict[str, str] = {}
    outcomes = set()
    for point in range(1, operations + 1):
        folder = tmp_path / f"killed{point}"
        target, wanted = prepare(folder, scenario)
        before = seen(target.root)
        assert in_child(lambda: target.publish(wanted), kill_at=point).killed  # noqa: B023
        found = seen(target.root)
        assert found in (before, after), f"killed at operation {point} of {operations}"
        outcomes.add(found == after)
        # What the dead process left must not be in the next one's way.
        target.clean()
        if found == before:
            target.publish(wanted)
        assert seen(target.root) == after
        assert list_tree(target.staging) == {}
        shutil.rmtree(folder)
    assert before != after
    assert False in outcomes


def test_there_are_at_least_50_kill_points(tmp_path: Path) -> None:
    total = 0
    for number, scenario in enumerate(SCENARIOS):
        target, wanted = prepare(tmp_path / str(number), scenario)
        total += in_child(lambda: target.publish(wanted), kill_at=None).operations  # noqa: B023
    assert total >= 50


def test_kill_9_while_numbers_are_reserved_keeps_the_ledger_readable(tmp_path: Path) -> None:
    operations = in_child(lambda: repository(tmp_path / "whole").reserve(["m"]), kill_at=None).operations
    for point in range(1, operations + 1):
        target = repository(tmp_path / str(point))
        target.reserve(["m"])
        in_child(lambda: target.reserve(["m"]), kill_at=point)  # noqa: B023
        assert target.ledger().versions in ({"m": 1}, {"m": 2})
        assert [path.name for path in target.root.iterdir()] == [LEDGER]


def test_a_reserved_number_is_not_given_again(tmp_path: Path) -> None:
    target = repository(tmp_path)
    assert target.reserve(["m", "other"]) == {"m": 1, "other": 1}
    assert target.reserve(["m"]) == {"m": 2}
    (target.root / "m" / "7").mkdir(parents=True)  # put there by hand
    assert target.reserve(["m"]) == {"m": 8}


def test_a_damaged_ledger_is_an_error(tmp_path: Path) -> None:
    target = repository(tmp_path)
    target.reserve(["m"])
    (target.root / LEDGER).write_text("{}")
    with pytest.raises(RepositoryError, match="is no ledger"):
        target.reserve(["m"])


def test_a_file_that_is_not_what_was_verified_is_not_published(tmp_path: Path) -> None:
    target = repository(tmp_path)
    wanted = change(tmp_path, 1, config=b"one")
    wanted.version_files["model.onnx"].write_bytes(b"other")
    with pytest.raises(RepositoryError, match=r"m: model\.onnx is not what was verified"):
        target.publish(wanted)
    assert not target.root.exists() or seen(target.root) == {}


def test_a_version_that_exists_is_not_replaced(tmp_path: Path) -> None:
    target = repository(tmp_path)
    target.publish(change(tmp_path, 1, config=b"one"))
    before = seen(target.root)
    with pytest.raises(RepositoryError, match="version 1 exists already"):
        target.publish(change(tmp_path, 1))
    assert seen(target.root) == before


def test_replacing_a_model_keeps_what_others_put_there(tmp_path: Path) -> None:
    target = repository(tmp_path)
    target.publish(change(tmp_path, 1, config=b"one"))
    (target.root / "m" / "warmup").mkdir()
    (target.root / "m" / "warmup" / "data").write_bytes(b"x")
    (target.root / "m" / "1" / "weights.data").write_bytes(b"weights")
    target.publish(change(tmp_path, 2, config=b"two"))
    files = seen(target.root)
    assert files["m/warmup/data"] == hashlib.sha256(b"x").hexdigest()
    assert target.versions("m") == [1, 2]
    assert (target.root / "m" / "1" / "weights.data").stat().st_nlink == 1
    assert all(path.stat().st_nlink == 1 for path in list_tree(target.root).values())


def test_a_removed_file_takes_its_empty_folder_with_it(tmp_path: Path) -> None:
    target = repository(tmp_path)
    target.publish(change(tmp_path, 1, config=b"one", configs__cpu=b"cpu", warmup__a=b"a", warmup__b=b"b"))
    target.publish(change(tmp_path, None, configs__cpu=None, warmup__a=None))
    assert sorted(path.name for path in (target.root / "m").iterdir()) == ["1", "config.pbtxt", "warmup"]
    assert [path.name for path in (target.root / "m/warmup").iterdir()] == ["b"]


def test_a_file_is_replaced_in_place_where_nothing_else_changes(tmp_path: Path) -> None:
    target = repository(tmp_path)
    target.publish(change(tmp_path, 1, config=b"one", configs__cpu=b"cpu"))
    before = (target.root / "m").stat().st_ino
    target.publish(change(tmp_path, None, configs__cpu=b"other"))
    assert (target.root / "m").stat().st_ino == before
    assert (target.root / "m/configs/cpu").read_bytes() == b"other"


def test_links_in_a_models_folder_stay_links(tmp_path: Path) -> None:
    target = repository(tmp_path)
    target.publish(change(tmp_path, 1, config=b"one"))
    (tmp_path / "elsewhere").mkdir()
    (target.root / "m/folder").symlink_to(tmp_path / "elsewhere")
    (target.root / "m/file").symlink_to(tmp_path / "nowhere")
    target.publish(change(tmp_path, 2, config=b"two"))
    assert (target.root / "m/folder").readlink() == tmp_path / "elsewhere"
    assert (target.root / "m/file").readlink() == tmp_path / "nowhere"


@pytest.mark.parametrize("several", [False, True], ids=["one file", "several"])
def test_nothing_is_written_through_a_link(tmp_path: Path, several: bool) -> None:
    target = repository(tmp_path)
    target.publish(change(tmp_path, 1, config=b"one"))
    (tmp_path / "elsewhere").mkdir()
    (tmp_path / "elsewhere" / "x").write_bytes(b"mine")
    (target.root / "m/warmup").symlink_to(tmp_path / "elsewhere")
    for data in (b"x", None):
        wanted = change(tmp_path, None, config=b"two" if several else None, warmup__x=data)
        with pytest.raises(RepositoryError, match=r"m/warmup: is a link, and warmup/x belongs in it"):
            target.publish(wanted)
    assert (tmp_path / "elsewhere" / "x").read_bytes() == b"mine"
    assert (target.root / "m/config.pbtxt").read_bytes() == b"one"


def test_a_filesystem_that_cannot_swap_gets_files_before_the_config_that_names_them(tmp_path: Path) -> None:
    """Killed at any operation, a config is there only with what came with it, and is replaced before that goes."""
    old = {"config": b"old", "configs__cpu.pbtxt": b"old", "warmup__old": b""}
    new = {"config": b"new", "configs__cpu.pbtxt": b"new", "warmup__new": b"", "warmup__old": None}

    def prepared(folder: Path) -> tuple[Repository, Callable[[], None]]:
        target = repository(folder)
        target.publish(change(folder, 1, **old))
        staged = repository(folder / "new")
        staged.publish(change(folder, 1, **{name: data for name, data in new.items() if data is not None}))
        wanted = change(folder, None, **new)
        return target, lambda: _replace_in_turn(staged.root / "m", target.root / "m", wanted)

    operations = in_child(prepared(tmp_path / "whole")[1], kill_at=None).operations
    assert operations >= 4
    for point in range(1, operations + 1):
        target, replace = prepared(tmp_path / str(point))
        assert in_child(replace, kill_at=point).killed
        for name in ("config.pbtxt", "configs/cpu.pbtxt"):
            wanted_file = "warmup/" + (target.root / "m" / name).read_text()
            assert (target.root / "m" / wanted_file).exists(), f"{name} at {point}"


@pytest.mark.parametrize("damage", ["changed", "missing", "added"])
def test_damage_is_found(tmp_path: Path, damage: str) -> None:
    target = repository(tmp_path)
    target.publish(change(tmp_path, 1, config=b"one"))
    path = target.folder("m", 1) / "model.onnx"
    assert target.damage("m", 1) == []
    if damage == "changed":
        path.write_bytes(b"x")
    elif damage == "missing":
        path.unlink()
    else:
        path = path.with_name("extra")
        path.write_bytes(b"")
    assert target.damage("m", 1) == [f"{path.name} {damage}"]


def test_versions_are_what_triton_would_see(tmp_path: Path) -> None:
    target = repository(tmp_path)
    for name in ("1", "12", "007", "0", "3.tmp", "warmup", "x"):
        (target.root / "m" / name).mkdir(parents=True)
    (target.root / "m" / "5").touch()
    assert target.versions("m") == [0, 1, 12]
    assert target.models() == ["m"]


def test_where_folders_cannot_be_swapped_several_versions_and_copied_files_come_in_turn(tmp_path: Path) -> None:
    scenario = "two versions, a config and a file that is copied"
    target, wanted = prepare(tmp_path, scenario)
    staged, _ = prepare(tmp_path / "staged", scenario)
    staged.publish(wanted)
    _replace_in_turn(staged.root / "m", target.root / "m", wanted)
    assert target.versions("m") == [1, 2, 5]
    assert (target.root / "m/config.pbtxt").read_bytes() == b"two"
    assert (target.root / "m/lib/x.so").is_file()


# --- with configs that a server could read ----------------------------------------------------------------------------


def served(target: Repository, name: str = "m") -> list[int]:
    """What a server would serve now; it must find all of it."""
    text = (target.root / name / "config.pbtxt").read_text()
    found = selected(parse(text, name).version_policy, target.versions(name))
    assert all((target.folder(name, number) / "manifest.json").is_file() for number in found)
    assert found
    return found


def text_of(policy: str = "", note: str = "") -> bytes:
    return f'name: "m"\nbackend: "onnxruntime"\n{policy}\n# {note}\n'.encode()


LATEST_2 = "version_policy { latest { num_versions: 2 } }"
STEPPED: dict[str, tuple[Callable[[Path], Change], list[int]]] = {
    "a version and a config": (lambda tmp: change(tmp, 4, config=text_of(note="new")), [4]),
    "a version and a policy": (lambda tmp: change(tmp, 4, config=text_of(LATEST_2)), [4, 3]),
    "two versions": (lambda tmp: replace(change(tmp, 4, config=text_of()), more=(change(tmp, 5),)), [5]),
    "versions leave": (lambda tmp: Change("m", retire=(2, 3)), [1]),
    "versions leave and a config": (lambda tmp: Change("m", top_files={"config.pbtxt": text_of(LATEST_2)}, retire=(3,)), [2, 1]),
    "one leaves that is not served": (lambda tmp: Change("m", retire=(2,)), [3]),
}  # fmt: skip


def stepped(tmp_path: Path) -> Repository:
    """Versions 1 to 3, of which the highest is served."""
    target = repository(tmp_path)
    target.publish(change(tmp_path, 1, config=text_of()))
    for version in (2, 3):
        target.publish(change(tmp_path, version))
    return target


@pytest.mark.parametrize("scenario", STEPPED)
def test_kill_9_at_any_file_operation_leaves_what_was_served_or_what_is_to_be(tmp_path: Path, scenario: str) -> None:
    """And every version whole, in the repository or retired; the same change again completes it."""
    made, after = STEPPED[scenario]
    target = stepped(tmp_path / "whole")
    wanted = made(tmp_path / "whole")
    operations = in_child(lambda: target.publish(wanted), kill_at=None).operations
    assert served(target) == after
    final = (target.root / "m/config.pbtxt").read_bytes()
    for point in range(1, operations + 1):
        folder = tmp_path / f"killed{point}"
        target, wanted = stepped(folder), made(folder)
        assert in_child(lambda: target.publish(wanted), kill_at=point).killed  # noqa: B023
        assert served(target) in ([3], after), f"killed at operation {point} of {operations}"
        assert {*target.versions("m"), *target.retired("m")} >= {1, 2, 3}
        for number in (1, 2, 3):
            assert target.damage("m", number, retired=number in target.retired("m")) == []
        target.clean()
        rest = replace(
            wanted,
            version=wanted.version if wanted.version not in target.versions("m") else None,
            more=tuple(item for item in wanted.more if item.version not in target.versions("m")),
            top_files={**wanted.top_files, "config.pbtxt": final},
            retire=tuple(number for number in wanted.retire if number in target.versions("m")),
        )
        target.publish(rest)
        assert served(target) == after
        assert (target.root / "m/config.pbtxt").read_bytes() == final
        shutil.rmtree(folder)


def test_no_file_of_a_version_is_touched_when_another_comes_or_leaves(tmp_path: Path) -> None:
    """A server that polls loads a version again when a file of it changes in any way, its number of links included."""
    target = stepped(tmp_path)

    def stats() -> dict[str, tuple[int, int]]:
        files = list_tree(target.folder("m", 1)).items()
        return {name: (path.stat().st_ctime_ns, path.stat().st_ino) for name, path in files}

    before = stats()
    target.publish(change(tmp_path, 4, config=text_of(LATEST_2)))
    target.publish(Change("m", retire=(2, 3, 4)))
    target.publish(Change("m", restore=(4,)))
    assert stats() == before
