"""Local servers that a benchmark measures."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Literal

from modelwright.project.project import ProjectConfig
from modelwright.server import environment
from modelwright.server.local import RunningServer, running

Mode = Literal["poll", "explicit"]


@contextmanager
def serving(project: ProjectConfig, mode: Mode, log: str, stop_grace_s: float = 1) -> Iterator[RunningServer]:
    """A server of every model of the project. `log`: what its log is called, among the project's."""
    made = environment.ensure(project.server, project.target, lambda _: None)
    models = ["*"] if mode == "explicit" else []
    path = project.logs / f"{log}.log"
    with running(made, project.repository, log=path, mode=mode, models=models, stop_grace_s=stop_grace_s) as server:
        yield server
