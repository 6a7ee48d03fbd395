"""The names in a model repository: those that tritonserver looks for, and those that Modelwright adds.

    modelwright.json             LEDGER, a file at the root; the server looks at folders there
    <model>/config.pbtxt         CONFIG
    <model>/configs/<name>.pbtxt the config of a server that runs with --model-config-name=<name>
    <model>/warmup/              data for model_warmup
    <model>/initial_state/       data for sequence states
    <model>/<N>/                 a version
    <model>/<N>/manifest.json    MANIFEST: what the version holds and how it was made
    <model>/<N>/golden.npz       GOLDEN: inputs and the outputs that they must give
    <model>/<N>/ensemble.json    ENSEMBLE: the steps of an ensemble, which has no other files
    <model>/<N>/calls.json       CALLS: the models that a Python model calls
    <model>/<N>/sbom.cdx.json    SBOM: the bill of materials
    <model>/<N>/model.sig        SIGNATURE: covers every other file of the version
    <model>/<N>/pipeline.json    PIPELINE: the steps of a version of an ensemble that is kept beside others
    <model>/<N>/config.pbtxt     CONFIG as it was published with the version; the server does not look at it there

The server reads a folder's name as C's strtoll reads a number, so it takes more folders for versions than Modelwright
can be loaded from: `version_served` says what the server sees, `version_number` what it then finds.
"""

from __future__ import annotations

import re

LEDGER = "modelwright.json"
CONFIG = "config.pbtxt"
MANIFEST = "manifest.json"
GOLDEN = "golden.npz"
ENSEMBLE = "ensemble.json"
CALLS = "calls.json"
PIPELINE = "pipeline.json"
PINS = "pins"  # the config parameter with the versions that a Python model calls
SBOM = "sbom.cdx.json"
SIGNATURE = "model.sig"
# Files of a version that tell of it: they are not part of what it holds, so not of its version digest.
ABOUT = (MANIFEST, GOLDEN, CONFIG, SBOM, SIGNATURE)

CONFIGS = "configs"
WARMUP = "warmup"
INITIAL_STATE = "initial_state"
# Folders of a model that are not versions: model_lifecycle.cc skips them by name.
DATA_FOLDERS = (WARMUP, INITIAL_STATE, CONFIGS)

LARGEST_VERSION = 2**63 - 1
_SMALLEST_VERSION = -(2**63)
_CONFIG_SUFFIX = ".pbtxt"
_VERSION = re.compile(r"0|[1-9][0-9]{0,18}")
_NUMBER = re.compile(r"[ \t\n\v\f\r]*([+-]?[0-9]+)")  # what follows the digits does not count


# --- versions ---------------------------------------------------------------------------------------------------------


def version_number(folder: str) -> int | None:
    """The version in a folder that is named by a plain number, None for any other name.

    The server finds only these: of a folder `5.tmp` it looks for `5`. Modelwright's own begin at 1.
    """
    number = int(folder) if _VERSION.fullmatch(folder) else None
    return number if number is not None and number <= LARGEST_VERSION else None


def version_served(folder: str) -> int | None:
    """The version that the server takes a folder of a model for, None if it skips the folder.

    `5.tmp` and `5-old` are version 5, `-1` and `0` are versions; `05` is not a version. A result that
    is not `in_range` aborts the server. (VersionsToLoad in model_lifecycle.cc)
    """
    if folder in DATA_FOLDERS or (len(folder) > 1 and folder.startswith("0")):
        return None
    return leading_number(folder)


def leading_number(folder: str) -> int | None:
    """The number that a folder's name starts with, as strtoll reads it; leading zeros do not matter here."""
    match = _NUMBER.match(folder)
    return int(match[1]) if match else None


def in_range(version: int) -> bool:
    """Whether the server can hold a version's number, which is an int64."""
    return _SMALLEST_VERSION <= version <= LARGEST_VERSION


# --- configs of environments ------------------------------------------------------------------------------------------


def environment_config(environment: str) -> str:
    """The config of an environment, relative to the model's folder: 'cpu' → 'configs/cpu.pbtxt'."""
    return f"{CONFIGS}/{environment}{_CONFIG_SUFFIX}"


def environment_of(file: str) -> str | None:
    """'configs/cpu.pbtxt' → 'cpu'; None for a file that is not the config of an environment."""
    folder, _, name = file.partition("/")
    is_config = folder == CONFIGS and "/" not in name and name.endswith(_CONFIG_SUFFIX)
    return name.removesuffix(_CONFIG_SUFFIX) or None if is_config else None


def own_file(path: str, model: str) -> str:
    """The file of a model's folder that a server's path names, /models/<model>/<file>; "" where it names another."""
    return path.partition(f"/{model}/")[2] if path.startswith("/") else ""
