"""What `make test-tensorrt` installs, where it lies, and libraries without content in place of TensorRT's.

TensorRT's Python bindings are on PyPI, a megabyte each; the libraries that they load are not. With stubs in their place
the bindings can be imported: their names, signatures and enumerations are then known, and nothing can be built.
"""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path

FOLDER = Path(sys.prefix) / "tensorrt"
CHECK = FOLDER / "check"  # TensorRT for RTX, and Polygraphy
# One before and one after same_compute_capability came; the first and a late one of 11, where the precision flags went.
BINDINGS = ("10.7.0", "10.13.3.9", "11.0.0.114", "11.4.0.106")
# What tensorrt.so looks up in TensorRT's libraries.
_FUNCTIONS = (
    "createInferBuilder_INTERNAL", "createInferRefitter_INTERNAL", "createInferRuntime_INTERNAL",
    "createNvOnnxParserRefitter_INTERNAL", "createNvOnnxParser_INTERNAL", "getBuilderPluginRegistry",
    "getNvOnnxParserVersion", "getPluginRegistry", "initLibNvInferPlugins",
)  # fmt: skip
_LIBRARIES = ("nvinfer", "nvonnxparser", "nvinfer_plugin")


def installed() -> bool:
    return (FOLDER / ".built").is_file()


def why_not() -> str:
    """Why the tests of this folder cannot run; empty where they can."""
    return "" if installed() else "TensorRT for RTX and TensorRT's bindings are not installed: make test-tensorrt"


def compiler() -> str | None:
    return shutil.which("cc") or shutil.which("gcc")


def stubs(version: str, folder: Path) -> Path:
    """Shared libraries for one version of the bindings, which define what these look up and do nothing."""
    cc, major = compiler(), version.partition(".")[0]
    assert cc is not None
    source = folder / "stub.c"
    source.write_text("".join(f"void *{name}(void) {{ return 0; }}\n" for name in _FUNCTIONS))
    for library in _LIBRARIES:
        name = f"lib{library}.so.{major}"
        command = [cc, "-shared", "-fPIC", "-o", str(folder / name), str(source), f"-Wl,-soname,{name}"]
        subprocess.run(command, check=True)
    return folder


def environment(version: str, libraries: Path) -> dict[str, str]:
    """Of a process that imports one version of the bindings."""
    path = os.pathsep.join([str(FOLDER / version), str(CHECK), os.environ.get("PYTHONPATH", "")])
    return os.environ | {"LD_LIBRARY_PATH": str(libraries), "PYTHONPATH": path}


def main() -> None:
    """Install all of it, anew."""
    shutil.rmtree(FOLDER, ignore_errors=True)
    pip = [sys.executable, "-m", "pip", "--disable-pip-version-check", "--quiet", "install", "--no-deps", "--target"]
    requirements = Path(__file__).with_name("requirements.txt")
    subprocess.run([*pip, str(CHECK), "--requirement", str(requirements)], check=True)
    for version in BINDINGS:
        subprocess.run([*pip, str(FOLDER / version), f"tensorrt-cu12-bindings=={version}"], check=True)
    (FOLDER / ".built").touch()


if __name__ == "__main__":
    main()
