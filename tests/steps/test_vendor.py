from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from modelwright.errors import StepError
from modelwright.steps.vendor import abi_conflicts, vendor_requirements

PYTHON = "3.12"
TOKENIZERS = "tokenizers==0.23.3"


@pytest.fixture(scope="module")
def vendored(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, list[str]]:
    folder = tmp_path_factory.mktemp("vendored")
    missing = vendor_requirements([TOKENIZERS], PYTHON, folder / "out", folder / "log")
    return folder / "out", missing


def contents(folder: Path) -> dict[str, bytes]:
    return {path.relative_to(folder).as_posix(): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


class TestInstall:
    def test_a_second_run_gives_the_same_files(self, vendored: tuple[Path, list[str]], tmp_path: Path) -> None:
        vendor_requirements([TOKENIZERS], PYTHON, tmp_path / "out", tmp_path / "log")
        assert contents(tmp_path / "out") == contents(vendored[0])

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

    def test_wheels_are_the_targets_not_this_interpreters(self, tmp_path: Path) -> None:
        other = "3.12" if sys.version_info[:2] != (3, 12) else "3.10"
        vendor_requirements(["markupsafe==3.0.2"], other, tmp_path / "out", tmp_path / "log")
        tag = f"cpython-{other.replace('.', '')}-x86_64-linux-gnu.so"
        assert [path.name for path in (tmp_path / "out").rglob("*.so")] == [f"_speedups.{tag}"]
        here = f"{sys.version_info[0]}.{sys.version_info[1]}"
        assert abi_conflicts(tmp_path / "out", here) == [f"markupsafe/_speedups.{tag}"]

    def test_no_requirements_install_nothing(self, tmp_path: Path) -> None:
        assert vendor_requirements([], PYTHON, tmp_path / "out", tmp_path / "log") == []
        assert contents(tmp_path / "out") == {}

    @pytest.mark.parametrize(
        "marker", ["python_version < '3.12'", "sys_platform == 'win32'", "platform_machine == 'aarch64'"]
    )
    def test_markers_are_read_for_the_target(self, tmp_path: Path, marker: str) -> None:
        assert vendor_requirements([f"no-such==1.0; {marker}"], PYTHON, tmp_path / "out", tmp_path / "log") == []


class TestErrors:
    @pytest.mark.parametrize(
        ("requirement", "match"),
        [
            ("tokenizers", "'tokenizers' is no exact pin.*\n.*write tokenizers==VERSION"),
            ("tokenizers>=0.20", "is no exact pin"),
            ("tokenizers==0.23.*", "is no exact pin"),
            ("tokenizers==0.23.3,!=0.23.4", "is no exact pin"),
            ("tokenizers @ https://example.com/t.whl", "is no exact pin"),
            ("--index-url=x", "requirement '--index-url=x'"),
            ("./folder", "requirement './folder'"),
        ],
        ids=["bare", "range", "wildcard", "two", "url", "option", "path"],
    )
    def test_only_exact_pins(self, tmp_path: Path, requirement: str, match: str) -> None:
        with pytest.raises(StepError, match=match):
            vendor_requirements([requirement], PYTHON, tmp_path / "out", tmp_path / "log")
        assert not (tmp_path / "log").exists()

    def test_a_version_without_a_wheel(self, tmp_path: Path) -> None:
        with pytest.raises(StepError, match=r"pip finds no wheel: .*tokenizers==99\.1\n.*a wheel for CPython 3\.12"):
            vendor_requirements(["tokenizers==99.1"], PYTHON, tmp_path / "out", tmp_path / "log")
        assert "99.1" in (tmp_path / "log").read_text()


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
