from __future__ import annotations

import subprocess
import sys
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import pytest

from modelwright.errors import StepError
from modelwright.project.lockfile import Lock, Wanted, parse_lock
from modelwright.steps.resolve import resolve
from modelwright.steps.vendor import abi_conflicts, vendor
from modelwright.steps.wheels import unpack
from tests.wheels import make_wheel, only_index

PYTHON = "3.12"
SHIPPED = Path(__file__).parents[2] / "builders/minilm_tokenizer/requirements.lock"


def contents(folder: Path) -> dict[str, bytes]:
    return {path.relative_to(folder).as_posix(): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


@pytest.fixture(scope="module")
def vendored(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, list[str]]:
    folder = tmp_path_factory.mktemp("vendored")
    lock = parse_lock(SHIPPED.read_text(), str(SHIPPED))
    return folder / "out", vendor(lock, folder / "wheels", folder / "out", folder / "log")


class TestShippedLock:
    """The lock of the shipped tokeniser, from the package index."""

    def test_only_what_is_imported_is_kept(self, vendored: tuple[Path, list[str]]) -> None:
        names = contents(vendored[0])
        assert "tokenizers/__init__.py" in names
        assert {path.split("/")[0] for path in names} == {"tokenizers", "tokenizers-0.23.3.dist-info"}
        dropped = ("RECORD", "INSTALLER", "REQUESTED", "direct_url.json", "__pycache__", "bin/")
        assert not [name for name in names if name.endswith(dropped) or "__pycache__" in name]

    def test_what_it_lacks_is_reported(self, vendored: tuple[Path, list[str]]) -> None:
        assert len(vendored[1]) == 1
        assert vendored[1][0].startswith("tokenizers 0.23.3 needs huggingface-hub<")

    def test_it_works_without_any_other_package(self, vendored: tuple[Path, list[str]]) -> None:
        code = f"import sys; sys.path.insert(0, {str(vendored[0])!r}); import tokenizers; print(tokenizers.__file__)"
        done = subprocess.run(
            [sys.executable, "-I", "-S", "-B", "-c", code], capture_output=True, check=True, text=True
        )
        assert done.stdout.startswith(str(vendored[0]))

    def test_its_extension_modules_fit_any_interpreter(self, vendored: tuple[Path, list[str]]) -> None:
        assert any(name.endswith(".so") for name in contents(vendored[0]))
        assert abi_conflicts(vendored[0], "3.12") == abi_conflicts(vendored[0], "3.10") == []


class TestVendor:
    @pytest.fixture
    def index(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
        folder = tmp_path / "index"
        only_index(monkeypatch, folder)
        return folder

    def lock(self, tmp_path: Path, requirements: Sequence[str], exclude: tuple[str, ...] = ()) -> Lock:
        wanted = Wanted(tuple(requirements), exclude, PYTHON, "1.26.4")
        return resolve(wanted, "model.yaml", None, tmp_path / "wheels")

    def test_wheels_that_are_here_are_not_fetched_again(
        self, tmp_path: Path, index: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        make_wheel(index, "leaf", "1.0")
        lock = self.lock(tmp_path, ["leaf"])
        monkeypatch.setenv("PIP_FIND_LINKS", str(tmp_path / "nowhere"))
        for name in ("first", "second"):
            assert vendor(lock, tmp_path / "wheels", tmp_path / name, tmp_path / "log") == []
        assert contents(tmp_path / "first") == contents(tmp_path / "second")
        assert not (tmp_path / "log").exists()
        with pytest.raises(StepError, match=r"pip finds no wheel: .*leaf==1\.0"):
            vendor(lock, tmp_path / "other", tmp_path / "third", tmp_path / "log")

    def test_a_wheel_that_was_damaged_in_the_cache_is_fetched_again(self, tmp_path: Path, index: Path) -> None:
        make_wheel(index, "leaf", "1.0")
        lock = self.lock(tmp_path, ["leaf"])
        (kept,) = (tmp_path / "wheels").glob("*/*.whl")
        kept.write_bytes(b"damaged")
        vendor(lock, tmp_path / "wheels", tmp_path / "out", tmp_path / "log")
        assert (tmp_path / "out/leaf.py").is_file()

    def test_another_file_under_the_same_version_is_refused(self, tmp_path: Path, index: Path) -> None:
        make_wheel(index, "leaf", "1.0")
        lock = self.lock(tmp_path, ["leaf"])
        make_wheel(index, "leaf", "1.0", files={"leaf.py": "import os"})
        with pytest.raises(StepError, match=r"is not what the lock says(?s:.*)modelwright lock"):
            vendor(lock, tmp_path / "elsewhere", tmp_path / "out", tmp_path / "log")

    def test_what_is_left_out_is_reported_but_for_numpy(self, tmp_path: Path, index: Path) -> None:
        make_wheel(index, "numpy", "1.26.4")
        make_wheel(index, "tree", "1.0", ["leaf>=1", "numpy>=1.20", "other; extra == 'more'"])
        lock = self.lock(tmp_path, ["tree"], exclude=("leaf",))
        missing = vendor(lock, tmp_path / "wheels", tmp_path / "out", tmp_path / "log")
        assert missing == ["tree 1.0 needs leaf>=1"]

    @pytest.mark.parametrize(
        ("kept", "problem"), [("leaf", "model.yaml needs tree"), ("tree", r"tree 1\.0 needs leaf>=1")]
    )
    def test_a_lock_that_lacks_a_line_is_refused(self, tmp_path: Path, index: Path, kept: str, problem: str) -> None:
        make_wheel(index, "tree", "1.0", ["leaf>=1"])
        make_wheel(index, "leaf", "1.0")
        lock = self.lock(tmp_path, ["tree"])
        cut = replace(lock, wheels=tuple(wheel for wheel in lock.wheels if wheel.name == kept))
        with pytest.raises(StepError, match=f"requirements.lock is incomplete: {problem}(?s:.*)modelwright lock"):
            vendor(cut, tmp_path / "wheels", tmp_path / "out", tmp_path / "log")

    def test_wheels_are_the_targets_not_this_interpreters(self, tmp_path: Path, index: Path) -> None:
        other = "3.12" if sys.version_info[:2] != (3, 12) else "3.10"
        tag = f"cp{other.replace('.', '')}"
        extension = f"m.cpython-{other.replace('.', '')}-x86_64-linux-gnu.so"
        make_wheel(index, "binary", "1.0", tag=f"{tag}-{tag}-manylinux_2_17_x86_64", files={extension: ""})
        wanted = Wanted(("binary",), (), other, "1.26.4")
        lock = resolve(wanted, "model.yaml", None, tmp_path / "wheels")
        vendor(lock, tmp_path / "wheels", tmp_path / "out", tmp_path / "log")
        here = f"{sys.version_info[0]}.{sys.version_info[1]}"
        assert abi_conflicts(tmp_path / "out", here) == [extension]

    def test_a_lock_without_wheels_vendors_nothing(self, tmp_path: Path) -> None:
        empty = Lock(Wanted(("numpy",), (), PYTHON, "1.26.4"), ())
        assert vendor(empty, tmp_path / "wheels", tmp_path / "out", tmp_path / "log") == []
        assert contents(tmp_path / "out") == {}

    def test_a_hash_that_no_file_has(self, tmp_path: Path, index: Path) -> None:
        make_wheel(index, "leaf", "1.0")
        lock = self.lock(tmp_path, ["leaf"])
        wrong = replace(lock, wheels=(replace(lock.wheels[0], sha256="0" * 64),))
        with pytest.raises(StepError, match="is not what the lock says"):
            vendor(wrong, tmp_path / "wheels", tmp_path / "out", tmp_path / "log")


class TestUnpack:
    def test_files_go_where_pip_puts_them(self, tmp_path: Path) -> None:
        schemes = ("purelib/pure.py", "platlib/fast.so", "data/share/table.txt", "scripts/run", "headers/x.h")
        wheel = make_wheel(tmp_path, "leaf", "1.0", files={f"leaf-1.0.data/{name}": "" for name in schemes})
        unpack(wheel, tmp_path / "out")
        names = {name for name in contents(tmp_path / "out") if ".dist-info" not in name}
        assert names == {"leaf.py", "pure.py", "fast.so", "share/table.txt"}

    @pytest.mark.parametrize("name", ["../evil.py", "leaf/../../evil.py", "/evil.py"])
    def test_a_file_that_leads_out_is_refused(self, tmp_path: Path, name: str) -> None:
        wheel = make_wheel(tmp_path, "leaf", "1.0", files={name: ""})
        with pytest.raises(StepError, match="it has a file named"):
            unpack(wheel, tmp_path / "out")
        assert not list(tmp_path.rglob("evil.py"))

    def test_a_file_that_is_no_wheel(self, tmp_path: Path) -> None:
        (tmp_path / "leaf.whl").write_text("no")
        with pytest.raises(StepError, match="not a wheel that can be unpacked"):
            unpack(tmp_path / "leaf.whl", tmp_path / "out")


class TestAbiConflicts:
    @pytest.mark.parametrize(
        ("name", "conflict"),
        [
            ("m.cpython-312-x86_64-linux-gnu.so", False),
            ("m.cpython-311-x86_64-linux-gnu.so", True),
            ("m.cpython-313t-x86_64-linux-gnu.so", True),
            ("m.cpython-312-aarch64-linux-gnu.so", True),
            ("m.cpython-312-darwin.so", True),
            ("m.cpython-312.so", False),
            ("m.pypy310-pp73-x86_64-linux-gnu.so", True),
            ("m.abi3.so", False),
            ("libm.so", False),
            ("libm.so.6", False),
            ("cpython-311.txt", False),
        ],
    )
    def test_by_the_files_name(self, tmp_path: Path, name: str, conflict: bool) -> None:
        (tmp_path / "package").mkdir()
        (tmp_path / "package" / name).touch()
        assert abi_conflicts(tmp_path, PYTHON) == ([f"package/{name}"] if conflict else [])
