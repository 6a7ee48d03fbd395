"""The scheduler against an executor that only writes down what it is asked for; and real builds in this process."""

from __future__ import annotations

import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from modelwright.build.build import build
from modelwright.build.executor import Done, Executor, Failed, Job
from modelwright.build.inline import InlineExecutor
from modelwright.build.listener import Listener
from modelwright.build.scheduler import Scheduler
from modelwright.build.workspace import open_workspace
from modelwright.errors import BugError, DiskFullError, ModelwrightError, StepError
from modelwright.facts.made import Made
from modelwright.progress import Tell
from tests.conftest import DATA_PY, ONNX_YAML, Sandbox, doubling_onnx


class ScriptedExecutor:
    """Ends jobs in the order that a test asks for, without running anything."""

    def __init__(self, threads: int, answer: Callable[[Job], Done | Failed]) -> None:
        self.threads = threads
        self.answer = answer
        self.running: list[Job] = []
        self.together: list[set[str]] = []  # models in flight after each submit
        self.submitted: list[tuple[str, str]] = []
        self.retired: list[str] = []
        self.closed = False

    def capacity(self) -> int:
        return max(0, self.threads - sum(job.threads for job in self.running))

    def submit(self, job: Job, tell: Tell) -> None:
        assert job.model not in {other.model for other in self.running}, "two steps of one builder at a time"
        self.running.append(job)
        self.together.append({other.model for other in self.running})
        self.submitted.append((job.model, job.context.function.name))

    def results(self) -> list[tuple[Job, Done | Failed]]:
        job = self.running.pop(0)
        return [(job, self.answer(job))]

    def retire(self, model: str) -> None:
        assert model not in {job.model for job in self.running}
        self.retired.append(model)

    def close(self) -> None:
        self.closed = True


def made(job: Job) -> Done:
    (job.staged / "files" / "result").write_text(f"{job.model} {job.context.function.name}")
    return Done(Made(), 0.5)


def run(sandbox: Sandbox, executor: ScriptedExecutor) -> Scheduler:
    scheduler = Scheduler(open_workspace(sandbox.project), Listener())
    scheduler.run(lambda: executor)
    return scheduler


@pytest.mark.parametrize(("threads", "most"), [(1, 1), (2, 2), (3, 3)])
def test_as_many_builders_at_once_as_there_are_threads(sandbox: Sandbox, threads: int, most: int) -> None:
    for name in ("a", "b", "c"):
        sandbox.onnx_builder(name, factor=ord(name) / 50)
    executor = ScriptedExecutor(threads, made)
    built = run(sandbox, executor).built
    assert max(map(len, executor.together)) == most
    assert {step for step in built.artifacts if step[0] == "a"} == {("a", "samples"), ("a", "onnx"), ("a", "verify")}
    assert built.spent_s["a"] == 1.5  # b and c share its samples


def test_a_step_that_wants_more_threads_than_there_are_runs_alone(sandbox: Sandbox) -> None:
    sandbox.onnx_builder("a")
    yaml = "source: {kind: torch, entry: train:train, threads: 8}"
    sandbox.torch_builder("wide", yaml=TORCH_REST.replace("SOURCE", yaml))
    executor = ScriptedExecutor(2, made)
    run(sandbox, executor)
    assert ("wide", "torch") in executor.submitted
    assert all(
        models == {"wide"}
        for models, step in zip(executor.together, executor.submitted, strict=True)
        if step == ("wide", "torch")
    )


TORCH_REST = """
SOURCE
inputs: [{name: x, dtype: FP32, shape: [2]}]
outputs: [{name: y, dtype: FP32, shape: [2]}]
samples: data:samples
serving: {max_batch_size: 8}
"""


def test_a_failed_model_stops_and_the_others_go_on(sandbox: Sandbox) -> None:
    for name in ("a", "b"):
        sandbox.onnx_builder(name, factor=ord(name) / 50)
    error = StepError("a: samples: broken")

    def answer(job: Job) -> Done | Failed:
        return Failed(error, "a traceback") if job.model == "a" else made(job)

    executor = ScriptedExecutor(2, answer)
    built = run(sandbox, executor).built
    assert built.errors == {"a": error}
    assert "a traceback" in built.logs["a"].read_text()
    assert [step for step in executor.submitted if step[0] == "a"] == [("a", "samples")]
    assert ("b", "verify") in built.artifacts
    assert executor.closed


def test_a_builder_is_retired_when_its_last_step_ended(sandbox: Sandbox) -> None:
    for name in ("a", "b"):
        sandbox.onnx_builder(name, factor=ord(name) / 50)
    executor = ScriptedExecutor(1, made)
    run(sandbox, executor)
    assert sorted(executor.retired) == ["a", "b"]


def test_models_that_share_a_key_run_the_step_once(sandbox: Sandbox) -> None:
    for name in ("a", "b"):
        sandbox.onnx_builder(name)  # the same samples, the same file
    executor = ScriptedExecutor(4, made)
    built = run(sandbox, executor).built
    assert len(executor.submitted) < len(built.artifacts)
    assert built.artifacts["a", "samples"].key == built.artifacts["b", "samples"].key


def test_no_executor_starts_when_all_is_up_to_date(sandbox: Sandbox) -> None:
    sandbox.onnx_builder()
    sandbox.build()

    def start() -> Executor:
        raise AssertionError("an executor was started")

    Scheduler(open_workspace(sandbox.project), Listener()).run(start)


@pytest.mark.parametrize("jobs", [0, -3])
def test_a_number_of_jobs_that_runs_nothing_is_refused(sandbox: Sandbox, jobs: int) -> None:
    with pytest.raises(ModelwrightError, match=f"jobs: expected a whole number from 1, got {jobs}"):
        build(sandbox.project, (), Listener(), jobs=jobs)


def test_a_bug_in_a_step_fails_that_model_and_keeps_its_traceback(sandbox: Sandbox) -> None:
    for name in ("a", "b"):
        sandbox.onnx_builder(name, factor=ord(name) / 50)

    def answer(job: Job) -> Done | Failed:
        return Failed(None, "Traceback: somewhere", "KeyError: 'x'") if job.model == "a" else made(job)

    executor = ScriptedExecutor(1, answer)
    built = run(sandbox, executor).built
    assert isinstance(built.errors["a"], BugError)
    assert str(built.errors["a"]).startswith("a: samples: KeyError: 'x'\n  hint: this is a bug in Modelwright: please")
    assert ".modelwright/logs/a/samples.log" in str(built.errors["a"])
    assert "Traceback: somewhere" in built.logs["a"].read_text()
    assert ("b", "verify") in built.artifacts
    assert executor.closed


def test_a_full_disk_stops_all_and_closes_the_executor(sandbox: Sandbox) -> None:
    for name in ("a", "b"):
        sandbox.onnx_builder(name, factor=ord(name) / 50)
    executor = ScriptedExecutor(1, lambda job: Failed(DiskFullError("store: No space left on device"), ""))
    with pytest.raises(DiskFullError, match="No space left"):
        run(sandbox, executor)
    assert executor.closed


def test_a_build_in_this_process_publishes_what_workers_would(sandbox: Sandbox, tmp_path: Path) -> None:
    sandbox.onnx_builder("a")
    sandbox.write("b", model_yaml=ONNX_YAML, data_py=DATA_PY.replace("* 2", "* 3"))
    doubling_onnx(sandbox.root / "builders" / "b" / "model.onnx", 3.0)
    path, modules = list(sys.path), set(sys.modules)
    outcomes = build(sandbox.project, (), Listener(), start_executor=InlineExecutor)
    # Each builder got its own `data`, and none stays behind.
    assert [(outcome.model, outcome.status, outcome.metrics) for outcome in outcomes] == [
        ("a", "new", {"accuracy": 1.0}),
        ("b", "new", {"accuracy": 1.0}),
    ]
    assert sys.path == path
    assert "data" not in set(sys.modules) - modules
    inline = {name: digest for name, digest in sandbox.published().items() if "manifest" not in name}
    other = Sandbox(sandbox.root)
    for folder in ("model_repository", "model_history", ".modelwright/store"):  # numbers start anew without all three
        (sandbox.root / folder).rename(tmp_path / Path(folder).name)
    other.build()
    assert {name: digest for name, digest in other.published().items() if "manifest" not in name} == inline


def test_a_failure_in_this_process_is_logged_as_in_a_worker(sandbox: Sandbox) -> None:
    folder = sandbox.onnx_builder()
    (folder / "data.py").write_text(
        "def samples():\n    print('before it broke')\n    raise ValueError('no data')\n\n\ndef evaluate(infer):\n    return {}\n"
    )
    (outcome,) = build(sandbox.project, (), Listener(), start_executor=InlineExecutor)
    assert outcome.status == "failed"
    assert "no data" in str(outcome.error)
    assert outcome.log is not None
    assert "before it broke" in outcome.log.read_text()
