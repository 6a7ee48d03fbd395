"""What goes wrong with a load test, as the one who runs it sees it: the message, the exit code, what is kept."""

from __future__ import annotations

import json
import re
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest

from modelwright.server.local import RunningServer
from tests.loadtest.commands import SHORT, Folder, alive, ended, family, interrupt, named, project_folder, wait_until
from tests.loadtest.models import write_models

FLAKY = ("run", "flaky", "--shape", "IN:4")
IDENTITY = ("run", "identity", "--shape", "NUMBERS:4", "--shape", "TEXTS:2")


@pytest.fixture
def folder(tmp_path: Path) -> Folder:
    return project_folder(tmp_path / "project")


@pytest.fixture(scope="module")
def repository(tmp_path_factory: pytest.TempPathFactory) -> Path:
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
    assert message.endswith("  hint: start it (modelwright serve), or give the URL of a server that runs\n")


NOT_TRITON = """\
Error: {}: what answers there is not a Triton server
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


@pytest.mark.parametrize("body", [b"<html>hello</html>", b"{}", b"[1]"], ids=["html", "object", "list"])
def test_another_kind_of_server_at_the_url(folder: Folder, body: bytes) -> None:
    with web_server(body) as address:
        assert refused(folder, *FLAKY, "--url", f"http://{address}") == NOT_TRITON.format(f"http://{address}")


def test_the_port_of_the_other_protocol(folder: Folder, server: RunningServer) -> None:
    for url in (f"http://{server.grpc}", f"grpc://{server.http}"):
        assert refused(folder, *FLAKY, "--url", url) == NOT_TRITON.format(url)


def cases() -> list[tuple[tuple[str, ...], str]]:
    at = "Error: http://SERVER: "
    return [
        (("run", "flakey"), f"{at}flakey: the server has no such model\n  hint: did you mean 'flaky'?\n"),
        (
            (*FLAKY, "--version", "7"),
            f"{at}flaky: version 7 is not served: it has no such version\n  hint: served: version 1\n",
        ),
        (
            (*FLAKY, "--version", "v1"),
            "Error: --version v1: a number is needed\n  hint: such as 3; leave it out for the newest\n",
        ),
        (
            (*FLAKY, "--concurrency", "4", "--rate", "9"),
            "Error: --concurrency and --rate: only one of them can be given\n  hint: --concurrency keeps so many "
            "requests in flight (closed loop), --rate sends so many a second (open loop)\n",
        ),
        (
            ("run", "flaky", "--shape", "IN:x"),
            "Error: --shape IN:x: a name and sizes are needed\n  hint: such as input_ids:128 or image:3,8,8\n",
        ),
        (
            ("run", "flaky", "--shape", "OUT:4"),
            "Error: payload for flaky: --shape: flaky has no input 'OUT'\n  hint: known: IN\n",
        ),
        (
            ("run", "flaky"),
            "Error: payload for flaky: input 'IN' has variable sizes, [-1], and none are given\n"
            "  hint: give them: --shape IN:128\n",
        ),
        (
            (*FLAKY, "--batch", "9"),
            "Error: flaky: batch 9 is asked for, the model takes at most 8 rows\n"
            "  hint: give at most 8, or raise serving.max_batch_size in its model.yaml and build\n",
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
            ("run", "sequence_sum"),
            "Error: sequence_sum: a sequence model is asked over gRPC\n  hint: --protocol grpc, or a grpc:// URL\n",
        ),
    ]


@pytest.mark.parametrize(("arguments", "message"), cases(), ids=[" ".join(given[-3:]) for given, _ in cases()])
def test_a_wrong_option(folder: Folder, server: RunningServer, arguments: tuple[str, ...], message: str) -> None:
    assert refused(folder, *arguments, "--url", f"http://{server.http}") == message.replace("SERVER", server.http)


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (None, "payload.json: there is no such file\n  hint: give an .npz or .json file, or a folder of them\n"),
        ("", "payload.json: is empty\n"),
        ({"NOPE": [1]}, "payload.json: sample 0: optional has no input 'NOPE'\n  hint: known: BIAS, IN\n"),
        ({"IN": ["x"]}, "payload.json: sample 0: input 'IN': the model takes FP32, this is ['x']\n"),
        ({"IN": [1, 2, 3]}, "payload.json: sample 0: input 'IN': shape [1] takes 1 values, there are 3\n"),
    ],
    ids=["missing", "empty", "name", "dtype", "shape"],
)
def test_a_payload_that_does_not_fit(folder: Folder, server: RunningServer, content: object, message: str) -> None:
    if content is not None:
        (folder.root / "payload.json").write_text(content if isinstance(content, str) else json.dumps(content))
    arguments = ("run", "optional", "--payload", "payload.json", "--url", f"http://{server.http}")
    assert refused(folder, *arguments) == f"Error: {message}"


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


def test_a_model_of_which_nothing_succeeds_cannot_be_measured(folder: Folder, server: RunningServer) -> None:
    (folder.root / "long.json").write_text('{"DELAY_MS": [1000]}')
    message = refused(
        *(folder, "run", "slow", "--payload", "long.json", "--timeout", "0.1", "--url", f"http://{server.http}")
    )
    assert message.startswith(f"Error: http://{server.http}: slow version 1: the first 5 requests failed: timeout: ")


def test_a_local_server_that_is_killed_ends_the_run_with_its_data_kept(folder: Folder, repository: Path) -> None:
    run = (*IDENTITY, "--repository", str(repository), "--output", "out", "--duration", "30", "--warmup", "0.2")
    with folder.started(*run) as process:
        folder.await_rows()
        (server,) = [each for each in named(family(process), "tritonserver") if each.name() == "tritonserver"]
        server.kill()
        done = ended(process)
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
        started = family(process)
        assert len(named(started, "modelwright.loadtest.generator.process")) == 2
        interrupt(process)
        done = ended(process)
    assert done.code == 130, done.stderr
    result = folder.written("out")
    assert not result.complete
    assert result.measurements[0].requests.succeeded > 0
    assert result.measurements[0].validity.reasons == ["stopped by Ctrl-C"]
    wait_until(lambda: not alive(started), 10)
    wait_until(lambda: not shared_memory_of(process.pid, *(each.pid for each in started)), 10)
    assert list((folder.root / "scratch").iterdir()) == []


def shared_memory_of(*pids: int) -> list[str]:
    """The server's regions are named after the command's process; those of generators have no more than a number."""
    found = (path.name for path in Path("/dev/shm").iterdir())
    wanted = re.compile(rf"modelwright-({'|'.join(map(str, pids))}-.*|[0-9a-f]{{12}})")
    return [name for name in found if wanted.fullmatch(name)]


def test_ctrl_c_before_anything_is_measured_leaves_nothing(folder: Folder, repository: Path) -> None:
    with folder.started(*IDENTITY, "--repository", str(repository)) as process:
        wait_until(lambda: named(family(process), "tritonserver"))
        started = family(process)
        interrupt(process)
        done = ended(process)
    assert (done.code, done.stdout) == (130, "")
    assert leftovers(folder) == []
    wait_until(lambda: not alive(started), 10)


def test_a_generator_that_is_killed_is_named_and_the_others_records_are_kept(
    folder: Folder, server: RunningServer
) -> None:
    run = (*IDENTITY, "--url", f"http://{server.http}", "--output", "out", "--duration", "2", "--warmup", "0.2")
    with folder.started(*run, "--processes", "2", "--concurrency", "4") as process:
        folder.await_rows()
        named(family(process), "modelwright.loadtest.generator.process")[0].kill()
        done = ended(process)
    assert done.code == 1, done.stderr
    (measured,) = folder.written("out").measurements
    assert measured.measured_s == pytest.approx(2)
    assert "which sent requests, was lost: exit code -9; what it had recorded is kept" in measured.validity.reasons[0]


def test_two_runs_at_once_do_not_disturb_each_other(folder: Folder, repository: Path) -> None:
    run = ("run", "optional", "--repository", str(repository), *SHORT)
    with folder.started(*run, "--output", "one") as first, folder.started(*run, "--output", "two") as second:
        assert [ended(each).code for each in (first, second)] == [0, 0]
    urls = {folder.written(name).measurements[0].target.url for name in ("one", "two")}
    assert len(urls) == 2


def test_an_error_between_two_measurements_keeps_the_first(folder: Folder, server: RunningServer) -> None:
    done = folder.load("run", "optional", "flakey", "--url", f"http://{server.http}", "--output", "out", *SHORT)
    assert done.code == 1
    assert done.stderr.endswith("  hint: did you mean 'flaky'?\n")
    result = folder.written("out")
    assert [measured.target.model for measured in result.measurements] == ["optional"]
    assert not result.complete
    assert result.notes[-1] == (f"not all was measured: http://{server.http}: flakey: the server has no such model")
