"""What a process leaves that was killed is no damage that loses anything: `fsck --repair` tidies it."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from pathlib import Path

import pytest

from modelwright.operations.fsck import fsck
from modelwright.project.project import load
from modelwright.repository import moves
from modelwright.repository.move import carry_out
from modelwright.repository.records import record_folder
from modelwright.repository.repository import Repository
from tests.conftest import ROOT, doubling_onnx
from tests.repository.killing import in_child
from tests.repository.operated import Operated

Action = Callable[[Operated], object]
SCENARIOS: dict[str, Action] = {
    "a publish": lambda made: made.publish("doubled", 3, model=(made.folder / "model.onnx").read_bytes()),
    "a rollback": lambda made: carry_out(made.repository, moves.rollback(made.repository, "doubled")),
    "a promotion": lambda made: carry_out(made.repository, moves.promote(made.repository, "doubled", 1)),
    "a repair": lambda made: fsck(load(made.folder), repair=True, say=lambda text: None),
}


def prepared(folder: Path, *, damaged: bool) -> Operated:
    folder.mkdir(parents=True)
    shutil.copy(ROOT / "modelwright.toml", folder)
    for name in ("builders", "templates"):
        (folder / name).mkdir()
    made = Operated(folder, keeps=True)
    for version in (1, 2):
        doubling_onnx(folder / "model.onnx", 2.0 + version / 1000)
        made.publish("doubled", version, model=(folder / "model.onnx").read_bytes())
    fsck(load(folder), repair=True, say=lambda text: None)  # the journal knows all of it
    if damaged:
        shutil.copyfile(folder / "model.onnx", made.repository.folder("doubled", 1) / "stray")
        (record_folder(made.repository.history, "doubled", 2) / "manifest.json").write_text("{")
    return made


@pytest.mark.parametrize("scenario", SCENARIOS)
def test_kill_9_leaves_nothing_that_a_repair_cannot_tidy(tmp_path: Path, scenario: str) -> None:
    damaged = scenario == "a repair"
    act = SCENARIOS[scenario]
    made = prepared(tmp_path / "whole", damaged=damaged)
    operations = in_child(lambda: act(made), kill_at=None).operations
    assert operations >= 4
    for point in range(1, operations + 1):
        killed = prepared(tmp_path / f"killed{point}", damaged=damaged)
        versions = killed.repository.versions("doubled")
        in_child(lambda: act(killed), kill_at=point)  # noqa: B023
        found = fsck(load(killed.folder), say=lambda text: None)
        if not damaged:
            kinds = {damage.kind for damage in found.damages}
            assert kinds <= {"config", "leftover", "twice"}, f"at {point} of {operations}: {found.damages}"
        left = fsck(load(killed.folder), repair=True, say=lambda text: None)
        assert (left.damages, left.failed) == ((), {}), f"at {point} of {operations}"
        repository = Repository.of(load(killed.folder))
        assert {*repository.versions("doubled"), *repository.retired("doubled")} >= set(versions)
