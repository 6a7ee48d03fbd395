"""Stock Locust with our users: one process, its own workers, a master, its web interface."""

from __future__ import annotations

import importlib
import json
import re
import signal
import socket
import urllib.parse
import urllib.request
from argparse import ArgumentParser
from contextlib import ExitStack
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest

from modelwright.errors import ModelwrightError
from modelwright.loadtest.document import Measurement, Result
from modelwright.loadtest.locust import options
from modelwright.server.local import RunningServer
from modelwright.triton.client import connect
from tests.conftest import ROOT
from tests.loadtest.commands import Done, Folder, Running, alive, project_folder, wait_until

FILE = str(ROOT / "loadtest" / "locustfile.py")
COMMON = ("--model", "optional", "--warmup", "0.2", "--output", "out")
USERS = ("--users", "6", "--spawn-rate", "100")
HEADLESS = ("--headless", *USERS)
STATS = ("--json-file", "stats")
_FIRST = 1  # request of each process, which sees whether there is anything to test
ENOUGH = 700  # requests, of which a p99 can be stated


@pytest.fixture
def folder(tmp_path: Path) -> Folder:
    return project_folder(tmp_path / "project")


def locust(folder: Folder, *arguments: str) -> Done:
    """A test that ends by itself."""
    with folder.locust("-f", FILE, *arguments) as process:
        return process.ended()


def locust_until(folder: Folder, server: RunningServer, requests: int, *arguments: str, processes: int = 1) -> Done:
    """A test that is stopped when so many requests were answered after its warm-up."""
    with folder.locust("-f", FILE, *arguments) as process:
        stop_after(process, server, requests, processes)
        return process.ended()


def stop(process: Running) -> None:
    """Not by Ctrl-C, whose KeyboardInterrupt can hit a user between an answer and its record."""
    process.process.terminate()


def stop_after(process: Running, server: RunningServer, requests: int, processes: int) -> None:
    wait_until(lambda: measuring(process))
    assert first_records(process) == processes
    before = served(server)
    wait_until(lambda: served(server) > before + requests)
    stop(process)


def measuring(process: Running) -> int:
    """In how many tests the measured time has begun: all users of all processes have started before."""
    return process.stderr().count("the warm-up is over: measuring")


def first_records(process: Running) -> int:
    """How many processes have sent records to this one."""
    return process.stderr().count("first records of optional")


def served(server: RunningServer, model: str = "optional") -> int:
    """How many requests the server has answered so far."""
    with connect(f"http://{server.http}") as client:
        (stats,) = client.statistics(model)["model_stats"]
    return int(stats["inference_stats"]["success"]["count"])


def measured(folder: Folder) -> Measurement:
    (measurement,) = folder.written("out").measurements
    return measurement


def recorded(folder: Folder) -> int:
    """All rows, those of the warm-up too: what Locust's own statistics were fed with."""
    (row,) = json.loads((folder.root / "stats.json").read_text())
    return int(row["num_requests"])


def check(measurement: Measurement, processes: int) -> None:
    assert measurement.complete
    assert measurement.requests.failed == 0
    assert measurement.client.processes == processes
    assert len(measurement.client.cpu_cores) == processes
    assert measurement.measured_s > 0
    # All requests that began in time are counted: about as many ended in it, as the throughput says.
    assert measurement.requests.succeeded == pytest.approx(measurement.throughput * measurement.measured_s, abs=50)
    assert measurement.response.count == measurement.requests.succeeded > 100


@pytest.mark.parametrize("protocol", ["http", "grpc"])
def test_one_process(folder: Folder, server: RunningServer, protocol: str) -> None:
    before = served(server)
    host = f"{protocol}://{getattr(server, protocol)}"
    done = locust_until(folder, server, ENOUGH, *COMMON, *HEADLESS, *STATS, "--host", host, "--protocol", protocol)
    assert done.code == 0, done.stderr
    check(measured(folder), 1)
    assert measured(folder).response.percentiles_ms["p99"] is not None
    assert measured(folder).load.concurrency == 6
    assert served(server) - before - _FIRST == recorded(folder)
    assert recorded(folder) >= measured(folder).requests.succeeded


def forked(processes: int) -> tuple[str, ...]:
    """Options for workers that Locust forks, with a port of their own: others may run Locust on this machine."""
    port = str(free_port())
    return "--processes", str(processes), "--master-bind-port", port, "--master-port", port


def test_processes_that_locust_forks(folder: Folder, server: RunningServer) -> None:
    before = served(server)
    host = ("--host", f"http://{server.http}", *forked(3))
    done = locust_until(folder, server, ENOUGH, *COMMON, *HEADLESS, *STATS, *host, processes=3)
    assert done.code == 0, done.stderr
    assert done.stderr.count("modelwright: report: ") == 1
    check(measured(folder), 3)
    # All that were answered after the warm-up are in the result, also the last ones of each process. Locust's own
    # statistics may miss those: it does not wait for them.
    assert ENOUGH <= measured(folder).requests.succeeded <= served(server) - before - 3 * _FIRST
    assert recorded(folder) <= served(server) - before - 3 * _FIRST


def free_port() -> int:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        return int(free.getsockname()[1])


def master_and_workers(
    stack: ExitStack, folder: Folder, *arguments: str, workers: int
) -> tuple[Running, list[Running]]:
    port = str(free_port())
    master = stack.enter_context(
        folder.locust(
            *("-f", FILE, "--master", "--master-bind-host", "127.0.0.1", "--master-bind-port", port),
            *("--expect-workers", str(workers), *arguments),
        )
    )
    started = [
        stack.enter_context(folder.locust("-f", FILE, "--worker", "--master-host", "127.0.0.1", "--master-port", port))
        for _ in range(workers)
    ]
    return master, started


def test_a_master_with_workers(folder: Folder, server: RunningServer) -> None:
    before = served(server)
    with ExitStack() as stack:
        host = ("--host", f"http://{server.http}", "--rate", "300", "--arrivals", "constant")
        master, workers = master_and_workers(stack, folder, *COMMON, *HEADLESS, *STATS, *host, workers=2)
        stop_after(master, server, 300, processes=2)
        done = master.ended()
        assert [worker.ended().code for worker in workers] == [0, 0]
    assert done.code == 0, done.stderr
    measurement = measured(folder)
    check(measurement, 2)
    assert (measurement.load.mode, measurement.load.rate) == ("open", 300)
    # Of both workers together. On a busy machine they begin late, so only the last windows count.
    last = measurement.windows[-4:]
    rate = sum(window.requests for window in last) / sum(window.duration_s for window in last)
    assert rate == pytest.approx(300, rel=0.4)
    assert measurement.client.send_lag_p99_ms is not None
    assert 300 <= measurement.requests.succeeded <= served(server) - before - 2 * _FIRST
    assert recorded(folder) <= served(server) - before - 2 * _FIRST


def test_a_worker_that_is_lost_is_named_and_its_rows_are_kept(folder: Folder, server: RunningServer) -> None:
    """Ends by its run time: Locust decides on the exit code before a test that Ctrl-C ends has stopped."""
    with ExitStack() as stack:
        arguments = (*HEADLESS, "--run-time", "10", "--host", f"http://{server.http}")
        master, workers = master_and_workers(stack, folder, *COMMON, *arguments, workers=2)
        wait_until(lambda: first_records(master) == 2)
        workers[0].process.send_signal(signal.SIGKILL)
        done = master.ended()
        assert workers[1].ended().code == 0
    assert done.code == 1, done.stderr
    result = folder.written("out")
    assert not result.complete
    reason = result.measurements[0].validity.reasons[0]  # on a busy machine the client may be the limit, too
    assert re.fullmatch(r"worker \S+ was lost; what it had sent is kept", reason)
    assert result.measurements[0].client.processes == 2


@pytest.mark.parametrize("processes", [1, 2], ids=["one process", "two workers"])
def test_a_wrong_model_ends_the_test_with_one_message(folder: Folder, server: RunningServer, processes: int) -> None:
    arguments = ("--run-time", "600", "--host", f"http://{server.http}")  # it ends long before that
    done = locust(folder, "--model", "optionel", *HEADLESS, *arguments, *(forked(processes) if processes > 1 else ()))
    assert done.code == 1
    assert done.stderr.count("optionel: the server has no such model") == 1
    assert "hint: did you mean 'optional'?" in done.stderr
    assert "Traceback" not in done.stderr


def test_failures_are_in_locusts_statistics_and_in_the_result(folder: Folder, server: RunningServer) -> None:
    arguments = ("--model", "flaky", "--shape", "IN:4", "--warmup", "0", "--output", "out")
    with folder.locust("-f", FILE, *arguments, *HEADLESS, *STATS, "--host", f"http://{server.http}") as process:
        wait_until(lambda: re.search(r"HTTP +flaky +\d+ +[1-9]", process.stderr()))  # Locust's table has failures
        stop(process)
        done = process.ended()
    assert done.code == 1, done.stderr  # Locust's own: --exit-code-on-error
    result: Result = folder.written("out")
    (failure,) = result.measurements[0].failures
    assert (failure.kind, failure.message) == ("HTTP 500", "every tenth request fails")
    (row,) = json.loads((folder.root / "stats.json").read_text())
    assert row["num_failures"] == failure.count
    assert row["num_requests"] >= result.measurements[0].requests.succeeded + failure.count


OWN = """
from locust import constant

from modelwright.loadtest.locust.users import TritonHttpUser


class Busy(TritonHttpUser):
    host = "http://{server}"
    model = "optional"


class Waiting(Busy):
    model = "slow"
    wait_time = constant(0.1)
    workload_options = {{"payload": "zero"}}
"""


def test_a_locustfile_of_ones_own_needs_no_options_and_its_wait_time_is_respected(
    folder: Folder, server: RunningServer
) -> None:
    (folder.root / "own.py").write_text(OWN.format(server=server.http))
    with folder.locust("-f", "own.py", *HEADLESS) as process:
        wait_until(lambda: measuring(process))
        before = served(server, "slow")
        wait_until(lambda: served(server, "slow") > before + 12)
        stop(process)
        done = process.ended()
    assert done.code == 0, done.stderr
    (written,) = (folder.root / ".modelwright" / "load").iterdir()
    by_model = {each.target.model: each for each in folder.written(written).measurements}
    # Three users, each ten times a second at most; one more each in what may be half a second.
    assert 0 < by_model["slow"].throughput <= 36
    assert by_model["optional"].throughput > by_model["slow"].throughput


SLOW_START = """
from gevent.monkey import get_original
from locust import constant

from modelwright.loadtest.locust.users import TritonHttpUser

sleep = get_original("time", "sleep")
sleep(1.5)  # gevent's clock stands still, as it does while modules are imported


class Users(TritonHttpUser):
    model = "optional"
    wait_time = constant(0.02)

    def on_start(self):
        sleep(0.6)  # as while requests are prepared
        super().on_start()
"""


@pytest.mark.parametrize("processes", [1, 2], ids=["one process", "two workers"])
def test_the_run_time_is_measured_however_long_the_start_takes(
    folder: Folder, server: RunningServer, processes: int
) -> None:
    (folder.root / "own.py").write_text(SLOW_START)
    arguments = (*HEADLESS, "--warmup", "0.2", "--run-time", "2", "--host", f"http://{server.http}", "--output", "out")
    with folder.locust("-f", "own.py", *arguments, *(forked(processes) if processes > 1 else ())) as process:
        done = process.ended()
    assert done.code == 0, done.stderr
    measurement = measured(folder)
    assert measurement.complete
    assert measurement.load.duration_s == 2
    assert measurement.measured_s == pytest.approx(2, abs=0.01)
    assert all(window.requests for window in measurement.windows)
    assert measurement.server is not None
    assert measurement.server.requests == pytest.approx(measurement.requests.succeeded, abs=20)


def test_a_test_that_is_stopped_before_its_run_time_is_not_valid(folder: Folder, server: RunningServer) -> None:
    arguments = (*COMMON, *HEADLESS, "--run-time", "600", "--host", f"http://{server.http}")
    with folder.locust("-f", FILE, *arguments) as process:
        wait_until(lambda: measuring(process))
        stop(process)
        process.ended()
    assert not measured(folder).complete
    assert measured(folder).validity.verdict == "INVALID"
    assert "s of the 600 s that were asked for" in measured(folder).validity.reasons[0]


# --- the web interface ------------------------------------------------------------------------------------------------


def ask(port: int, path: str, **form: str) -> Any:
    data = urllib.parse.urlencode(form).encode() if form else None
    with urllib.request.urlopen(f"http://127.0.0.1:{port}{path}", data, timeout=30) as answer:
        return json.loads(answer.read())


def answers(port: int) -> bool:
    try:
        ask(port, "/stats/requests")
    except OSError:
        return False
    return True


def test_the_web_interface_starts_and_stops_tests(folder: Folder, server: RunningServer) -> None:
    port = free_port()
    arguments = ("--web-host", "127.0.0.1", "--web-port", str(port), *forked(2))
    with folder.locust("-f", FILE, *COMMON, *arguments) as process:
        wait_until(lambda: answers(port))
        for number in (1, 2):
            one_test(folder, server, port, process, number)
        started = process.family()
        process.interrupt()
        done = process.ended()
    assert done.code == 0, done.stderr
    assert done.stderr.count("modelwright: report: ") == 2
    wait_until(lambda: not alive(started))


def shown(port: int) -> Any:
    """The model's row of the table, which is not there before its first numbers."""
    rows = [row for row in ask(port, "/stats/requests")["stats"] if row["name"] == "optional"]
    return rows[0] if rows else {"num_requests": 0}


def one_test(folder: Folder, server: RunningServer, port: int, process: Running, number: int) -> None:
    """Start it, stop it; what the interface counts is what the result was made of."""
    wait_until(lambda: len(ask(port, "/stats/requests").get("workers", [])) == 2)
    form = {"user_count": "4", "spawn_rate": "100", "host": f"http://{server.http}"}
    assert ask(port, "/swarm", **form)["success"]
    wait_until(lambda: measuring(process) == number)
    before = served(server)
    wait_until(lambda: served(server) > before + 200)
    assert ask(port, "/stop", now="yes")["success"]
    (measurement,) = folder.written("out").measurements
    wait_until(lambda: shown(port)["num_requests"] >= measurement.requests.succeeded)  # the interface lags by 3 s
    assert measurement.load.concurrency == 4
    assert measurement.complete
    assert measurement.requests.succeeded > 100
    assert shown(port)["num_failures"] == 0


# --- users in this process --------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def users() -> ModuleType:
    """Imported without Locust's patches of this process's standard library."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("LOCUST_SKIP_MONKEY_PATCH", "1")
        return importlib.import_module("modelwright.loadtest.locust.users")


@pytest.mark.parametrize(
    ("host", "arguments", "message"),
    [
        ("", ("--model", "optional"), "--host: missing; give the server's URL"),
        ("http://127.0.0.1:1", (), "--model: missing; give a model's name"),
        ("grpc://127.0.0.1:1", ("--model", "optional"), "TritonHttpUser cannot send to grpc://127.0.0.1:1"),
    ],
    ids=["no host", "no model", "wrong protocol"],
)
def test_a_missing_option_is_named(users: ModuleType, host: str, arguments: tuple[str, ...], message: str) -> None:
    from locust.env import Environment

    parser = ArgumentParser()
    options.add_to(parser)
    environment = Environment(host=host, parsed_options=parser.parse_args(arguments))
    with pytest.raises(ModelwrightError, match=message):
        users.TritonHttpUser(environment).workload()
