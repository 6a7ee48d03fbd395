"""requirements.lock in a project: a build writes what is missing, installs what is locked, and touches nothing else."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from modelwright.steps import resolve
from tests.conftest import PYTHON_MODEL_PY, PYTHON_YAML, Recorder, Sandbox
from tests.wheels import make_wheel, only_index

LOCK = "builders/plus_one/requirements.lock"
SAFE = "safe==2.0"


def yaml(*requirements: str, more: str = "") -> str:
    return PYTHON_YAML.replace("{kind: python}", f"{{kind: python, requirements: [{', '.join(requirements)}]{more}}}")


@pytest.fixture
def index(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    folder = tmp_path / "index"
    only_index(monkeypatch, folder)
    make_wheel(folder, "page", "1.0", ["safe"], {"page.py": "import safe\nVERSION = safe.VERSION\n"})
    make_wheel(folder, "page", "1.1", ["safe"], {"page.py": "import safe\nVERSION = safe.VERSION\n"})
    make_wheel(folder, "safe", "2.0")
    return folder


def lock_of(sandbox: Sandbox) -> str:
    return (sandbox.root / LOCK).read_text()


@pytest.mark.server
@pytest.mark.usefixtures("index")
def test_a_build_locks_and_vendors_dependencies_and_then_has_nothing_to_do(
    sandbox: Sandbox, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    sandbox.python_builder(yaml=yaml("page>=1"), code="import page\nassert page.VERSION == '2.0'\n" + PYTHON_MODEL_PY)
    result = sandbox.cli("build")
    assert result.exit_code == 0, result.output
    assert f"{LOCK}: resolving page>=1\n{LOCK}: written, commit it\n" in result.output
    assert "page==1.1 --hash=" in lock_of(sandbox)
    assert "safe==2.0 --hash=" in lock_of(sandbox)
    assert {"plus_one/1/site-packages/page.py", "plus_one/1/site-packages/safe.py"} <= sandbox.published().keys()
    assert sandbox.manifest("plus_one").made.requirements == ("page==1.1", "safe==2.0")
    # Neither another build nor one of changed code resolves or downloads: there is no index any more, and no uv.
    monkeypatch.setenv("PIP_FIND_LINKS", str(tmp_path / "nowhere"))
    monkeypatch.setattr(resolve, "_uv", lambda: None)
    before = lock_of(sandbox)
    recorder = Recorder()
    assert sandbox.build(listener=recorder)["plus_one"].status == "unchanged"
    assert recorder.ran == []
    model = sandbox.root / "builders/plus_one/model.py"
    model.write_text(model.read_text() + "# changed\n")
    assert sandbox.build()["plus_one"].status == "new"
    assert lock_of(sandbox) == before


def locked(sandbox: Sandbox, *options: str) -> str:
    result = sandbox.cli("lock", *options)
    assert result.exit_code == 0, result.output
    return result.output


class TestLockCommand:
    def test_it_writes_the_lock_once(self, sandbox: Sandbox, index: Path) -> None:
        sandbox.python_builder(yaml=yaml("page==1.0"))
        assert f"{LOCK}: 2 packages; page 1.0 added, safe 2.0 added\n" in locked(sandbox)
        assert f"{LOCK}: 2 packages; up to date\n" in locked(sandbox, "plus_one")

    def test_versions_stay_until_they_must_change_or_are_upgraded(self, sandbox: Sandbox, index: Path) -> None:
        sandbox.python_builder(yaml=yaml("page==1.0"))
        locked(sandbox)
        make_wheel(index, "safe", "2.1")
        sandbox.python_builder(yaml=yaml("page"))
        assert "2 packages; written\n" in locked(sandbox)
        assert "page 1.0 → 1.1, safe 2.0 → 2.1" in locked(sandbox, "--upgrade")

    def test_for_machines(self, sandbox: Sandbox, index: Path) -> None:
        sandbox.python_builder(yaml=yaml("safe"))
        (entry,) = json.loads(locked(sandbox, "--json"))
        wheels, changes = ["safe-2.0-py3-none-any.whl"], ["safe 2.0 added"]
        assert entry == {"model": "plus_one", "file": LOCK, "written": True, "wheels": wheels, "changes": changes}

    def test_what_it_cannot_lock(self, sandbox: Sandbox, index: Path) -> None:
        sandbox.python_builder()
        assert "builders/plus_one/model.yaml: it has no source.requirements" in sandbox.error("lock", "plus_one")
        assert "no builder makes a model named 'plusone'\n  hint: did you mean" in sandbox.error("lock", "plusone")
        assert "no model has requirements" in locked(sandbox)
        sandbox.python_builder(yaml=yaml("nowhere"))
        assert "plus_one/model.yaml: source.requirements: No solution found" in sandbox.error("lock")
        assert not (sandbox.root / LOCK).exists()


class TestWhatDoesNotFit:
    """Plans, and builds that fail before a step runs."""

    def test_a_plan_writes_nothing(self, sandbox: Sandbox, index: Path) -> None:
        sandbox.python_builder(yaml=yaml("safe"))
        assert f"{LOCK}: missing, and model.yaml has requirements" in sandbox.error("plan")
        assert not (sandbox.root / LOCK).exists()

    def test_with_locked_a_build_writes_nothing(self, sandbox: Sandbox, index: Path) -> None:
        sandbox.python_builder(yaml=yaml("safe"))
        error = sandbox.error("build", "--locked")
        assert f"Error: {LOCK}: missing, and model.yaml has requirements\n" in error
        assert " lock plus_one writes it; then commit it" in error
        assert not (sandbox.root / LOCK).exists()

    def test_a_lock_for_other_requirements(self, sandbox: Sandbox, index: Path) -> None:
        sandbox.python_builder(yaml=yaml("safe"))
        locked(sandbox)
        sandbox.python_builder(yaml=yaml("page"))
        expected = "made for something else: requirements [safe], model.yaml has [page]"
        assert f"{LOCK}: {expected}" in sandbox.error("build", "--locked")

    def test_a_lock_that_cannot_be_made_fails_that_model_alone(self, sandbox: Sandbox, index: Path) -> None:
        sandbox.python_builder(yaml=yaml("nowhere"))
        sandbox.onnx_builder()
        outcomes = sandbox.build()
        assert {name: outcome.status for name, outcome in outcomes.items()} == {"doubled": "new", "plus_one": "failed"}
        assert "source.requirements: No solution found" in str(outcomes["plus_one"].error)

    def test_a_folder_where_the_lock_belongs(self, sandbox: Sandbox, index: Path) -> None:
        sandbox.python_builder(yaml=yaml("safe"))
        (sandbox.root / LOCK).mkdir()
        assert f"Error: {LOCK}: cannot be written: Is a directory\n  hint: move away" in sandbox.error("build")
        assert not list((sandbox.root / LOCK).parent.glob(".requirements*"))

    def test_the_lock_of_another_triton_release(self, sandbox: Sandbox, index: Path) -> None:
        sandbox.python_builder(yaml=yaml("safe"))
        locked(sandbox)
        toml = sandbox.root / "modelwright.toml"
        toml.write_text(toml.read_text().replace("26.07", "24.10"))
        assert "made for something else: Python 3.12, the target has 3.10" in sandbox.error("plan")

    def test_only_the_wheels_of_a_lock_count(self, sandbox: Sandbox, index: Path) -> None:
        sandbox.python_builder(yaml=yaml("safe==2.0"))
        locked(sandbox)
        before = keys(sandbox)
        (sandbox.root / LOCK).write_text(lock_of(sandbox) + "# a comment\n")
        assert keys(sandbox) == before
        make_wheel(index, "safe", "2.0", files={"safe.py": "VERSION = 'other'"})
        (sandbox.root / LOCK).unlink()
        locked(sandbox)
        assert keys(sandbox) != before


def keys(sandbox: Sandbox) -> list[str]:
    return [entry["key"] for entry in json.loads(sandbox.cli("plan", "--json").output) if entry["key"]]
