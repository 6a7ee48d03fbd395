"""One fault stays one fault: whatever goes wrong with a model, the others are built and published."""

from __future__ import annotations

import importlib
import json
import os
import pickle
import shutil
from collections.abc import Callable
from contextlib import closing
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from modelwright.api import Project
from modelwright.build.contexts import Contexts
from modelwright.build.executor import Done, Failed, Job
from modelwright.build.pool import WorkerPool
from modelwright.build.workspace import open_workspace
from modelwright.errors import BugError, StepError, VerifyError, located
from modelwright.facts.compared_with import ComparedWith
from modelwright.facts.verified import Verified
from modelwright.kinds.step import StepFunction
from tests.conftest import ENSEMBLE_YAML, ONNX_YAML, Recorder, Sandbox, doubling_onnx

GOOD, BAD = "good", "bad"

STEPS_PY = """
import ctypes
import os
import sys
import time

from modelwright.errors import StepError
from modelwright.facts.made import Made


class OwnError(StepError):
    def __init__(self, one, two):
        super().__init__(one + two)


class Unsendable(Made):
    def __reduce__(self):
        raise TypeError("cannot be sent")


def leaves(context, out):
    os._exit(3)


def crashes(context, out):
    ctypes.string_at(0)


def leaves_a_child(context, out):
    if os.fork() == 0:
        time.sleep(30)  # holds every file of the worker open
        os._exit(0)
    os._exit(4)


def closes_everything(context, out):
    os.closerange(3, 256)
    time.sleep(30)


def exits(context, out):
    raise SystemExit(5)


def interrupts(context, out):
    raise KeyboardInterrupt


def recurses(context, out):
    return recurses(context, out)


def forks(context, out):
    os.fork()
    return Made()


def forgets(context, out):
    return None


def returns_what_cannot_be_sent(context, out):
    return Unsendable()


def raises_what_cannot_be_read(context, out):
    raise OwnError("one", "two")


def breaks(context, out):
    print("before it broke")
    raise RuntimeError("a line\\nand another")


def works(context, out):
    return Made()
"""


def job_of(sandbox: Sandbox, model: str, reference: str) -> Job:
    """The first step of a model, with a function of the test in place of its own."""
    workspace = open_workspace(sandbox.project, [model])
    context = Contexts(workspace, {}).of(workspace.steps[0])
    return Job(replace(context, function=StepFunction("samples", reference)), workspace.store.stage())


def results_of(pool: WorkerPool, jobs: list[Job]) -> dict[str, tuple[Job, Done | Failed]]:
    for job in jobs:
        pool.submit(job, print)
    found: dict[str, tuple[Job, Done | Failed]] = {}
    while len(found) < len(jobs):
        found |= {job.model: (job, result) for job, result in pool.results()}
    return found


DEATHS = {
    "leaves": "exit code 3",
    "crashes": "signal SIGSEGV",
    "leaves_a_child": "exit code 4",
    "closes_everything": "signal SIGKILL",
}
BUGS = {
    "exits": "SystemExit: 5",
    "interrupts": "KeyboardInterrupt",
    "recurses": "RecursionError: maximum recursion depth exceeded",
    "forgets": "TypeError: stepfaults:forgets returned NoneType, expected Facts",
    "returns_what_cannot_be_sent": "TypeError: cannot be sent",
    "raises_what_cannot_be_read": "its result cannot be read: ",
    "breaks": "RuntimeError: a line and another",
}


@pytest.fixture
def step_faults(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Lets workers import the functions of STEPS_PY, as stepfaults."""
    (tmp_path / "stepfaults.py").write_text(STEPS_PY)
    monkeypatch.setenv("PYTHONPATH", f"{os.environ['PYTHONPATH']}{os.pathsep}{tmp_path}")


@pytest.mark.usefixtures("step_faults")
def test_whatever_a_step_does_in_a_worker_becomes_a_result(sandbox: Sandbox, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("modelwright.build.pool._ENDING_S", 0.5)
    cases = [*DEATHS, *BUGS, "works"]
    for name in cases:
        sandbox.onnx_builder(name.replace("_", "-"))
    jobs = [job_of(sandbox, name.replace("_", "-"), f"stepfaults:{name}") for name in cases]
    with closing(WorkerPool(2)) as pool:
        found = results_of(pool, jobs)
    results = {model.replace("-", "_"): result for model, (_, result) in found.items()}
    assert isinstance(results.pop("works"), Done)
    failures = {name: result for name, result in results.items() if isinstance(result, Failed)}
    assert failures.keys() == results.keys()
    for name, reason in DEATHS.items():
        assert f"its process died ({reason})" in str(failures[name].error)
    for name, problem in BUGS.items():
        assert failures[name].error is None, name
        assert failures[name].problem.startswith(problem)
        assert "Traceback" in failures[name].trace
    assert "Segmentation fault" in (found["crashes"][0].staged / "log.txt").read_text()
    assert "before it broke" in (found["breaks"][0].staged / "log.txt").read_text()


@pytest.mark.usefixtures("step_faults")
def test_a_worker_that_ended_between_two_steps_is_replaced(sandbox: Sandbox) -> None:
    sandbox.onnx_builder("m")
    with closing(WorkerPool(1)) as pool:
        results_of(pool, [job_of(sandbox, "m", "stepfaults:works")])
        worker = pool._workers["m"]
        worker.process.kill()
        worker.process.wait()
        (_, result) = results_of(pool, [job_of(sandbox, "m", "stepfaults:works")])["m"]
    assert isinstance(result, Done)


@pytest.mark.usefixtures("step_faults")
def test_a_child_that_comes_back_from_a_step_does_not_answer_for_it(sandbox: Sandbox) -> None:
    sandbox.onnx_builder("m")
    with closing(WorkerPool(1)) as pool:
        results_of(pool, [job_of(sandbox, "m", "stepfaults:forks")])
        for _ in range(3):  # a second answer would be taken for that of a later step
            (_, result) = results_of(pool, [job_of(sandbox, "m", "stepfaults:breaks")])["m"]
            assert isinstance(result, Failed)


def test_an_error_of_a_step_crosses_into_this_process_whole() -> None:
    error = pickle.loads(pickle.dumps(StepError("where: what", "a hint")))
    assert str(error) == "where: what\n  hint: a hint"


# --- faults of Modelwright, outside of steps --------------------------------------------------------------------------

PLACES: dict[str, tuple[str, Callable[..., str]]] = {
    "planning": ("build.workspace:model_steps", lambda builder, *_: builder.name),
    "reading a serving": ("build.workspace:check_serving", lambda builder, _: builder.name),
    "looking a step up": ("build.scheduler:plan_step", lambda step, *_: step.model),
    "a context": ("build.contexts:Contexts.of", lambda _, step, *rest: step.model),
    "the store": ("build.scheduler:Scheduler._keep", lambda _, planned, *rest: planned.step.model),
    "a decision": ("build.publisher:Publisher.decide", lambda _, builder, *rest: builder.name),
    "rendering": ("config.model_files:make", lambda builder, *_: builder.name),
    "a manifest": ("build.publisher:Publisher.change", lambda _, decision, *rest: decision.builder.name),
    "the planned repository": ("build.planned_tree:_planned", lambda path, *_: path.name),
    "a view of the linter": ("lint.view:RepositoryView.view", lambda _, name, *rest: name),
    "a publish": ("repository.repository:Repository.publish", lambda _, change: change.model),
}


def break_for_one(monkeypatch: pytest.MonkeyPatch, place: str, model_of: Callable[..., str], error: Exception) -> None:
    """Let a function raise when it is called for the model `bad`."""
    module, _, name = place.partition(":")
    owner = importlib.import_module(f"modelwright.{module}")
    *parts, last = name.split(".")
    for part in parts:
        owner = getattr(owner, part)
    function = getattr(owner, last)

    def broken(*arguments: Any, **options: Any) -> Any:
        if model_of(*arguments) == BAD:
            raise error
        return function(*arguments, **options)

    monkeypatch.setattr(owner, last, broken)


@pytest.mark.parametrize("case", PLACES)
def test_a_bug_anywhere_fails_one_model_with_its_traceback_in_the_log(
    sandbox: Sandbox, monkeypatch: pytest.MonkeyPatch, case: str
) -> None:
    sandbox.onnx_builder(GOOD)
    sandbox.onnx_builder(BAD, factor=2.0001)
    break_for_one(monkeypatch, *PLACES[case], ZeroDivisionError("a bug"))
    result = sandbox.cli("build", "--json")
    assert result.exit_code == 1, result.output
    models = {model["model"]: model for model in json.loads(result.stdout)["models"]}
    assert (models[GOOD]["status"], models[BAD]["status"]) == ("new", "failed")
    assert "ZeroDivisionError: a bug" in models[BAD]["error"]["message"]
    assert "please report it at https://" in models[BAD]["error"]["hint"]
    log = Path(models[BAD]["log"])
    assert sandbox.project.shown(log) in models[BAD]["error"]["hint"]
    assert "Traceback" in log.read_text()
    assert {name.partition("/")[0] for name in sandbox.published()} == {GOOD}
    monkeypatch.undo()
    assert sandbox.build()[BAD].status == "new"


def test_a_rule_of_the_linter_that_breaks_on_one_model_hides_no_finding_of_another(
    sandbox: Sandbox, monkeypatch: pytest.MonkeyPatch
) -> None:
    sandbox.onnx_builder(GOOD)
    sandbox.onnx_builder(BAD)
    sandbox.build()
    config = sandbox.root / "model_repository" / GOOD / "config.pbtxt"
    config.write_text(config.read_text() + "dynamic_batching { preferred_batch_size: [ 9 ] }\n")
    break_for_one(monkeypatch, *PLACES["a view of the linter"], ZeroDivisionError("a bug"))
    result = sandbox.cli("lint")
    assert result.exit_code == 2
    assert "good/config.pbtxt:" in result.stdout
    assert "Error: bad: rule config cannot look at it\nTraceback" in result.stderr
    assert "please report it at https://" in result.stderr


def test_a_message_that_no_terminal_can_show_is_shown_in_part(sandbox: Sandbox) -> None:
    sandbox.onnx_builder(GOOD)
    folder = sandbox.onnx_builder(BAD, factor=2.0001)
    (folder / "data.py").write_text(
        "def samples():\n    raise ValueError('caf\\udce9')\n\n\ndef evaluate(infer): ...\n"
    )
    result = sandbox.cli("build")
    assert result.exit_code == 1
    assert "raised ValueError: caf\\udce9" in result.stderr
    assert "good   1        new" in result.stdout


def test_a_permission_that_is_missing_is_no_bug(sandbox: Sandbox, monkeypatch: pytest.MonkeyPatch) -> None:
    sandbox.onnx_builder(GOOD)
    sandbox.onnx_builder(BAD)
    break_for_one(monkeypatch, *PLACES["a publish"], PermissionError(13, "Permission denied", "model_repository/bad"))
    outcomes = sandbox.build()
    assert outcomes[GOOD].status == "new"
    assert not isinstance(outcomes[BAD].error, BugError)
    assert str(outcomes[BAD].error) == "model_repository/bad: Permission denied\n  hint: make it writable for this user"


def test_a_full_disk_stops_all_and_keeps_what_is_there(sandbox: Sandbox, monkeypatch: pytest.MonkeyPatch) -> None:
    sandbox.onnx_builder("a")
    sandbox.onnx_builder(BAD, factor=2.0001)
    sandbox.onnx_builder("c", factor=2.0002)
    break_for_one(monkeypatch, *PLACES["a publish"], OSError(28, "No space left on device"))
    result = sandbox.cli("build")
    assert result.exit_code == 1
    assert (
        "No space left on device\n  hint: free some space and run the same command again; nothing is lost"
        in result.output
    )
    assert {name.partition("/")[0] for name in sandbox.published()} == {"a"}
    monkeypatch.undo()
    assert {name: outcome.status for name, outcome in sandbox.build().items()} == {
        "a": "unchanged",
        BAD: "new",
        "c": "new",
    }


def test_a_publish_that_fails_holds_what_belongs_with_it(sandbox: Sandbox, monkeypatch: pytest.MonkeyPatch) -> None:
    ensemble_without_server(sandbox, monkeypatch)
    sandbox.build()
    doubling_onnx(sandbox.root / "builders/bad/model.onnx", 2.0001)
    break_for_one(monkeypatch, *PLACES["a publish"], ZeroDivisionError("a bug"))
    outcomes = sandbox.build()
    assert {name: outcome.status for name, outcome in outcomes.items()} == {
        BAD: "failed",
        "both": "held",
        "plus_one": "unchanged",
    }
    assert outcomes["both"].reason == "it waits for bad, which failed"


def ensemble_without_server(sandbox: Sandbox, monkeypatch: pytest.MonkeyPatch) -> None:
    """`both` runs `bad` and `plus_one`, two ONNX models. Its verification, which takes the server, is left out."""
    sandbox.onnx_builder(BAD)
    sandbox.onnx_builder("plus_one", factor=2.0)
    sandbox.ensemble_builder(yaml=ENSEMBLE_YAML.replace("doubled", BAD))

    def verified(context: Any, out: Path) -> Verified:
        (out / "golden.npz").write_bytes(b"not looked at")
        return Verified(compared_with=ComparedWith.SOURCE)

    monkeypatch.setattr("modelwright.steps.verify.run_served", verified)


# --- what is wrong before anything runs -------------------------------------------------------------------------------

FAULTY = {
    "not YAML": "source: {kind: onnx\n",
    "an unknown field": ONNX_YAML + "samplse: a:b\n",
    "an unknown kind": ONNX_YAML.replace("kind: onnx", "kind: onx"),
    "a module that is not there": ONNX_YAML.replace("data:samples", "dta:samples"),
    "a file that is not there": ONNX_YAML.replace("model.onnx", "other.onnx"),
    "a faulty serving": ONNX_YAML.replace("max_batch_size: 8", "max_batch_sise: 8"),
}


@pytest.mark.parametrize("case", FAULTY)
def test_a_faulty_builder_fails_alone(sandbox: Sandbox, case: str) -> None:
    sandbox.onnx_builder(GOOD)
    (sandbox.onnx_builder(BAD) / "model.yaml").write_text(FAULTY[case])
    plan = sandbox.cli("plan", "--json")
    assert plan.exit_code == 1
    entries = {(entry["model"], entry["step"]): entry for entry in json.loads(plan.stdout)}
    assert entries[GOOD, "samples"]["status"] == "run"
    assert entries[BAD, None]["status"] == "failed"
    assert "builders/bad/" in entries[BAD, None]["reason"]
    result = sandbox.cli("build", "--json")
    assert result.exit_code == 1
    models = {model["model"]: model for model in json.loads(result.stdout)["models"]}
    assert (models[GOOD]["status"], models[BAD]["status"]) == ("new", "failed")
    assert "builders/bad/" in models[BAD]["error"]["message"]
    assert "bug" not in models[BAD]["error"]["hint"]
    status = sandbox.cli("status")
    assert status.exit_code == 1
    assert "faulty: builders/bad/" in status.output
    assert "up to date" in status.output


def test_a_faulty_builder_is_nothing_to_a_build_of_another(sandbox: Sandbox) -> None:
    sandbox.onnx_builder(GOOD)
    (sandbox.onnx_builder(BAD) / "model.yaml").write_text("source: {")
    result = sandbox.cli("build", GOOD)
    assert result.exit_code == 0, result.output
    assert BAD not in result.output
    assert sandbox.cli("plan", GOOD).exit_code == 0
    assert sandbox.cli("build", GOOD).stdout.startswith("Nothing to do: 1 model up to date")
    named = sandbox.cli("build", BAD)
    assert named.exit_code == 1
    assert "Error: builders/bad/model.yaml:" in named.output


def test_what_is_printed_for_a_faulty_builder(sandbox: Sandbox) -> None:
    sandbox.onnx_builder(GOOD)
    (sandbox.onnx_builder(BAD) / "model.yaml").write_text("source: {kind: onnx, pth: x}\nsamples: data:samples\n")
    result = sandbox.cli("plan")
    assert result.stdout == "run   good samples: never built\nmaybe good onnx: after samples\n" + (
        "maybe good verify: after samples and onnx\n3 steps: 3 to run, 0 up to date\n"
    )
    assert result.stderr == (
        "Error: builders/bad/model.yaml:1: source.pth: unknown field\n  hint: did you mean 'path'?\n"
    )


@pytest.mark.parametrize(
    ("text", "model"), [("name: other\nsource: {", "other"), ("name: 'a/b'\nsource: {", BAD), ("source: {", BAD)]
)
def test_a_faulty_builder_goes_by_the_name_that_it_gives_where_that_can_be_read(
    sandbox: Sandbox, text: str, model: str
) -> None:
    (sandbox.onnx_builder(BAD) / "model.yaml").write_text(text)
    assert list(sandbox.build()) == [model]


def test_two_builders_of_one_name_fail_and_no_other_does(sandbox: Sandbox) -> None:
    for folder in ("a", "b"):
        sandbox.onnx_builder(folder, yaml="name: same\n" + ONNX_YAML)
    sandbox.onnx_builder(GOOD)
    outcomes = sandbox.build()
    assert {name: outcome.status for name, outcome in outcomes.items()} == {GOOD: "new", "same": "failed"}


def test_a_bug_while_a_builder_is_read_fails_that_builder(sandbox: Sandbox, monkeypatch: pytest.MonkeyPatch) -> None:
    sandbox.onnx_builder(GOOD)
    sandbox.onnx_builder(BAD)
    break_for_one(
        monkeypatch, "project.reader:read_builder", lambda folder, *_: folder.name, ZeroDivisionError("a bug")
    )
    outcomes = sandbox.build()
    assert outcomes[GOOD].status == "new"
    assert isinstance(outcomes[BAD].error, BugError)
    assert "Traceback" in (sandbox.root / ".modelwright/logs/bad/model.yaml.log").read_text()


def test_an_ensemble_waits_for_a_faulty_model_and_the_rest_of_it_goes_out(sandbox: Sandbox) -> None:
    sandbox.onnx_builder(GOOD)
    (sandbox.onnx_builder(BAD) / "model.yaml").write_text("source: {")
    sandbox.onnx_builder("plus_one")
    sandbox.ensemble_builder(yaml=ENSEMBLE_YAML.replace("doubled", BAD))
    outcomes = sandbox.build()
    assert {name: (outcome.status, outcome.reason) for name, outcome in outcomes.items()} == {
        BAD: ("failed", ""),
        "both": ("held", "it waits for bad, which failed"),
        GOOD: ("new", ""),
        "plus_one": ("new", ""),
    }
    assert "wait  both: it waits for bad, which failed" in sandbox.cli("plan").stdout
    assert "waits: it waits for bad" in sandbox.cli("status").stdout
    assert sandbox.cli("build", "plus_one").exit_code == 1  # it builds the ensemble, too
    assert sandbox.cli("build", GOOD).exit_code == 0


@pytest.mark.parametrize("text", ["source: {", ENSEMBLE_YAML.replace("doubled", "bda")], ids=["not YAML", "a typo"])
def test_what_a_faulty_ensemble_runs_as_published_stays_served(
    sandbox: Sandbox, monkeypatch: pytest.MonkeyPatch, text: str
) -> None:
    ensemble_without_server(sandbox, monkeypatch)
    assert {outcome.status for outcome in sandbox.build().values()} == {"new"}
    (sandbox.root / "builders/both/model.yaml").write_text(text)
    assert {name: outcome.status for name, outcome in sandbox.build().items()} == {
        BAD: "unchanged",
        "both": "failed",
        "plus_one": "unchanged",
    }
    doubling_onnx(sandbox.root / "builders/bad/model.onnx", 2.0001)
    outcomes = sandbox.build(BAD)
    assert (outcomes[BAD].status, outcomes["both"].status) == ("new", "failed")
    assert "versions: [ 1, 2 ]" in sandbox.config(BAD)  # what is published keeps running version 1


def test_the_objectives_of_a_model_are_read_beside_a_faulty_builder(sandbox: Sandbox) -> None:
    from modelwright.project.reader import slo_of
    from modelwright.variants.registry import LOOKUPS

    sandbox.onnx_builder("folder", yaml="name: good\nslo: {p99_ms: 20}\n" + ONNX_YAML)
    (sandbox.onnx_builder(BAD) / "model.yaml").write_text("source: {")
    found = slo_of(sandbox.project, GOOD, LOOKUPS)
    assert found is not None
    assert found.p99_ms == 20


# --- what is published, and the store ---------------------------------------------------------------------------------


def damaged(sandbox: Sandbox) -> None:
    (sandbox.root / "model_repository/bad/1/manifest.json").write_text('{"schema": 2')


def of_another_model(sandbox: Sandbox) -> None:
    root = sandbox.root / "model_repository"
    shutil.copy(root / "good/1/manifest.json", root / "bad/1/manifest.json")


def of_another_version(sandbox: Sandbox) -> None:
    shutil.copytree(sandbox.root / "model_repository/bad/1", sandbox.root / "model_repository/bad/2")


@pytest.mark.parametrize(
    ("spoil", "message"),
    [
        (damaged, "bad/1/manifest.json: damaged: not JSON"),
        (of_another_model, "bad/1/manifest.json: is that of good version 1"),
        (of_another_version, "bad/2/manifest.json: is that of bad version 1"),
    ],
)
@pytest.mark.parametrize("changed", [False, True], ids=["nothing to build", "something to build"])
def test_a_manifest_that_cannot_be_trusted_fails_its_model_alone(
    sandbox: Sandbox, spoil: Callable[[Sandbox], None], message: str, changed: bool
) -> None:
    sandbox.onnx_builder(GOOD)
    folder = sandbox.onnx_builder(BAD, factor=2.0001)
    sandbox.build()
    spoil(sandbox)
    if changed:
        doubling_onnx(folder / "model.onnx", 2.0002)
    outcomes = sandbox.build()
    assert (outcomes[GOOD].status, outcomes[BAD].status) == ("unchanged", "failed")
    assert message in str(outcomes[BAD].error)
    states = {item.model: (item.state, item.reason) for item in Project.find(sandbox.root).status()}
    assert states[GOOD] == ("up to date", "")
    assert states[BAD][0] == "faulty"
    assert message in states[BAD][1]


def test_an_artifact_that_lacks_a_file_is_made_again(sandbox: Sandbox) -> None:
    sandbox.onnx_builder()
    sandbox.build()
    artifacts = list((sandbox.root / ".modelwright/store").glob("*/*/files/version/model.onnx"))
    assert len(artifacts) == 1
    artifacts[0].unlink()
    recorder = Recorder()
    assert sandbox.build(listener=recorder)["doubled"].status == "unchanged"
    assert recorder.ran == [("doubled", "onnx")]
    assert recorder.reasons["doubled", "onnx"] == "its artifact is not in the store any more"
    assert artifacts[0].is_file()


def test_a_build_of_nothing_watches_the_folders_of_artifacts(sandbox: Sandbox, monkeypatch: pytest.MonkeyPatch) -> None:
    """A file that goes changes the timestamp of its folder, so that the next build looks closely."""
    sandbox.onnx_builder()
    sandbox.build()
    seen: list[Path] = []
    monkeypatch.setattr(
        "modelwright.build.stamp.write", lambda project, names, models, looked_at, _: seen.extend(looked_at)
    )
    sandbox.build()
    (artifact,) = (sandbox.root / ".modelwright/store").glob("*/*/files/version/model.onnx")
    assert artifact.parent in seen


def test_a_cache_that_cannot_be_written_costs_time_and_nothing_else(sandbox: Sandbox) -> None:
    sandbox.onnx_builder(GOOD)
    (sandbox.root / ".modelwright/cache").touch()  # where its folder should be
    assert sandbox.build()[GOOD].status == "new"
    assert sandbox.build()[GOOD].status == "unchanged"


def test_an_error_that_got_its_place_can_be_sent_by_a_worker() -> None:
    with pytest.raises(VerifyError) as caught, located("twice: verify"):
        raise VerifyError("'y' differs", "look at the last step")
    assert str(pickle.loads(pickle.dumps(caught.value))) == "twice: verify: 'y' differs\n  hint: look at the last step"
