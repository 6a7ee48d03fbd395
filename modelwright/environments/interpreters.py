"""The Pythons of this machine, and what each of them is."""

from __future__ import annotations

import json
import subprocess
from dataclasses import dataclass

_PROBE = """
import importlib.util, json, os, sys, sysconfig
name = sysconfig.get_config_var("INSTSONAME") or ""
places = [sysconfig.get_config_var("LIBDIR") or "", os.path.join(sys.base_prefix, "lib")]
places += [os.path.join(places[0], sysconfig.get_config_var("MULTIARCH") or "")]
found = [os.path.join(place, name) for place in places if os.path.isfile(os.path.join(place, name))]
print(json.dumps({
    "executable": getattr(sys, "_base_executable", "") or sys.executable,
    "version": "%d.%d" % sys.version_info[:2],
    "full_version": "%d.%d.%d" % sys.version_info[:3],
    "implementation": sys.implementation.name,
    "libpython": found[0] if ".so" in name and found else "",
    "pip": importlib.util.find_spec("pip") is not None,
}))
"""


@dataclass(frozen=True)
class Interpreter:
    command: str  # as given; it runs pip
    executable: str  # the base interpreter, outside any virtual environment
    version: str  # "3.11"
    full_version: str  # "3.11.7"
    libpython: str  # the shared library that the stub embeds; empty if this Python was built without one
    pip: bool

    @property
    def minor(self) -> int:
        return int(self.version.split(".")[1])


def probe(command: str) -> Interpreter | None:
    """Run an interpreter to describe it; None if it does not run, like pyenv's shims for versions not installed."""
    try:
        done = subprocess.run([command, "-I", "-c", _PROBE], capture_output=True, text=True, timeout=30, check=True)
        facts = json.loads(done.stdout)
    except (OSError, subprocess.SubprocessError, ValueError):
        return None
    if facts.pop("implementation") != "cpython":
        return None
    return Interpreter(command=command, **facts)
