"""What goes wrong with a load test, as the one who runs it sees it: the message, the exit code, what is kept."""

from __future__ import annotations

import json
import re
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest

from modelwright.errors import ModelwrightError
from modelwright.loadtest.generator.context import UserContext
from modelwright.loadtest.payloads.workload import Workload
from modelwright.server.environment import Environment
from modelwright.server.local import RunningServer
from tests.loadtest.commands import SHORT, Folder, alive, named, project_folder, wait_until
from tests.loadtest.models import write_models

FLAKY = ("run", "flaky", "--shape", "IN:4")
IDENTITY = ("run", "identity", "--shape", "NUMBERS:4", "--shape", "TEXTS:2")


@pytest.fixture
def folder(tmp_path: Path) -> Folder:
    return project_folder(tmp_path / "project")


@pytest.fixture(scope="module")
def repository(environment: Environment, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """For commands that start a server of their own."""
    return write_models(tmp_path_factory.mktemp("faults") / "repository")


def leftovers(folder: Folder) -> list[str]:
    """What a command that measured nothing has left of its results."""
    return sorted(path.name for path in (folder.root / ".modelwright").glob("load/*"))


# --- before anything is measured --------------------------------------------------------------------------------------


def refused(folder: Folder, *arguments: str) -> str:
    """The message of a command that cannot begin: exit code 1, nothing on standard output, no result."""
    done = folder.load(*arguments)
    assert (done.code, done.stdout) == (1, ""), done.stderr
    assert "Traceback" not in done.stderr
    assert leftovers(folder) == []
    return done.stderr


@pytest.mark.parametrize("protocol", ["http", "grpc"])
def test_no_server_at_the_url(folder: Folder, protocol: str) -> None:
    message = refused(folder, *FLAKY, "--url", f"{protocol}://127.0.0.1:1")
    assert message.startswith(f"Error: {protocol}://127.0.0.1:1: cannot be reached: ")
    assert "  hint: start it (modelwright serve)" in message


NOT_TRITON = """\
Error: what answers at {} is not a Triton server{}
  hint: give the address of its HTTP port (8000) as http://…, of its gRPC port (8001) as grpc://…
"""


@contextmanager
def web_server(body: bytes) -> Iterator[str]:
    class Page(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            self.send_response(200)
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

        do_POST = do_GET  # noqa: N815 (http.server's name)

        def log_message(self, *_: object) -> None: ...

    with ThreadingHTTPServer(("127.0.0.1", 0), Page) as server:
        thread = threading.Thread(target=server.serve_forever, daemon=True)
        thread.start()
        yield f"127.0.0.1:{server.server_port}"
        server.shutdown()


@pytest.mark.parametrize(
    ("body", "why"),
    [
        pytest.param(b"<html>hello</html>", "it answers '<html>hello</html>', which is not JSON", id="html"),
        pytest.param(b"{}", "its answer to GET /v2: name is missing", id="object"),
        pytest.param(b"[1]", "its answer to GET /v2: is a list", id="list"),
    ],
)
def test_another_kind_of_server_at_the_url(folder: Folder, body: bytes, why: str) -> None:
    with web_server(body) as address:
        url = f"http://{address}"
        assert refused(folder, *FLAKY, "--url", url) == NOT_TRITON.format(url, f": {why}")


def test_the_port_of_the_other_protocol(folder: Folder, server: RunningServer) -> None:
    http, grpc = f"http://{server.grpc}", f"grpc://{server.http}"
    why = ": it speaks HTTP/2: is this its gRPC port?"
    assert refused(folder, *FLAKY, "--url", http) == NOT_TRITON.format(http, why)
    assert refused(folder, *FLAKY, "--url", grpc) == NOT_TRITON.format(grpc, "")


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (
            (*FLAKY, "--version", "v1"),
            "Error: --version v1: must be a number\n  hint: such as 3; leave it out for the newest\n",
        ),
        (
            (*FLAKY, "--concurrency", "4", "--rate", "9"),
            "Error: --concurrency and --rate: give only one\n  hint: --concurrency: that many requests in "
            "flight (closed loop); --rate: that many a second (open loop)\n",
        ),
        (
            ("run", "flaky", "--shape", "IN:x"),
            "Error: --shape IN:x: must be NAME:SIZES\n  hint: such as input_ids:128 or image:3,8,8\n",
        ),
        (
            (*FLAKY, "--output", "modelwright.toml/x"),
            "Error: --output modelwright.toml/x: cannot be written: Not a directory\n",
        ),
        (
            (*FLAKY, "--protocol", "grpc"),
            "Error: --url http://SERVER: is not the URL of a grpc endpoint\n  hint: leave out --protocol grpc\n",
        ),
        (
            ("run", "flakey"),
            "Error: http://SERVER: flakey: the server has no such model\n  hint: did you mean 'flaky'?\n",
        ),
    ],
    ids=["version", "two loads", "shape", "output", "protocol", "model"],
)
def test_a_wrong_option(folder: Folder, server: RunningServer, arguments: tuple[str, ...], message: str) -> None:
    assert refused(folder, *arguments, "--url", f"http://{server.http}") == message.replace("SERVER", server.http)


# What a generator process refuses before it sends anything. It hands the error over as it is: the case "model" above
# comes all the way.


def refused_workload(server: RunningServer, model: str, **options: Any) -> str:
    with pytest.raises(ModelwrightError) as error:
        UserContext(Workload(f"http://{server.http}", model, **options))
    return str(error.value).removeprefix(f"http://{server.http}: ")


@pytest.mark.parametrize(
    ("model", "options", "message"),
    [
        (
            "flaky",
            {"version": "7"},
            "flaky: version 7 is not served: it has no such version\n  hint: served: version 1",
        ),
        ("flaky", {"shapes": {"OUT": 4}}, "payload for flaky: --shape: flaky has no input 'OUT'\n  hint: known: IN"),
        (
            "flaky",
            {},
            "payload for flaky: input 'IN' has variable sizes, [-1], without a value\n"
            "  hint: give them: --shape IN:128",
        ),
        (
            "flaky",
            {"shapes": {"IN": 4}, "batch": 9},
            "flaky: batch 9: the model takes at most 8 rows\n"
            "  hint: give at most 8, or raise serving.max_batch_size in its model.yaml and build",
        ),
        (
            "sequence_sum",
            {},
            "sequence_sum: a sequence model is asked over gRPC\n  hint: --protocol grpc, or a grpc:// URL",
        ),
    ],
    ids=["version", "input", "no shape", "batch", "protocol"],
)
def test_a_workload_that_does_not_fit(server: RunningServer, model: str, options: dict[str, Any], message: str) -> None:
    assert refused_workload(server, model, **options) == message


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (None, "payload.json: no such file\n  hint: give an .npz or .json file, or a folder of them"),
        ("", "payload.json: empty file"),
        ({"NOPE": [1]}, "payload.json: sample 0: optional has no input 'NOPE'\n  hint: known: BIAS, IN"),
        ({"IN": ["x"]}, "payload.json: sample 0: input 'IN': the model takes FP32, got ['x']"),
        ({"IN": [1, 2, 3]}, "payload.json: sample 0: input 'IN': shape [1] takes 1 values, got 3"),
    ],
    ids=["missing", "empty", "name", "dtype", "shape"],
)
def test_a_payload_that_does_not_fit(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, server: RunningServer, content: object, message: str
) -> None:
    monkeypatch.chdir(tmp_path)
    if content is not None:
        (tmp_path / "payload.json").write_text(content if isinstance(content, str) else json.dumps(content))
    assert refused_workload(server, "optional", payload="payload.json") == message


def test_a_model_that_the_local_repository_does_not_have(folder: Folder, repository: Path) -> None:
    message = refused(folder, "run", "identitee", "--repository", str(repository))
    assert message.endswith("  hint: did you mean 'identity'?\n")


# --- while it is measured ---------------------------------------------------------------------------------------------


def test_requests_that_fail_are_counted_by_kind_and_the_run_goes_on(folder: Folder, server: RunningServer) -> None:
    done = folder.load(*FLAKY, "--url", f"http://{server.http}", "--output", "out", *SHORT)
    assert done.code == 0, done.stderr
    (measured,) = folder.written("out").measurements
    (failure,) = measured.failures
    assert (failure.kind, failure.message) == ("HTTP 500", "every tenth request fails")
    share = measured.requests.failed / (measured.requests.succeeded + measured.requests.failed)
    assert share == pytest.approx(0.1, abs=0.02)
    assert f"{failure.count:,} failed, HTTP 500: every tenth request fails" in done.stdout


def test_a_local_server_that_is_killed_ends_the_run_with_its_data_kept(folder: Folder, repository: Path) -> None:
    run = (*IDENTITY, "--repository", str(repository), "--output", "out", "--duration", "30", "--warmup", "0.2")
    with folder.started(*run) as process:
        folder.await_rows()
        (server,) = [each for each in named(process.family(), "tritonserver") if each.name() == "tritonserver"]
        server.kill()
        done = process.ended()
    assert done.code == 1, done.stderr
    result = folder.written("out")
    (measured,) = result.measurements
    assert not result.complete
    assert measured.requests.succeeded > 0
    assert measured.measured_s < 30
    assert measured.failures
    assert {failure.kind for failure in measured.failures} <= {"closed", "connect", "network"}
    assert measured.validity.verdict == "INVALID"
    assert measured.validity.reasons[0].startswith("the server ended, exit code 137; its log: ")


@pytest.mark.parametrize("options", [(), ("--shared-memory", "--shape", "TEXTS:1")], ids=["", "shared memory"])
def test_ctrl_c_leaves_a_report_of_what_there_is_and_nothing_else(
    folder: Folder, repository: Path, options: tuple[str, ...]
) -> None:
    model = ("run", "optional") if options else IDENTITY
    run = (*model, *options[:1], "--repository", str(repository), "--output", "out", "--duration", "30")
    with folder.started(*run, "--warmup", "0.2", "--processes", "2") as process:
        folder.await_rows()
        started = process.family()
        assert len(named(started, "modelwright.loadtest.generator.process")) == 2
        process.interrupt()
        done = process.ended()
    assert done.code == 130, done.stderr
    result = folder.written("out")
    assert not result.complete
    assert result.measurements[0].requests.succeeded > 0
    stopped, short = result.measurements[0].validity.reasons
    assert stopped == "stopped by Ctrl-C"
    assert short.endswith(" s of the 30 s that were asked for")
    wait_until(lambda: not alive(started))
    wait_until(lambda: not shared_memory_of(process.pid, *(each.pid for each in started)))
    assert list((folder.root / "scratch").iterdir()) == []


def shared_memory_of(*pids: int) -> list[str]:
    """The server's regions are named after the command's process; those of generators have no more than a number."""
    found = (path.name for path in Path("/dev/shm").iterdir())
    wanted = re.compile(rf"modelwright-({'|'.join(map(str, pids))}-.*|[0-9a-f]{{12}})")
    return [name for name in found if wanted.fullmatch(name)]


def test_ctrl_c_before_anything_is_measured_leaves_nothing(folder: Folder, repository: Path) -> None:
    with folder.started(*IDENTITY, "--repository", str(repository)) as process:
        wait_until(lambda: named(process.family(), "tritonserver"))
        started = process.family()
        process.interrupt()
        done = process.ended()
    assert (done.code, done.stdout) == (130, "")
    assert leftovers(folder) == []
    wait_until(lambda: not alive(started))


def test_a_generator_that_is_killed_is_named_and_the_others_records_are_kept(
    folder: Folder, server: RunningServer
) -> None:
    run = (*IDENTITY, "--url", f"http://{server.http}", "--output", "out", "--duration", "3", "--warmup", "0.1")
    with folder.started(*run, "--processes", "2", "--concurrency", "4") as process:
        folder.await_rows()
        named(process.family(), "modelwright.loadtest.generator.process")[0].kill()
        done = process.ended()
    assert done.code == 1, done.stderr
    (measured,) = folder.written("out").measurements
    assert measured.measured_s == pytest.approx(3)
    assert "was lost: exit code -9; what it had recorded is kept" in measured.validity.reasons[0]


def test_two_runs_at_once_do_not_disturb_each_other(folder: Folder, repository: Path) -> None:
    run = ("run", "optional", "--repository", str(repository), *SHORT)
    with folder.started(*run, "--output", "one") as first, folder.started(*run, "--output", "two") as second:
        assert [each.ended().code for each in (first, second)] == [0, 0]
    urls = {folder.written(name).measurements[0].target.url for name in ("one", "two")}
    assert len(urls) == 2


def test_an_error_between_two_measurements_keeps_the_first(folder: Folder, server: RunningServer) -> None:
    done = folder.load("run", "optional", "flakey", "--url", f"http://{server.http}", "--output", "out", *SHORT)
    assert done.code == 1
    assert done.stderr.endswith("  hint: did you mean 'flaky'?\n")
    result = folder.written("out")
    assert [measured.target.model for measured in result.measurements] == ["optional"]
    assert not result.complete
    assert result.notes[-1] == (f"stopped early: http://{server.http}: flakey: the server has no such model")
