"""Files with fitted estimators, told apart by how they begin: nothing is loaded, and no library is imported."""

from __future__ import annotations

import json
import zipfile
import zlib
from dataclasses import dataclass
from pathlib import Path

from modelwright.fsops import open_file

_HEAD_BYTES = 4096
_SCHEMA_BYTES = 1 << 26
_PICKLE_PROTOCOLS = (b"\x80\x02", b"\x80\x03", b"\x80\x04", b"\x80\x05")
_COMPRESSED = (b"\x78\x01", b"\x78\x5e", b"\x78\x9c", b"\x78\xda", b"\x1f\x8b", b"BZh", b"\xfd7zXZ", b"]\x00\x00")
_PICKLE_SUFFIXES = (".pkl", ".pickle", ".joblib")
_SKOPS_SCHEMA = "schema.json"
_UBJ = b"{L\x00\x00\x00\x00\x00\x00\x00"  # an object whose first key has a length of 64 bits
_XGBOOST_KEYS = (b"learner", b"version", b"Config")


@dataclass(frozen=True)
class EstimatorFile:
    what: str


SKOPS = EstimatorFile("a skops file")
XGBOOST = EstimatorFile("a model of XGBoost")
LIGHTGBM = EstimatorFile("a model of LightGBM")
PICKLE = EstimatorFile("a pickle")
JOBLIB = EstimatorFile("a pickle of joblib, compressed")
PICKLES = (PICKLE, JOBLIB)


def estimator_file(path: Path) -> EstimatorFile | None:
    """What the file is; None for any other. Raises OSError."""
    with open_file(path) as file:
        head = file.read(_HEAD_BYTES)
    if head.startswith(b"PK\x03\x04"):
        return SKOPS if _is_skops(path) else None
    if head.startswith(b"tree\n") and b"\nversion=v" in head:
        return LIGHTGBM
    if _is_xgboost(head):
        return XGBOOST
    if head.startswith(_PICKLE_PROTOCOLS):
        return PICKLE
    return JOBLIB if head.startswith(_COMPRESSED) and path.suffix in _PICKLE_SUFFIXES else None


def _is_xgboost(head: bytes) -> bool:
    """JSON, or UBJSON, of an object that begins with one of the keys of a model."""
    if head.startswith(_UBJ):
        return any(head.startswith(key, len(_UBJ) + 1) for key in _XGBOOST_KEYS)
    text = head.lstrip()
    return text.startswith(b"{") and text[1:].lstrip().startswith((b'"learner"', b'"version"')) and b'"learner"' in text


def _is_skops(path: Path) -> bool:
    """An archive with a JSON that is a skops schema. Archives that are damaged raise errors of several kinds."""
    try:
        with open_file(path) as whole, zipfile.ZipFile(whole) as archive, archive.open(_SKOPS_SCHEMA) as file:
            schema = json.loads(file.read(_SCHEMA_BYTES))
    except (zipfile.BadZipFile, zlib.error, EOFError, KeyError, ValueError, RuntimeError):
        return False
    return isinstance(schema, dict) and "protocol" in schema
