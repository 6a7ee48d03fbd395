"""Requirements become a lock: for the target's Python, beside the container's numpy, with all that they need."""

from __future__ import annotations

from pathlib import Path

import pytest

from modelwright.errors import ModelwrightError, SpecError, StepError
from modelwright.project.lockfile import Lock, Wanted
from modelwright.steps import resolve as module
from modelwright.steps.resolve import resolve
from tests.wheels import make_wheel, only_index

YAML = "builders/m/model.yaml"


@pytest.fixture
def index(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    folder = tmp_path / "index"
    only_index(monkeypatch, folder)
    make_wheel(folder, "leaf", "1.0")
    make_wheel(folder, "leaf", "1.1")
    make_wheel(folder, "tree", "2.0", ["leaf>=1", "oldleaf; python_version < '3.12'", "extra1; extra == 'more'"])
    make_wheel(folder, "extra1", "1.0")
    make_wheel(folder, "numpy", "1.26.4")
    make_wheel(folder, "numpy", "2.0.0")
    make_wheel(folder, "array_lib", "1.0", ["numpy>=1.20"])
    make_wheel(folder, "new_array_lib", "1.0", ["numpy>=2"])
    make_wheel(folder, "binary", "1.0", tag="cp312-cp312-manylinux_2_17_x86_64")
    make_wheel(folder, "binary", "1.1", tag="cp311-cp311-manylinux_2_17_x86_64")
    make_wheel(folder, "binary", "1.2", tag="cp312-cp312-win_amd64")
    return folder


def wanted(*requirements: str, exclude: tuple[str, ...] = (), python: str = "3.12") -> Wanted:
    return Wanted(requirements, exclude, python, "1.26.4")


def locked(tmp_path: Path, want: Wanted, before: Lock | None = None) -> list[str]:
    lock = resolve(want, YAML, before, tmp_path / "wheels")
    assert lock.wanted == want
    return [wheel.pin for wheel in lock.wheels]


@pytest.mark.usefixtures("index")
class TestResolved:
    def test_dependencies_are_locked_too(self, tmp_path: Path) -> None:
        assert locked(tmp_path, wanted("tree")) == ["leaf==1.1", "tree==2.0"]

    def test_extras_are_followed(self, tmp_path: Path) -> None:
        assert locked(tmp_path, wanted("tree[more]")) == ["extra1==1.0", "leaf==1.1", "tree==2.0"]

    def test_what_is_excluded_is_not(self, tmp_path: Path) -> None:
        assert locked(tmp_path, wanted("tree", exclude=("leaf",))) == ["tree==2.0"]

    def test_numpy_is_the_containers(self, tmp_path: Path) -> None:
        assert locked(tmp_path, wanted("array-lib", "numpy")) == ["array-lib==1.0"]

    def test_wheels_are_for_the_target(self, tmp_path: Path) -> None:
        assert locked(tmp_path, wanted("binary")) == ["binary==1.0"]

    def test_requirements_of_another_target_are_left_out(self, tmp_path: Path) -> None:
        assert locked(tmp_path, wanted("no-such; sys_platform == 'win32'")) == []

    def test_versions_of_the_present_lock_stay(self, tmp_path: Path) -> None:
        old = resolve(wanted("leaf<1.1"), YAML, None, tmp_path / "wheels")
        assert locked(tmp_path, wanted("tree"), old) == ["leaf==1.0", "tree==2.0"]

    def test_the_wheels_are_there_afterwards(self, tmp_path: Path) -> None:
        lock = resolve(wanted("leaf"), YAML, None, tmp_path / "wheels")
        (wheel,) = lock.wheels
        assert (tmp_path / "wheels" / wheel.sha256 / "leaf-1.1-py3-none-any.whl").is_file()
        assert [path.name for path in (tmp_path / "wheels").iterdir()] == [wheel.sha256]


@pytest.mark.usefixtures("index")
class TestErrors:
    @pytest.mark.parametrize(
        ("want", "kind", "match"),
        [
            (wanted("leaf=="), SpecError, r"'leaf==': (?s:.*)as pip takes them"),
            (wanted("--index-url=x"), SpecError, "'--index-url=x': "),
            (wanted("./folder"), SpecError, "'./folder': "),
            (wanted("leaf @ https://example.com/l.whl"), SpecError, r"not a URL(?s:.*)write leaf==VERSION"),
            (wanted("leaf", exclude=("Leaf",)), SpecError, "exclude_dependencies leaves it out"),
            (wanted("leaf==9"), SpecError, r"no version of leaf==9(?s:.*)wheels for CPython 3\.12"),
            (wanted("new-array-lib"), SpecError, r"the container has numpy 1\.26\.4"),
            (wanted("binary>=1.1"), SpecError, "no wheels"),
        ],
        ids=["syntax", "option", "path", "url", "both", "no version", "numpy", "no wheel"],
    )
    def test_what_cannot_be_met(self, tmp_path: Path, want: Wanted, kind: type[ModelwrightError], match: str) -> None:
        with pytest.raises(kind, match=match) as caught:
            resolve(want, YAML, None, tmp_path / "wheels")
        assert caught.value.message.startswith(f"{YAML}: source.requirements: ")

    def test_an_index_that_cannot_be_reached(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.delenv("UV_CONFIG_FILE")
        monkeypatch.setenv("UV_DEFAULT_INDEX", "http://127.0.0.1:9/simple")
        monkeypatch.setenv("UV_HTTP_RETRIES", "0")
        with pytest.raises(StepError, match=r"the package index cannot be reached: (?s:.*)hint: check the network"):
            resolve(wanted("somewhere-else"), YAML, None, tmp_path / "wheels")

    def test_no_uv(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr(module, "_uv", lambda: None)
        with pytest.raises(StepError, match=r"uv, which resolves them, is not installed\n.*modelwright\[lock\]"):
            resolve(wanted("leaf"), YAML, None, tmp_path / "wheels")
