"""Users for stock Locust.

    locust -f loadtest/locustfile.py --model digits --host http://127.0.0.1:8000

It works with the web interface, `--headless`, `--processes`, `--master` and `--worker`. The users and their options are
those of `modelwright.loadtest.locust.users`; `--protocol` chooses the users.
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
    if not isinstance(environment.runner, WorkerRunner):  # the master tells a worker which users to start
        wanted = GrpcUser if environment.parsed_options.protocol == "grpc" else HttpUser
        environment.user_classes[:] = [wanted]
