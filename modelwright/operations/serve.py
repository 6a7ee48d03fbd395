"""Serve the project's repository on the local tritonserver."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator

from modelwright.errors import ServerError
from modelwright.project.project import ProjectConfig
from modelwright.repository import versions
from modelwright.repository.repository import Repository
from modelwright.server import session
from modelwright.server.local import Ports
from modelwright.server.session import Say, Served
from modelwright.suggest import did_you_mean

_STOP_GRACE_S = 5  # for requests in flight


@contextlib.contextmanager
def serve(
    project: ProjectConfig, *, ports: Ports | None = None, poll: bool = False, environment: str = "", say: Say
) -> Iterator[Served]:
    """Serve every model of the repository for as long as the block lasts. Free ports are chosen unless given.

    With `poll` the server follows changes of the repository. With an `environment`, models that have a config of that
    name run with it, the others with config.pbtxt. A model that does not load is in `refused`. Raises ServerError for
    an environment that no model has, and when the server does not start.
    """
    if environment:
        configured(project, environment)
    repository = Repository.of(project)
    with session.serve(
        project.server,
        project.target,
        project.repository,
        log=project.logs / "serve.log",
        say=say,
        poll=poll,
        ports=ports,
        auto_complete=versions.needs_completion(repository, repository.models()),
        config_name=environment,
        startup_timeout_s=project.startup_timeout_s,
        stop_grace_s=_STOP_GRACE_S,
    ) as served:
        yield served


def configured(project: ProjectConfig, environment: str) -> list[str]:
    """The models that have a config for an environment. Raises ServerError when none has."""
    repository = Repository.of(project)
    known = {model: repository.environments(model) for model in repository.models()}
    found = [model for model, names in known.items() if environment in names]
    if not found:
        names = sorted({name for names in known.values() for name in names})
        hint = did_you_mean(environment, names) or "write one under serving.environments in a model.yaml, and build"
        where = project.shown(project.repository)
        raise ServerError(f"no model in {where} has a config for the environment '{environment}'", hint)
    return found
