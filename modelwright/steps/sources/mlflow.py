"""models:/ and runs:/ URIs: models of an MLflow registry. A process of its own asks MLflow, and fetches the files."""

from __future__ import annotations

import json
import os
import shutil
import socket
import subprocess
import sys
import weakref
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from importlib.util import find_spec
from pathlib import Path
from tempfile import mkdtemp
from urllib.parse import urlsplit

from modelwright.errors import ModelwrightError, StepError, TrackingError
from modelwright.fsops import open_file, read_text
from modelwright.kinds.mlmodel import DETAIL, FILE, parse_mlmodel
from modelwright.repository.manifest import read as read_manifest
from modelwright.steps.sources.source import CHUNK, RemoteSource
from modelwright.triton.layout import ABOUT, MANIFEST

_COMMAND = "import sys; sys.path.remove(''); from modelwright.steps.sources.mlflow_child import main; main()"
_PATIENCE_S, _CONNECT_S = 3600.0, 5.0
# What MLflow does by default takes minutes where a server hangs. What the user sets stays.
_BOUNDS = {"MLFLOW_HTTP_REQUEST_TIMEOUT": "30", "MLFLOW_HTTP_REQUEST_MAX_RETRIES": "1"}
_QUIET = {"MLFLOW_DISABLE_TELEMETRY": "true", "DO_NOT_TRACK": "true", "GIT_PYTHON_REFRESH": "quiet"}


def open_mlflow(uri: str, registry: str) -> RemoteSource:
    """Fetches the model. Raises TrackingError for a registry that is down, StepError for what it does not have."""
    if find_spec("mlflow") is None:
        raise TrackingError(f"{uri}: needs mlflow, which is not installed", "pip install 'modelwright[mlflow]'")
    _check_reachable(registry)
    folder = mkdtemp(prefix="modelwright-")
    try:
        return _MlflowSource(_answer(uri, registry, folder), folder)
    except BaseException:
        shutil.rmtree(folder, ignore_errors=True)
        raise


def _check_reachable(registry: str) -> None:
    """Raises TrackingError for a server that takes no connection: MLflow would try for long."""
    parts = urlsplit(registry)
    if parts.scheme not in ("http", "https") or not parts.hostname:
        return
    try:
        place = (parts.hostname, parts.port or (443 if parts.scheme == "https" else 80))
        socket.create_connection(place, timeout=_CONNECT_S).close()
    except OSError as error:
        hint = "see to [tracking] in modelwright.toml, and try again"
        reason = f"the registry does not answer: {error.strerror or error}"
        raise TrackingError(f"{registry}: {reason}", hint) from None


def _answer(uri: str, registry: str, folder: str) -> Mapping[str, str]:
    """What the process says that fetched the model into the folder."""
    order = {"uri": uri, "registry": registry, "folder": folder}
    try:
        done = subprocess.run(
            [sys.executable, "-c", _COMMAND],
            input=json.dumps(order).encode(),
            capture_output=True,
            timeout=_PATIENCE_S,
            env={**_BOUNDS, **os.environ, **_QUIET},
            check=False,
        )
    except subprocess.TimeoutExpired:
        raise TrackingError(f"{uri}: not there after {_PATIENCE_S:g} s", "see to the registry") from None
    try:
        answer: dict[str, str] = json.loads(done.stdout)
    except ValueError:
        last = done.stderr.decode(errors="replace").strip().rpartition("\n")[2]
        raise TrackingError(f"{uri}: MLflow's process ended with exit code {done.returncode}: {last}") from None
    if "problem" in answer:
        kind = TrackingError if answer["down"] else StepError
        raise kind(f"{uri}: {answer['problem']}", answer["hint"])
    return answer


def no_model(folder: Path, resolved: str) -> StepError:
    """What a folder without an MLmodel is: a version that this program registered, or something else."""
    whole = "modelwright track push and modelwright track pull bring whole models"
    try:
        manifest = read_manifest(folder / MANIFEST)
    except ModelwrightError:
        manifest = None
    if manifest is None:
        return StepError(f"{resolved}: is no MLflow model: it has no {FILE} that reads", f"{whole} from here to there")
    what = f"{resolved}: is version {manifest.version} of '{manifest.model}' as Modelwright registered it"
    if all((folder / name).is_file() for name in manifest.files if name not in ABOUT):
        return StepError(f"{what}: it has no model.onnx, so no flavour of MLflow", whole)
    hint = f"build it with [tracking] models = true there; or {whole}"
    return StepError(f"{what}, without its files", hint)


class _MlflowSource(RemoteSource):
    is_folder = True

    def __init__(self, answer: Mapping[str, str], folder: str) -> None:
        weakref.finalize(self, shutil.rmtree, folder, ignore_errors=True)
        self.resolved = answer["resolved"]
        self._folder = Path(answer["folder"])
        try:
            text = read_text(self._folder / FILE)
        except (OSError, UnicodeDecodeError):
            raise no_model(self._folder, self.resolved) from None
        model = parse_mlmodel(text, f"{self.resolved}: {FILE}")
        self.details = {DETAIL: model.as_detail(), **({"version": answer["version"]} if answer.get("version") else {})}

    def files(self) -> dict[str, int]:
        paths = [path for path in sorted(self._folder.rglob("*")) if path.is_file() and not path.is_symlink()]
        return {path.relative_to(self._folder).as_posix(): path.stat().st_size for path in paths}

    @contextmanager
    def read(self, name: str, offset: int = 0) -> Iterator[Iterator[bytes]]:
        try:
            with open_file(self._folder / name) as file:
                file.seek(offset)
                yield iter(lambda: file.read(CHUNK), b"")
        except FileNotFoundError:
            raise StepError(f"{self.resolved}: there is no file '{name}' any more", "see to the registry") from None
