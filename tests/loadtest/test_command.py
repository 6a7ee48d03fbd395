"""`modelwright load …` from the outside: what is printed, what is written, and the exit codes."""

from __future__ import annotations

from pathlib import Path

import pytest

from modelwright.loadtest.report import output
from modelwright.server.environment import Environment
from modelwright.server.local import RunningServer
from tests.conftest import Sandbox
from tests.loadtest import results
from tests.loadtest.commands import SHORT, Done, Folder, project_folder

BRIEF = ("--duration", "0.2", "--warmup", "0.1")


@pytest.fixture
def folder(tmp_path: Path) -> Folder:
    return project_folder(tmp_path / "project")


def load(folder: Folder, server: RunningServer, *arguments: str, code: int = 0) -> Done:
    done = folder.load(*arguments, "--url", f"http://{server.http}", "--output", "out")
    assert done.code == code, done.stderr
    return done


def test_run_prints_a_table_and_writes_three_files(folder: Folder, server: RunningServer) -> None:
    with folder.started("run", "optional", *SHORT, "--url", f"http://{server.http}", "--output", "out") as process:
        done = process.ended()
    assert done.code == 0, done.stderr
    head, row, *_ = done.stdout.splitlines()
    assert head.split() == ["load", "req/s", "p50", "p90", "p99", "p99.9", "queue", "compute", "failed"]
    assert row.startswith("4 in flight  ")
    assert done.stderr.endswith("Report: out/report.html\n")
    result = folder.written("out")
    assert (result.kind, result.title, result.complete) == ("run", "Load test: optional", True)
    assert result.command[:3] == ["modelwright", "load", "run"]


@pytest.mark.parametrize("protocol", ["http", "grpc"])
def test_an_open_loop_sends_its_rate(folder: Folder, server: RunningServer, protocol: str) -> None:
    url = f"{protocol}://{getattr(server, protocol)}"
    arguments = ("--rate", "200", "--arrivals", "constant", "--duration", "0.5", "--warmup", "0.1")
    done = folder.load("run", "optional", *arguments, "--url", url, "--output", "out", "--json")
    assert done.code == 0, done.stderr
    assert done.result == folder.written("out")  # what `--json` prints is the document
    (measured,) = done.result.measurements
    assert (measured.load.mode, measured.load.rate, measured.target.protocol) == ("open", 200, protocol)
    assert measured.requests.succeeded == pytest.approx(100, abs=2)


def test_sweep_measures_every_concurrency_at_every_batch(folder: Folder, server: RunningServer) -> None:
    shape = ("--shape", "NUMBERS:4", "--shape", "TEXTS:2")
    load(folder, server, "sweep", "identity", *shape, "--concurrency", "1,4", "--batch", "1,2", *BRIEF)
    result = folder.written("out")
    assert result.kind == "sweep"
    found = [(each.load.batch, each.load.concurrency) for each in result.measurements]
    assert found == [(1, 1), (1, 4), (2, 1), (2, 4)]
    assert all(each.inferences == pytest.approx(each.throughput * each.load.batch) for each in result.measurements)


@pytest.mark.parametrize(
    ("max_ms", "rate", "code"), [("1000", 100, 0), ("0.001", 1000, 1)], ids=["holds", "never holds"]
)
def test_slo_says_at_which_rate_the_objective_holds(
    folder: Folder, server: RunningServer, max_ms: str, rate: int, code: int
) -> None:
    arguments = ("slo", "optional", "--p50-ms", max_ms, "--max-rate", str(rate), *BRIEF)
    done = load(folder, server, *arguments, code=code)
    slo = folder.written("out").slo
    assert slo is not None
    assert len(slo.probes) == len(slo.held) >= 1
    assert slo.rate == (rate if code == 0 else None)
    assert done.stdout.endswith(f"{slo.explanation}\n")


def test_slo_needs_one_objective(folder: Folder) -> None:
    for given in ((), ("--p50-ms", "1", "--p99-ms", "2")):
        done = folder.load("slo", "optional", *given)
        assert done.code == 1
        assert done.stderr == "Error: --p99-ms or --p50-ms: give exactly one\n  hint: such as --p99-ms 20\n"


def test_ab_writes_a_gate_and_exits_by_its_verdict(folder: Folder, server: RunningServer) -> None:
    (folder.root / "payload.json").write_text('{"DELAY_MS": [0]}')
    # One metric, so one regime is measured; test_ab.py has both.
    done = folder.load(
        *("ab", "two_versions", "--versions", "9,10", "--payload", "payload.json", "--url", f"http://{server.http}"),
        *("--repository", str(server.log.parent / "repository"), "--rounds", "7", "--seconds", "0.2"),
        *("--warmup", "0.05", "--metric", "throughput", "--concurrency", "4", "--output", "out", "--json"),
    )
    assert done.code in (0, 1, 3), done.stderr
    result = folder.written("out")
    assert done.result == result
    (gate,) = result.gates
    assert done.code == {"PASS": 0, "FAIL": 1, "INCONCLUSIVE": 3}[gate.verdict]
    assert (gate.model, gate.baseline, gate.candidate) == ("two_versions", "version 9", "version 10")
    # Two sides in 8 to 24 rounds of calibration and 7 of comparison or twice that, after two for the loads.
    assert len(result.measurements) in [2 + 2 * (8 * times + rounds) for times in (1, 2, 3) for rounds in (7, 14)]
    assert {item.side for item in gate.rounds} == {"A", "A2", "B"}
    assert {each.target.version for each in result.measurements} == {"9", "10"}
    # Both sides send the same one payload: that is said once.
    assert [note for note in result.notes if "distinct" in note] == [
        "two_versions: 1 distinct payload: a response cache would answer them"
    ]


def test_ab_without_two_versions_has_nothing_to_compare(folder: Folder, server: RunningServer) -> None:
    repository = str(server.log.parent / "repository")
    done = folder.load("ab", "--versions", "9,10", "--repository", repository, "--url", f"http://{server.http}")
    assert done.code == 1
    assert "--versions" in done.stderr


def test_compare_puts_two_results_side_by_side(folder: Folder) -> None:
    (folder.root / "out").mkdir()
    output.write(results.run(), folder.root / "out")
    done = folder.load("compare", "out", "out/result.json")
    assert done.code == 0, done.stderr
    assert "32 in flight" in done.stdout


def test_compare_refuses_what_is_not_a_result(folder: Folder) -> None:
    (folder.root / "a.json").write_text("{}")
    done = folder.load("compare", "a.json", "a.json")
    assert done.code == 1
    assert done.stderr.startswith("Error: a.json: not a load test's result: ")
    done = folder.load("compare", "nothing", "a.json")
    assert done.stderr == (
        "Error: nothing: cannot be read: No such file or directory\n"
        "  hint: give a result.json, or the folder that has one\n"
    )


def test_a_built_repository_is_measured_with_its_golden_samples(sandbox: Sandbox, environment: Environment) -> None:
    sandbox.onnx_builder()
    assert sandbox.build()["doubled"].status == "new"
    folder = Folder(sandbox.root)
    done = folder.load("run", *SHORT, "--check-every", "10", "--json")
    assert done.code == 0, done.stderr
    (measured,) = done.result.measurements
    assert (measured.target.model, measured.target.version) == ("doubled", "1")
    assert measured.target.payload.startswith("golden samples")
    assert measured.requests.checked > 0
    assert measured.requests.wrong == 0
    (written,) = (sandbox.root / ".modelwright" / "load").iterdir()
    assert written.name.endswith("-run-doubled")
    assert folder.written(written) == done.result
