"""What `pip install modelwright` puts on a machine that only lints: other people's CI installs it for every run."""

from __future__ import annotations

import subprocess
import sys
import tempfile
from pathlib import Path

from benchmarks.options import Options
from benchmarks.table import Section

_ROOT = Path(__file__).resolve().parent.parent
_EXTRAS = ("", "client", "build", "load")
_BEFORE = ["`modelwright` before these extras", "41", "307 MB"]  # of 26 November 2026
_OF_THE_ENVIRONMENT = ("pip", "setuptools", "pkg_resources", "_distutils_hack", "distutils-precedence.pth")


def measure(options: Options) -> list[Section]:
    with tempfile.TemporaryDirectory(prefix="modelwright-install-") as folder:
        _run(sys.executable, "-m", "uv", "build", "--quiet", "--wheel", "--out-dir", folder, str(_ROOT))
        (wheel,) = Path(folder).glob("*.whl")
        rows = [_installed(Path(folder), wheel, extra) for extra in (_EXTRAS[:1] if options.quick else _EXTRAS)]
    return [
        Section(
            "install: what pip puts into an empty environment",
            "Files of site-packages with their bytecode, without pip and setuptools, from the wheel and the pins.",
            ["what is installed", "packages", "size"],
            [*rows, _BEFORE],
        )
    ]


def _installed(folder: Path, wheel: Path, extra: str) -> list[str]:
    """The row of the wheel with an extra; of the wheel alone without one."""
    place = folder / (extra or "alone")
    _run(sys.executable, "-m", "venv", str(place))
    given = f"{wheel}[{extra}]" if extra else str(wheel)
    pins = ("--constraint", str(_ROOT / "constraints.txt"))
    _run(str(place / "bin/python"), "-m", "pip", "install", "--quiet", "--disable-pip-version-check", *pins, given)
    (packages,) = place.glob("lib/python3*/site-packages")
    own = [path for path in packages.iterdir() if path.name.partition("-")[0] not in _OF_THE_ENVIRONMENT]
    size = sum(file.stat().st_size for path in own for file in (path.rglob("*") if path.is_dir() else [path]))
    count = sum(path.suffix == ".dist-info" for path in own)
    return [f"`modelwright[{extra}]`" if extra else "`modelwright`", str(count), f"{size / 1e6:.0f} MB"]


def _run(*command: str) -> None:
    subprocess.run(command, check=True)
