"""The local server's environment: installed once, reused, rebuilt when it must be, and refused with a reason."""

from __future__ import annotations

import json
import os
import re
import shutil
import signal
import subprocess
import sys
import threading
from collections.abc import Iterator, Sequence
from pathlib import Path

import pytest

from modelwright.environments.interpreters import Interpreter, probe
from modelwright.environments.packages import NoWheelError, pip_install
from modelwright.errors import ServerError
from modelwright.server.environment import Environment, Host, ensure, find, unsupported_reason
from modelwright.server.interpreters import candidates, minor_versions, usable
from modelwright.triton.releases import release
from tests.server.models import RELEASE, STATE


def silent(message: str) -> None:
    pass


class Copy:
    """Installs by linking the wheels of the environment that is already there, and counts."""

    def __init__(self, source: Environment) -> None:
        self.source = source
        self.installed: list[tuple[str, ...]] = []

    def __call__(self, _: Interpreter, pins: Sequence[str], target: Path, __: Path) -> None:
        self.installed.append(tuple(pins))
        is_of_models = target.name == "site-packages"
        source = self.source.site_packages if is_of_models else self.source.server_packages
        # Written after an installation, and through a link if it existed.
        ours = shutil.ignore_patterns("modelwright.pth")
        shutil.copytree(source, target, copy_function=os.link, ignore=ours, dirs_exist_ok=True)


@pytest.fixture
def copy(environment: Environment) -> Copy:
    return Copy(environment)


@pytest.fixture
def state(environment: Environment) -> Iterator[Path]:
    """An empty state directory on the file system of the real one, for hard links."""
    folder = STATE / f"test-{os.getpid()}"
    folder.mkdir()
    yield folder
    shutil.rmtree(folder)


def refuse(*arguments: object) -> None:
    raise AssertionError("nothing should be installed")


def test_nothing_is_found_before_it_is_installed(tmp_path: Path) -> None:
    assert find(tmp_path / "state", RELEASE) is None
    assert not (tmp_path / "state").exists()


def test_an_installed_environment_is_reused(environment: Environment) -> None:
    assert ensure(STATE, RELEASE, refuse, install=refuse) == environment
    assert find(STATE, RELEASE) == environment


def test_an_environment_knows_its_interpreter_and_its_programs(environment: Environment) -> None:
    assert environment.release == "26.07"
    assert environment.python_version.startswith("3.")
    assert os.access(environment.server, os.X_OK)
    assert (environment.backends / "onnxruntime/model.py").is_file()
    assert (environment.backends / "python/triton_python_backend_stub").is_file()


def test_changed_pins_make_another_environment_and_the_old_pins_find_the_old_one(state: Path, copy: Copy) -> None:
    old = ensure(state, RELEASE, silent, install=copy, pins=["numpy==1"])
    new = ensure(state, RELEASE, silent, install=copy, pins=["numpy==2"])
    assert old.root != new.root
    assert ensure(state, RELEASE, silent, install=copy, pins=["numpy==1"]) == old
    assert [pins for pins in copy.installed if pins] == [("numpy==1",), ("numpy==2",)]


def test_an_environment_whose_interpreter_is_gone_is_rebuilt(state: Path, copy: Copy) -> None:
    first = ensure(state, RELEASE, silent, install=copy)
    first.python.unlink()
    first.python.symlink_to("/nowhere/python3")
    assert find(state, RELEASE) is None
    assert ensure(state, RELEASE, silent, install=copy).python.exists()
    assert len(copy.installed) == 4


def test_it_says_what_it_installs(state: Path, copy: Copy) -> None:
    said: list[str] = []
    ensure(state, RELEASE, said.append, install=copy)
    assert len(said) == 1
    assert "nvidia-pytriton==0.7.0" in said[0]
    assert f"onnxruntime=={RELEASE.onnxruntime}" in said[0]


def test_two_at_the_same_time_install_once(state: Path, copy: Copy) -> None:
    made: list[Environment] = []
    threads = [
        threading.Thread(target=lambda: made.append(ensure(state, RELEASE, silent, install=copy))) for _ in range(2)
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert made[0] == made[1]
    assert len(copy.installed) == 2


def test_a_failed_installation_leaves_nothing_behind(state: Path, environment: Environment) -> None:
    def fail(interpreter: Interpreter, pins: Sequence[str], target: Path, log: Path) -> None:
        (target / "half").touch()
        raise ServerError("no network")

    with pytest.raises(ServerError, match="no network"):
        ensure(state, RELEASE, silent, install=fail)
    assert [path.name for path in state.iterdir()] == [".lock"]


KILLED = """
import sys, time
from pathlib import Path
from modelwright.server.environment import ensure
from tests.server.models import RELEASE

def install(interpreter, pins, target, log):
    (target / "half").touch()
    print("installing", flush=True)
    time.sleep(600)

ensure(Path(sys.argv[1]), RELEASE, lambda message: None, install=install)
"""


def test_a_killed_installation_is_started_over(state: Path, copy: Copy) -> None:
    command = [sys.executable, "-c", KILLED, str(state)]
    with subprocess.Popen(command, stdout=subprocess.PIPE, cwd=Path(__file__).parents[2]) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == b"installing\n"
        process.send_signal(signal.SIGKILL)
    assert find(state, RELEASE) is None
    made = ensure(state, RELEASE, silent, install=copy)
    assert sorted(path.name for path in state.iterdir()) == [".lock", made.root.name]


def test_programs_that_do_not_run_are_an_error_that_names_the_library(state: Path, copy: Copy) -> None:
    def install(interpreter: Interpreter, pins: Sequence[str], target: Path, log: Path) -> None:
        copy(interpreter, pins, target, log)
        shutil.rmtree(target / "nvidia_pytriton.libs", ignore_errors=True)

    with pytest.raises(ServerError, match=r"does not run on this machine: .*cannot open shared object file"):
        ensure(state, RELEASE, silent, install=install)


@pytest.mark.parametrize(
    ("host", "reason"),
    [
        pytest.param(Host("Linux", "x86_64", "glibc 2.35"), None, id="oldest glibc"),
        pytest.param(Host("Linux", "x86_64", "glibc 2.34"), r"glibc 2\.35.*glibc 2\.34", id="old glibc"),
        pytest.param(Host("Linux", "x86_64", ""), r"glibc 2\.35.*another C library", id="musl"),
        pytest.param(Host("Linux", "aarch64", "glibc 2.39"), "Linux x86-64.*Linux aarch64", id="arm"),
        pytest.param(Host("Darwin", "arm64", ""), "Linux x86-64.*Darwin arm64", id="mac"),
    ],
)
def test_platforms(host: Host, reason: str | None) -> None:
    found = unsupported_reason(host)
    assert (found is None) == (reason is None)
    assert re.search(reason or "", found or "")


def test_an_unsupported_platform_is_pointed_to_the_container(tmp_path: Path) -> None:
    with pytest.raises(ServerError, match=r"this machine: .*Linux x86-64(?s:.*)docker compose up triton"):
        ensure(tmp_path, RELEASE, silent, install=refuse, host=Host("Darwin", "arm64", ""))


def test_models_see_the_environment_s_packages_only(
    environment: Environment, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    (tmp_path / "numpy.py").write_text("raise RuntimeError('the wrong numpy')")
    monkeypatch.setenv("PYTHONPATH", str(tmp_path))
    monkeypatch.setenv("VIRTUAL_ENV", "/somewhere")
    variables = environment.variables()
    assert not [name for name in variables if name.startswith("PYTHON") or name == "VIRTUAL_ENV"]
    show = (
        "import numpy, sys; from importlib.metadata import distributions; "
        "print(numpy.__version__, *(found.name for found in distributions()))"
    )
    done = subprocess.run([environment.python, "-c", show], env=variables, capture_output=True, text=True, check=True)
    assert done.stdout.split() == [RELEASE.numpy, "numpy"]


def test_modules_that_the_container_s_python_has_lost_are_not_there(environment: Environment) -> None:
    done = subprocess.run([environment.python, "-c", "import imp"], capture_output=True, text=True, check=False)
    assert "ModuleNotFoundError" in done.stderr
    if not environment.python_version.startswith(f"{RELEASE.python}."):
        assert "import of imp halted" in done.stderr


def test_an_environment_of_an_older_layout_is_not_used(state: Path, copy: Copy) -> None:
    made = ensure(state, RELEASE, silent, install=copy)
    facts = json.loads((made.root / "environment.json").read_text())
    facts["identity"]["format"] -= 1
    (made.root / "environment.json").write_text(json.dumps(facts))
    assert find(state, RELEASE) is None
    assert ensure(state, RELEASE, silent, install=copy).root.is_dir()


def test_pip_s_own_words_are_in_the_error(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    interpreter = probe(sys.executable)
    assert interpreter is not None
    monkeypatch.setenv("PIP_NO_INDEX", "1")
    with pytest.raises(NoWheelError, match=r"(?s)pip .*No matching distribution found for numpy==0.0.1"):
        pip_install(interpreter, ["numpy==0.0.1"], tmp_path / "target", tmp_path / "pip.log")
    assert "numpy==0.0.1" in (tmp_path / "pip.log").read_text()


def fake_python(path: Path, version: str, libpython: str = "/lib/libpython.so") -> str:
    """An interpreter that only knows how to describe itself."""
    facts = (
        f'{{"executable": "{path}", "version": "{version}", "full_version": "{version}.1", '
        f'"implementation": "cpython", "libpython": "{libpython}", "pip": true}}'
    )
    path.write_text(f"#!/bin/sh\necho '{facts}'\n")
    path.chmod(0o755)
    return str(path)


@pytest.mark.parametrize(
    ("onnxruntime", "minors"),
    [
        pytest.param("1.16.3", [10, 11], id="1.16"),
        pytest.param("1.19.2", [10, 11, 12], id="1.19"),
        pytest.param("1.27.0", [11, 12], id="1.27"),
    ],
)
def test_interpreters_that_have_wheels(onnxruntime: str, minors: list[int]) -> None:
    assert list(minor_versions(onnxruntime)) == minors


def test_the_release_s_own_python_comes_first(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    preferred, other = (fake_python(tmp_path / f"python3.{minor}", f"3.{minor}") for minor in (12, 11))
    monkeypatch.setenv("PATH", f"{tmp_path}:{os.environ['PATH']}")
    assert next(candidates(RELEASE, None)) == preferred
    assert list(candidates(RELEASE, other)) == [other]


def test_an_interpreter_that_does_not_run_or_fit_is_refused_with_the_reason(tmp_path: Path) -> None:
    broken = tmp_path / "broken"
    broken.write_text("#!/bin/sh\necho 'pyenv: python3.12: command not found' >&2\nexit 127\n")
    broken.chmod(0o755)
    for python, reason in (
        (str(broken), "does not run"),
        (str(tmp_path / "missing"), "does not run"),
        (fake_python(tmp_path / "old", "3.9"), "Python 3.9; 3.11 to 3.12"),
        (fake_python(tmp_path / "static", "3.12", libpython=""), "shared libpython"),
    ):
        fit, (refused,) = usable(RELEASE, python)
        assert fit == []
        assert refused.startswith(f"{python}: ")
        assert reason in refused


def test_no_usable_interpreter_is_an_error_that_lists_what_was_tried(tmp_path: Path) -> None:
    python = fake_python(tmp_path / "old", "3.9")
    with pytest.raises(ServerError, match=rf"(?s)tried:.*{python}: it is Python 3.9.*install Python 3.11 to 3.12"):
        ensure(tmp_path, RELEASE, silent, python, install=refuse)


def test_every_release_has_an_interpreter() -> None:
    assert all(len(minor_versions(release(name).onnxruntime)) for name in ("23.10", "24.10", "25.06", "26.08"))


def test_importing_the_server_package_and_the_client_stays_light() -> None:
    show = (
        "import sys, modelwright.triton.client, modelwright.server.environment, modelwright.server.local; "
        "print([name for name in ('numpy', 'grpc', 'gevent', 'tritonclient', 'onnxruntime') if name in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", show], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"
