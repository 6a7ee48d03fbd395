"""modelwright.toml → ProjectConfig: where things are, and which Triton release they are for."""

from __future__ import annotations

import shlex
import sys
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from modelwright.errors import ProjectError, ProjectNotFoundError, one_line
from modelwright.fsops import read_text
from modelwright.project.fetching import FetchLimits, read_fetch_limits
from modelwright.project.ignores import Ignore
from modelwright.project.plan_places import PlanPlaces, read_plan_places
from modelwright.project.signing import Signing, read_signing
from modelwright.project.tracking import Tracking, read_tracking
from modelwright.suggest import did_you_mean
from modelwright.triton.releases import Release, release

FILE = "modelwright.toml"
_IGNORE_HINT = 'write: [[lint.ignore]] and rule = "MW902", models = ["bert*"], reason = "we run with --rate-limit"'
_SERVER_HINT = "write: [server] and startup_timeout = 1800"
LONGEST_TIMEOUT_S = 1_000_000  # more does not fit into what the system waits by
_PATHS = {"builders": "builders", "templates": "templates", "repository": "model_repository"}
_HISTORY = "model_history"  # beside the repository


@dataclass(frozen=True)
class ProjectConfig:
    root: Path
    target: Release
    builders: Path
    templates: Path
    repository: Path
    ignores: tuple[Ignore, ...] = ()  # of the linter
    startup_timeout_s: float | None = None  # of the local server; None: by what it loads
    plan_places: PlanPlaces = field(default_factory=PlanPlaces)  # where TensorRT plans are built
    fetch_limits: FetchLimits = field(default_factory=FetchLimits)  # of files at URIs
    signing: Signing = field(default_factory=Signing)  # of versions
    history_folder: Path | None = None  # paths.history
    tracking: Tracking = field(default_factory=Tracking)  # of builds, in MLflow

    @property
    def state(self) -> Path:
        """Everything that can be made again, but for the lock: artifacts, caches, the local server's environment."""
        return self.root / ".modelwright"

    @property
    def store(self) -> Path:
        return self.state / "store"

    @property
    def logs(self) -> Path:
        return self.state / "logs"

    @property
    def server(self) -> Path:
        return self.state / "server"

    @property
    def environments(self) -> Path:
        """Environments of their own, of libraries whose pins clash with this project's: TensorFlow."""
        return self.state / "environments"

    @property
    def wheels(self) -> Path:
        """Downloaded wheels of vendored packages."""
        return self.state / "wheels"

    @property
    def staging(self) -> Path:
        """Where versions are put together: beside the repository, so that publishing is a rename on one filesystem."""
        return self.repository.parent / ".modelwright" / "staging"

    @property
    def history(self) -> Path:
        """The journal and the retired versions: beside the repository, on its filesystem. Nothing makes it again."""
        return self.history_folder or self.repository.parent / _HISTORY

    @property
    def registry(self) -> str:
        """The URI of its MLflow: a server, or the database in its state."""
        return self.tracking.registry(self.state)

    def shown(self, path: Path) -> str:
        """A path as messages show it: relative to the project."""
        return str(path.relative_to(self.root)) if path.is_relative_to(self.root) else str(path)


def find(start: Path) -> ProjectConfig:
    """The project of this folder, or of the nearest parent with a modelwright.toml. Raises ProjectNotFoundError."""
    root = root_of(start)
    if root is None:
        place = "" if start.resolve() == Path.cwd() else f" {shlex.quote(str(start))}"
        hint = f"start a project there: modelwright init{place}; or name an existing one: --project DIR"
        raise ProjectNotFoundError(f"no {FILE} in {start.resolve()} or above it", hint)
    return load(root)


def root_of(start: Path) -> Path | None:
    """The nearest folder with a modelwright.toml: this one, or one above it."""
    start = start.resolve()
    return next((folder for folder in (start, *start.parents) if (folder / FILE).is_file()), None)


def load(root: Path) -> ProjectConfig:
    """Read `root`/modelwright.toml. Raises ProjectError naming the file and the field."""
    if sys.version_info >= (3, 11):  # imported here: `lint` of any folder reads no such file
        import tomllib
    else:
        import tomli as tomllib
    file = root / FILE
    try:
        data = tomllib.loads(read_text(file))
    except (ValueError, RecursionError) as error:  # also for text that is no UTF-8, and numbers without end
        raise ProjectError(f"{FILE}: does not parse: {one_line(error)}") from error
    except OSError as error:
        raise ProjectError(f"{FILE}: cannot be read: {error.strerror}") from error
    known = ("triton", "paths", "lint", "server", "signing", "sources", "tensorrt", "tracking")
    _check_known(data, known, "")
    if not isinstance(data.get("triton"), str):
        raise ProjectError(f"{FILE}: triton: a release is needed", 'write: triton = "26.07"')
    paths = data.get("paths", {})
    if not isinstance(paths, dict) or not all(isinstance(value, str) and "\0" not in value for value in paths.values()):
        raise ProjectError(f"{FILE}: paths: a table of strings is needed", 'write: [paths] and builders = "builders"')
    _check_known(paths, (*_PATHS, "history"), "paths.")
    places = {key: (root / paths.get(key, default)).resolve() for key, default in _PATHS.items()}
    return ProjectConfig(
        root=root.resolve(),
        target=release(data["triton"]),
        ignores=_ignores(data.get("lint", {})),
        startup_timeout_s=_startup_timeout_s(data.get("server", {})),
        fetch_limits=read_fetch_limits(data.get("sources", {}), FILE, LONGEST_TIMEOUT_S),
        signing=read_signing(data.get("signing", {}), root.resolve(), FILE),
        plan_places=read_plan_places(data.get("tensorrt", {}), root.resolve(), FILE, LONGEST_TIMEOUT_S),
        tracking=read_tracking(data.get("tracking", {}), FILE),
        history_folder=(root / paths["history"]).resolve() if "history" in paths else None,
        **places,
    )


def _startup_timeout_s(table: Any) -> float | None:
    if not isinstance(table, dict):
        raise ProjectError(f"{FILE}: server: a table is needed", _SERVER_HINT)
    _check_known(table, ("startup_timeout",), "server.")
    value = table.get("startup_timeout")
    if value is not None and (type(value) not in (int, float) or not 0 < value <= LONGEST_TIMEOUT_S):
        raise ProjectError(f"{FILE}: server.startup_timeout: seconds are needed, got {value!r}", _SERVER_HINT)
    return value


def _ignores(table: Any) -> tuple[Ignore, ...]:
    """[[lint.ignore]]: what the linter is to pass over, and why. Whether its rule exists, the linter says."""
    if not isinstance(table, dict):
        raise ProjectError(f"{FILE}: lint: a table is needed", _IGNORE_HINT)
    _check_known(table, ("ignore",), "lint.")
    entries = table.get("ignore", [])
    if not isinstance(entries, list) or not all(isinstance(entry, dict) for entry in entries):
        raise ProjectError(f"{FILE}: lint.ignore: a list of tables is needed", _IGNORE_HINT)
    return tuple(_ignore(entry, f"lint.ignore[{index}]") for index, entry in enumerate(entries))


def _ignore(entry: dict[str, Any], where: str) -> Ignore:
    _check_known(entry, ("rule", "models", "reason"), f"{where}.")
    for name in ("rule", "reason"):
        if not isinstance(entry.get(name), str) or not entry[name].strip():
            raise ProjectError(f"{FILE}: {where}.{name}: a text is needed", _IGNORE_HINT)
    models = entry.get("models", ["*"])
    if not isinstance(models, list) or not models or not all(isinstance(model, str) for model in models):
        raise ProjectError(f"{FILE}: {where}.models: a list of names is needed", _IGNORE_HINT)
    return Ignore(entry["rule"].upper(), entry["reason"], tuple(models))


def _check_known(table: dict[str, Any], known: Any, where: str) -> None:
    for key in table:
        if key not in known:
            raise ProjectError(f"{FILE}: {where}{key}: unknown field", did_you_mean(key, known))
