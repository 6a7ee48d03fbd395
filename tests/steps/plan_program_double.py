"""A plan builder that says what it was started with, and then waits, or dies: `python -m … IN OUT …`, by the name of IN."""

from __future__ import annotations

import os
import signal
import sys
import threading
from pathlib import Path

if __name__ == "__main__":
    print("started with", *sys.argv[3:], "on", repr(os.environ["CUDA_VISIBLE_DEVICES"]), flush=True)
    name = Path(sys.argv[1]).name
    if name == "waits":
        threading.Event().wait()
    if name == "dies":
        os.kill(os.getpid(), signal.SIGKILL)
