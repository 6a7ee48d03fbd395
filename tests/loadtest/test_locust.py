"""Stock `locust` with these users: every request of every worker is in one result, whatever becomes of the workers."""

from __future__ import annotations

import json
import os
import re
import signal
import socket
import subprocess
import time
import urllib.parse
import urllib.request
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import pytest

from modelwright.loadtest.document import Measurement, Result
from modelwright.server.local import RunningServer
from modelwright.triton.client import connect
from tests.conftest import ROOT
from tests.loadtest.commands import Done, Folder, alive, ended, family, project_folder, wait_until

FILE = str(ROOT / "loadtest" / "locustfile.py")
WARMUP_S, RUN_S = 0.5, 4
COMMON = ("--model", "optional", "--warmup", str(WARMUP_S), "--output", "out")
USERS = ("--users", "6", "--spawn-rate", "100")
HEADLESS = ("--headless", *USERS, "--run-time", str(RUN_S))
_FIRST = 1  # request of each process, which sees whether there is anything to test


@pytest.fixture
def folder(tmp_path: Path) -> Folder:
    return project_folder(tmp_path / "project")


def locust(folder: Folder, *arguments: str, file: str = FILE) -> Done:
    with folder.locust("-f", file, *arguments) as process:
        return ended(process)


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


STATS = ("--json-file", "stats")


def check(measurement: Measurement, processes: int) -> None:
    assert measurement.complete
    assert measurement.requests.failed == 0
    assert measurement.client.processes == processes
    assert len(measurement.client.cpu_cores) == processes
    # It begins when all users are there, which the first of them can delay by two seconds on a busy machine.
    assert 1 <= measurement.measured_s <= RUN_S - WARMUP_S + 0.5
    # All requests that began in time are counted: as many ended in each window as the throughput says.
    assert measurement.requests.succeeded == pytest.approx(measurement.throughput * measurement.measured_s, rel=0.02)
    assert measurement.response.count == measurement.requests.succeeded
    assert measurement.response.percentiles_ms["p99"] is not None


@pytest.mark.parametrize("protocol", ["http", "grpc"])
def test_one_process(folder: Folder, server: RunningServer, protocol: str) -> None:
    before = served(server)
    host = f"{protocol}://{getattr(server, protocol)}"
    done = locust(folder, *COMMON, *HEADLESS, *STATS, "--host", host, "--protocol", protocol)
    assert done.code == 0, done.stderr
    check(measured(folder), 1)
    assert measured(folder).load.concurrency == 6
    assert served(server) - before - _FIRST == recorded(folder)
    assert recorded(folder) > measured(folder).requests.succeeded


def test_processes_that_locust_forks(folder: Folder, server: RunningServer) -> None:
    before = served(server)
    done = locust(folder, *COMMON, *HEADLESS, *STATS, "--host", f"http://{server.http}", "--processes", "3")
    assert done.code == 0, done.stderr
    assert done.stderr.count("modelwright: report: ") == 1
    check(measured(folder), 3)
    assert served(server) - before - 3 * _FIRST == recorded(folder) > measured(folder).requests.succeeded


def free_port() -> int:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        return int(free.getsockname()[1])


def master_and_workers(
    stack: ExitStack, folder: Folder, *arguments: str, workers: int = 3
) -> tuple[subprocess.Popen[str], list[subprocess.Popen[str]]]:
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
        host = ("--host", f"http://{server.http}")
        master, workers = master_and_workers(stack, folder, *COMMON, *HEADLESS, *STATS, *host, "--rate", "300")
        done = ended(master)
        assert [ended(worker).code for worker in workers] == [0, 0, 0]
    assert done.code == 0, done.stderr
    measurement = measured(folder)
    check(measurement, 3)
    assert (measurement.load.mode, measurement.load.rate) == ("open", 300)
    assert measurement.throughput == pytest.approx(300, rel=0.15)
    assert measurement.client.send_lag_p99_ms is not None
    assert served(server) - before - 3 * _FIRST == recorded(folder) > measurement.requests.succeeded


def test_a_worker_that_is_lost_is_named_and_its_rows_are_kept(folder: Folder, server: RunningServer) -> None:
    with ExitStack() as stack:
        arguments = ("--headless", *USERS, "--run-time", "4", "--host", f"http://{server.http}")
        master, workers = master_and_workers(stack, folder, *COMMON, *arguments, workers=2)
        before = served(server)
        wait_until(lambda: served(server) > before + 100)
        time.sleep(1.5)
        workers[0].send_signal(signal.SIGKILL)
        done = ended(master)
        assert ended(workers[1]).code == 0
    assert done.code == 1, done.stderr
    result = folder.written("out")
    assert not result.complete
    (reason,) = result.measurements[0].validity.reasons
    assert re.fullmatch(r"worker \S+ was lost; what it had sent is kept", reason)
    assert result.measurements[0].client.processes == 2


@pytest.mark.parametrize("processes", [(), ("--processes", "2")], ids=["one process", "two workers"])
def test_a_wrong_model_ends_the_test_with_one_message(
    folder: Folder, server: RunningServer, processes: tuple[str, ...]
) -> None:
    started = time.monotonic()
    arguments = ("--headless", *USERS, "--run-time", "40", "--host", f"http://{server.http}")
    done = locust(folder, "--model", "optionel", *arguments, *processes)
    assert time.monotonic() - started < 20
    assert done.code == 1
    assert done.stderr.count("optionel: the server has no such model") == 1
    assert "hint: did you mean 'optional'?" in done.stderr
    assert "Traceback" not in done.stderr


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("--model", "optional"), "--host: the server's URL is needed"),
        (("--host", "http://127.0.0.1:1"), "--model: the name of a model is needed"),
        (("--host", "grpc://127.0.0.1:1", "--model", "optional"), "HttpUser cannot ask grpc://127.0.0.1:1"),
        (("--host", "http://127.0.0.1:1", "--model", "optional"), "http://127.0.0.1:1: cannot be reached: "),
    ],
    ids=["no host", "no model", "wrong protocol", "no server"],
)
def test_what_is_missing_is_said(folder: Folder, arguments: tuple[str, ...], message: str) -> None:
    done = locust(folder, *arguments, "--headless")
    assert done.code == 1
    assert message in done.stderr
    assert "Traceback" not in done.stderr


OWN = """
from locust import constant

from modelwright.loadtest.locust.users import TritonHttpUser


class Numbers(TritonHttpUser):
    host = "http://{server}"
    model = "optional"
    {wait_time}
"""


def test_a_locustfile_of_ones_own_needs_no_options(folder: Folder, server: RunningServer) -> None:
    (folder.root / "own.py").write_text(OWN.format(server=server.http, wait_time=""))
    done = locust(folder, *HEADLESS, file="own.py")
    assert done.code == 0, done.stderr
    (written,) = (folder.root / ".modelwright" / "load").iterdir()
    (measurement,) = folder.written(written).measurements
    assert measurement.target.model == "optional"
    assert measurement.requests.succeeded > 500


def test_a_wait_time_is_respected(folder: Folder, server: RunningServer) -> None:
    (folder.root / "own.py").write_text(OWN.format(server=server.http, wait_time="wait_time = constant(0.1)"))
    done = locust(folder, *HEADLESS, "--output", "out", "--warmup", "0.5", file="own.py")
    assert done.code == 0, done.stderr
    # Six users, each ten times a second at most.
    assert measured(folder).throughput == pytest.approx(60, rel=0.15)


def ask(port: int, path: str, **form: str) -> Any:
    data = urllib.parse.urlencode(form).encode() if form else None
    with urllib.request.urlopen(f"http://127.0.0.1:{port}{path}", data, timeout=10) as answer:
        return json.loads(answer.read())


def answers(port: int) -> bool:
    try:
        ask(port, "/stats/requests")
    except OSError:
        return False
    return True


def test_the_web_interface_starts_and_stops_tests(folder: Folder, server: RunningServer) -> None:
    port = free_port()
    arguments = ("--web-host", "127.0.0.1", "--web-port", str(port), "--processes", "2")
    with folder.locust("-f", FILE, *COMMON, *arguments) as process:
        wait_until(lambda: answers(port))
        counts = [one_test(folder, server, port) for _ in range(2)]
        started = family(process)
        os.kill(process.pid, signal.SIGINT)
        done = ended(process)
    assert done.code == 0, done.stderr
    assert all(count > 100 for count in counts)
    assert done.stderr.count("modelwright: report: ") == 2
    wait_until(lambda: not alive(started), 10)


def shown(port: int) -> Any:
    (row,) = [row for row in ask(port, "/stats/requests")["stats"] if row["name"] == "optional"]
    return row


def one_test(folder: Folder, server: RunningServer, port: int) -> int:
    """Start it, stop it; what the interface counts is what the result was made of."""
    wait_until(lambda: len(ask(port, "/stats/requests").get("workers", [])) == 2)
    form = {"user_count": "4", "spawn_rate": "100", "host": f"http://{server.http}"}
    assert ask(port, "/swarm", **form)["success"]
    time.sleep(2.5)
    assert ask(port, "/stop", now="yes")["success"]
    (measurement,) = folder.written("out").measurements
    wait_until(lambda: shown(port)["num_requests"] > measurement.requests.succeeded)  # the interface lags by 3 s
    row = shown(port)
    assert measurement.load.concurrency == 4
    assert measurement.complete
    assert row["num_failures"] == 0
    return measurement.requests.succeeded


def test_failures_are_in_locusts_statistics_and_in_the_result(folder: Folder, server: RunningServer) -> None:
    arguments = ("--model", "flaky", "--shape", "IN:4", "--warmup", "0", "--output", "out")
    done = locust(folder, *arguments, *HEADLESS, *STATS, "--host", f"http://{server.http}")
    assert done.code == 1, done.stderr  # Locust's own: --exit-code-on-error
    result: Result = folder.written("out")
    (failure,) = result.measurements[0].failures
    assert (failure.kind, failure.message) == ("HTTP 500", "every tenth request fails")
    (row,) = json.loads((folder.root / "stats.json").read_text())
    assert row["num_failures"] == failure.count
    assert row["num_requests"] >= result.measurements[0].requests.succeeded + failure.count
