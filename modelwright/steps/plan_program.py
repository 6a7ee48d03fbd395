"""The program that builds a plan: `python -m modelwright.steps.plan_program IN OUT`.

It runs in a process of its own on this machine, in a container, and as a Job of a cluster. `--check 8.9,9.0` tries the
request with TensorRT for RTX instead, without a GPU.
"""

from __future__ import annotations

import argparse
import ctypes
import signal
import sys
from pathlib import Path

from modelwright.steps.plan_folders import PROGRAM, serve

_PR_SET_PDEATHSIG = 1  # linux/prctl.h


def main(arguments: list[str] | None = None) -> int:
    """Exit code 0, or 1 with a reason in OUT/failed.json."""
    parser = argparse.ArgumentParser(prog=f"python -m {PROGRAM}", description="Build a TensorRT plan.")
    parser.add_argument("inside", metavar="IN", type=Path, help="folder with request.json and model.onnx")
    parser.add_argument("out", metavar="OUT", type=Path, help="folder for model.plan and sidecar.json")
    parser.add_argument("--check", metavar="CAPABILITIES", help="only try it, without a GPU: 8.0,8.9")
    parser.add_argument("--with-parent", action="store_true", help="end when the process that started it ends")
    given = parser.parse_args(arguments)
    if given.with_parent:
        _die_with_parent()
    capabilities = None if given.check is None else [text for text in given.check.split(",") if text]
    return serve(given.inside, given.out, capabilities)


def _die_with_parent() -> None:
    libc = ctypes.CDLL(None)
    if hasattr(libc, "prctl"):
        libc.prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)


if __name__ == "__main__":
    sys.exit(main())
