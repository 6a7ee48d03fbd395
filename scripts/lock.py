"""Resolve every dependency for every supported Python into constraints.txt.

uv resolves for all platforms at once and marks what only some need. Those markers are dropped, but for the ones that
choose between Python versions: a constraint that is not needed does nothing, and the file stays readable.
"""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
_EXTRAS = ("torch", "text", "load", "lock", "gcs", "azure", "mlflow", "dev")
# Decided here, not by the resolver: the target release's onnxruntime and its onnx, and torch's version.
_DECIDED = """\
torch==2.13.0
onnxruntime==1.27.0; python_version >= "3.11"
onnxruntime==1.23.2; python_version < "3.11"
onnx==1.21.0
tritonclient==2.71.0
"""
_HEAD = """\
# Exact versions of everything that `make` installs, for Python 3.10 and later; made by `make lock`.
# torch 2.13.0 resolves to whichever build (CPU, CUDA) the package index in use offers.
# onnxruntime and onnx are those of the target Triton release (modelwright.toml): what is verified is what serves;
# onnxruntime has no such wheels for Python 3.10, which gets the last one that has.
"""
_TAIL = """\
# Not resolvable without NVIDIA's package index, so pinned by hand (extra `tensorrt`).
tensorrt==11.0.0.114
# Extra `tensorrt-check`.
polygraphy==0.53.6
tensorrt-rtx-cu12==1.7.1.116
tensorrt-rtx-cu12-bindings==1.7.1.116
tensorrt-rtx-cu12-libs==1.7.1.116
"""
_OTHER_PLATFORMS = re.compile(r"(pywin32|pyreadline3|httpx2-jsfetch|cuda-toolkit)\b")
_PYTHON = re.compile(r"python_full_version (?:<|>=|==) '[\d.*]+'")


def main() -> None:
    pins = [line.partition(" ; ")[::2] for line in _resolve().splitlines() if not _OTHER_PLATFORMS.match(line)]
    names = [pin.partition("==")[0] for pin, _ in pins]
    lines = [_plain(pin, marker, names.count(pin.partition("==")[0]) > 1) for pin, marker in pins]
    (ROOT / "constraints.txt").write_text(_HEAD + "\n".join(dict.fromkeys(lines)) + "\n" + _TAIL)


def _resolve() -> str:
    decided = ROOT / ".modelwright" / "decided.txt"
    decided.parent.mkdir(exist_ok=True)
    decided.write_text(_DECIDED)
    command = [sys.executable, "-m", "uv", "pip", "compile", "--universal", "--python-version", "3.10", "--no-header"]
    command += ["--no-annotate", "--no-emit-package", "modelwright", "--constraint", str(decided), "--quiet"]
    command += [argument for extra in _EXTRAS for argument in ("--extra", extra)]
    done = subprocess.run([*command, str(ROOT / "pyproject.toml")], check=True, capture_output=True, text=True)
    return done.stdout


def _plain(pin: str, marker: str, several: bool) -> str:
    """The pin; where there are several of one name, with the first thing that its marker says of the Python version."""
    pin = pin.replace("+cpu", "")
    found = _PYTHON.search(marker)
    return f"{pin} ; {found[0]}" if several and found and not pin.startswith("torch==") else pin


if __name__ == "__main__":
    main()
