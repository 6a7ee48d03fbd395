"""A project of real models: the builders below `builders/`, and one that `modelwright new --from` writes for each ONNX
file that a package ships.

The ONNX file of a builder comes from a package, or its `convert.py` makes it, as a person would do it once.
"""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

from modelwright import Project
from tests.conftest import ROOT

BUILDERS = Path(__file__).parent / "builders"
SHARED = Path(__file__).parent / "shared"
PACKAGES = Path(sys.prefix) / "models"  # where `make test-models` installs requirements.txt
_WAKE = "openwakeword/resources/models"
# Files of packages for which builders/ has samples of what the model is for.
_WITH_SAMPLES = {
    "ddddocr": "ddddocr/common_old.onnx",
    "openwakeword_embedding": f"{_WAKE}/embedding_model.onnx",
    "openwakeword_melspectrogram": f"{_WAKE}/melspectrogram.onnx",
    "rapidocr_cls": "rapidocr/models/ch_ppocr_mobile_v2.0_cls_mobile.onnx",
    "rapidocr_det": "rapidocr/models/PP-OCRv6_det_small.onnx",
    "rapidocr_rec": "rapidocr/models/PP-OCRv6_rec_small.onnx",
    "silero_vad": "silero_vad/data/silero_vad.onnx",
}
# All files that these packages ship, for builders that `modelwright new --from` writes.
_SHIPPED = (
    *(f"ddddocr/{name}.onnx" for name in ("common", "common_det", "common_old")),
    *(
        f"{_WAKE}/{name}.onnx"
        for name in (
            "alexa_v0.1",
            "embedding_model",
            "hey_jarvis_v0.1",
            "hey_marvin_v0.1",
            "hey_mycroft_v0.1",
            "melspectrogram",
            "silero_vad",
            "timer_v0.1",
            "weather_v0.1",
        )
    ),
    "rapidocr/models/PP-OCRv6_det_small.onnx",
    "rapidocr/models/PP-OCRv6_rec_small.onnx",
    "rapidocr/models/ch_ppocr_mobile_v2.0_cls_mobile.onnx",
    *(
        f"silero_vad/data/silero_vad{kind}.onnx"
        for kind in ("", "_16k_op15", "_16k_sequence", "_half", "_op18_ifless", "_openvino_16k")
    ),
)
WRITTEN = tuple(sorted(folder.name for folder in BUILDERS.iterdir()))
GENERATED = {f"{file.partition('/')[0]}-{Path(file).stem}-new": file for file in _SHIPPED}
NAMES = (*WRITTEN, *GENERATED)


def installed() -> bool:
    return (PACKAGES / ".built").is_file()


def build(root: Path, *, packages: bool = True) -> dict[str, Any]:
    """What `modelwright build --json` says of each model; `packages`: with those of the models. Raises RuntimeError when
    it says nothing."""
    command = (sys.executable, "-m", "modelwright.cli.main", "--project", str(root), "build", "--json")
    done = started(*command, packages=packages)
    if done.returncode not in (0, 1) or not done.stdout:
        raise RuntimeError(f"exit code {done.returncode}\n{done.stderr}")
    return {outcome["model"]: outcome for outcome in json.loads(done.stdout)["models"]}


def environment() -> dict[str, str]:
    """Of a process that finds the packages."""
    return os.environ | {"PYTHONPATH": os.pathsep.join([str(PACKAGES), os.environ.get("PYTHONPATH", "")])}


def write_builders(root: Path) -> None:
    """All builders of a project, complete: each with its model, as it would lie in a user's project."""
    with ThreadPoolExecutor(len(os.sched_getaffinity(0))) as threads:
        list(threads.map(lambda name: _write_builder(name, root / "builders" / name), WRITTEN))
    project = Project.find(root)
    for name, file in GENERATED.items():
        project.new_from(name, PACKAGES / file)


def _write_builder(name: str, folder: Path) -> None:
    shutil.copytree(BUILDERS / name, folder, ignore=shutil.ignore_patterns("__pycache__"))
    if name in _WITH_SAMPLES:
        shutil.copyfile(PACKAGES / _WITH_SAMPLES[name], folder / "model.onnx")
    elif (folder / "convert.py").is_file():
        run(sys.executable, "convert.py", folder=folder)
    else:
        shutil.copytree(SHARED, folder, dirs_exist_ok=True)


def run(*command: str, folder: Path) -> None:
    """Run a command. Raises RuntimeError when it fails."""
    done = started(*command, folder=folder)
    if done.returncode:
        raise RuntimeError(f"{' '.join(command)}: exit code {done.returncode}\n{done.stdout}\n{done.stderr}")


def started(*command: str, folder: Path = ROOT, packages: bool = True) -> subprocess.CompletedProcess[str]:
    variables = environment() if packages else None
    return subprocess.run(command, cwd=folder, env=variables, capture_output=True, text=True, check=False)
