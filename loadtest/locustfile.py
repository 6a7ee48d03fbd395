"""What stock Locust runs.

    locust -f loadtest/locustfile.py --model digits --host http://127.0.0.1:8000

With its web interface, `--headless`, `--processes`, `--master` and `--worker`. The users and the options are those
of `modelwright.loadtest.locust.users`; which users there are depends on `--protocol`.
"""

from __future__ import annotations

from typing import Any

from locust import events
from locust.runners import WorkerRunner

from modelwright.loadtest.locust.users import TritonGrpcUser, TritonHttpUser


class HttpUser(TritonHttpUser):
    pass


class GrpcUser(TritonGrpcUser):
    pass


@events.init.add_listener  # type: ignore[untyped-decorator]
def _choose_users(environment: Any, **_: Any) -> None:
    if not isinstance(environment.runner, WorkerRunner):  # a worker is told which users to have
        wanted = GrpcUser if environment.parsed_options.protocol == "grpc" else HttpUser
        environment.user_classes[:] = [wanted]
