"""Every error that a user can get, in one tree:

    ModelwrightError          a message that says what is wrong and where, and a hint what to do
    ├── ProjectError          modelwright.toml
    │   └── ProjectNotFoundError  no modelwright.toml here or in a folder above
    ├── SpecError             a builder's model.yaml
    ├── KindError             an unknown source kind, or a broken plug-in
    ├── ConfigError           the ModelConfig made from a model.yaml
    ├── StepError             a build step: the user's code, an export, a download
    ├── VerifyError           a built model that differs from its source, or fails a gate
    ├── TensorFileError       an .npz file that is damaged, or not what it should be
    ├── LintError             a repository that tritonserver would refuse
    ├── StoreError            the artifact store, or the disk
    │   └── DiskFullError     no room: nothing else will succeed either
    ├── RepositoryError       the model repository: its layout, its ledger, a publish
    │   └── VersionGoneError      a version that a pipeline was verified with is nowhere
    ├── SigningError          the signature of a version, or the key for it
    ├── BugError              one model met a fault in Modelwright itself
    ├── LockedError           another process is building
    ├── RemoteError           an object store or a folder that the repository is pushed to or pulled from
    │   └── RemoteConflictError   other versions under the same numbers, or the models of another repository
    ├── TrackingError         the MLflow server or database that builds are recorded in, or a model of its registry
    ├── ServerError           the server environment, a tritonserver process, or a request to one
    │   ├── ServerTimeoutError    no answer in time
    │   └── FleetError            a server did not follow a change, and what was put back
    └── LoadError             a load test: its payloads, its generators, its results

`cli/command.py` turns them into `Error: … / hint: …` and exit code 1, in one place. Any other exception is a bug: where
it concerns one model, `build/faults.py` makes it that model's BugError, and the others go on; elsewhere it keeps its
traceback.
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterator, Mapping
from types import MappingProxyType

REPORTS = "https://github.com/modelwright/modelwright/issues"  # where bugs are reported


class ModelwrightError(Exception):
    """Base of the tree. `message` reads *where: what, expected against got*; `hint` says what to do about it."""

    def __init__(self, message: str, hint: str = "") -> None:
        super().__init__(message, hint)
        self.message = message
        self.hint = hint

    def __str__(self) -> str:
        return f"{self.message}\n  hint: {self.hint}" if self.hint else self.message


class TensorFileError(ModelwrightError):
    pass


class ProjectError(ModelwrightError):
    pass


class ProjectNotFoundError(ProjectError):
    pass


class SpecError(ModelwrightError):
    pass


class KindError(ModelwrightError):
    pass


class ConfigError(ModelwrightError):
    pass


class StepError(ModelwrightError):
    pass


class VerifyError(ModelwrightError):
    """`measured` are the metrics of a model that misses gates, and `missed` the names of these."""

    measured: Mapping[str, float] = MappingProxyType({})
    missed: tuple[str, ...] = ()


class LintError(ModelwrightError):
    pass


class StoreError(ModelwrightError):
    pass


class DiskFullError(StoreError):
    pass


class RepositoryError(ModelwrightError):
    pass


class VersionGoneError(RepositoryError):
    pass


class SigningError(ModelwrightError):
    pass


class BugError(ModelwrightError):
    pass


class LockedError(ModelwrightError):
    pass


class RemoteError(ModelwrightError):
    pass


class RemoteConflictError(RemoteError):
    pass


class TrackingError(ModelwrightError):
    pass


class ServerError(ModelwrightError):
    pass


class ServerTimeoutError(ServerError):
    pass


class FleetError(ServerError):
    pass


class LoadError(ModelwrightError):
    pass


@contextlib.contextmanager
def located(where: str) -> Iterator[None]:
    """Put the place in front of a message from code that does not know it: `builders/x/model.yaml: source: …`."""
    try:
        yield
    except ModelwrightError as error:
        if error.message.startswith(where):
            raise
        placed = type(error)(f"{where}: {error.message}", error.hint)
        if isinstance(error, VerifyError) and isinstance(placed, VerifyError) and error.missed:
            placed.measured, placed.missed = error.measured, error.missed
        raise placed from error.__cause__


def one_line(error: BaseException) -> str:
    """A library's message without its line breaks."""
    return " ".join(str(error).split())
