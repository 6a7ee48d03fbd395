"""Locust users for any model that a Triton server serves.

    class Digits(TritonHttpUser):
        host = "http://127.0.0.1:8000"
        model = "digits"

`locust -f` runs such a file, or `loadtest/locustfile.py`, whose users take everything from the command line. Both have
the options of `options.py`. In a closed loop each user has one request in flight. With `--rate`, users are sources of
an open loop instead. A class with its own `wait_time` sends one request at a time and waits in between.
"""

from __future__ import annotations

import time
from dataclasses import replace
from random import Random
from typing import Any, ClassVar

import gevent
from locust import User, events, task
from locust.exception import StopUser

from modelwright.errors import ModelwrightError
from modelwright.loadtest.generator.context import Pace, UserContext
from modelwright.loadtest.locust import options, reporting
from modelwright.loadtest.payloads.workload import Workload
from modelwright.loadtest.wire.callers import Caller
from modelwright.triton.access import address_of

_BURST_NS = 50_000_000  # Locust's work between two tasks costs as much as a request


class TritonUser(User):  # type: ignore[misc]
    """A user of one model. Attributes that a class does not set come from the command line (`options.py`)."""

    abstract = True
    protocol: ClassVar[str]
    model: str = ""
    version: str = ""
    workload_options: ClassVar[dict[str, Any]] = {}  # further fields of modelwright.loadtest.payloads.workload.Workload

    context: UserContext
    caller: Caller

    def __init__(self, environment: Any) -> None:
        super().__init__(environment)
        reporting.of(environment).unstarted.add(self)

    def workload(self) -> Workload:
        """What this user sends, and where. Raises ModelwrightError if model or URL is missing or wrong."""
        given = options.workload(self.environment.parsed_options, str(self.host or self.environment.host or ""))
        if not given.url:
            raise ModelwrightError("--host: missing; give the server's URL", f"such as {_EXAMPLES[self.protocol]}")
        made = replace(given, model=self.model or given.model, version=self.version or given.version)
        made = replace(made, **self.workload_options)
        if not made.model:
            raise ModelwrightError("--model: missing; give a model's name", "the name of its folder in the repository")
        if address_of(made.url).protocol != self.protocol:
            raise ModelwrightError(
                f"{type(self).__name__} cannot send to {made.url}",
                f"give --host {_EXAMPLES[self.protocol]}",
            )
        return made

    def on_start(self) -> None:
        try:
            self.context = reporting.of(self.environment).context(self.workload())
            self.caller = self.context.caller()
        except ModelwrightError as error:
            reporting.of(self.environment).give_up(error)  # `infer` ends this user; here, Locust would log a traceback
        finally:
            reporting.of(self.environment).unstarted.discard(self)

    def on_stop(self) -> None:
        if hasattr(self, "caller"):
            self.caller.close()

    @task  # type: ignore[untyped-decorator]
    def infer(self) -> None:
        if not hasattr(self, "caller"):
            raise StopUser
        if self.context.is_over:
            gevent.sleep(3600)  # until Locust ends this user
        given = self.environment.parsed_options
        if given.rate:
            self._source(given)
        elif type(self).wait_time is not User.wait_time:
            self.context.send(self.caller)
        else:
            self.context.closed_loop(self.caller, time.monotonic_ns() + _BURST_NS)

    def _source(self, given: Any) -> None:
        """This user's part of the open loop, until Locust ends it."""
        users = given.all_users or 1  # of all workers
        shape = options.shape(given, users, float("inf"))
        part = Random().randrange(2**32) if shape.arrivals == "poisson" else 0  # noqa: S311 (streams that differ)
        self.context.open_loop(Pace(replace(shape, rate=given.rate / users), time.monotonic_ns(), part=part))


class TritonHttpUser(TritonUser):
    """Sends over HTTP/1.1 on a connection of its own."""

    abstract = True
    protocol = "http"


class TritonGrpcUser(TritonUser):
    """Sends over gRPC, six users on a connection; sequence and decoupled models too."""

    abstract = True
    protocol = "grpc"


_EXAMPLES = {"http": "http://127.0.0.1:8000", "grpc": "grpc://127.0.0.1:8001"}


@events.init_command_line_parser.add_listener  # type: ignore[untyped-decorator]
def _add_options(parser: Any) -> None:
    """Every locustfile that imports these users has the options, and each option once."""
    options.add_to(parser)


@events.init.add_listener  # type: ignore[untyped-decorator]
def _prepare(environment: Any, **_: Any) -> None:
    """A master has no users that would create it, and needs it before its workers send anything."""
    reporting.of(environment)
    # Locust sets the timer of --run-time next, by gevent's clock, which has stood still while modules were imported.
    gevent.get_hub().loop.update_now()
