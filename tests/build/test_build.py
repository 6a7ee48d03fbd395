"""The loop: what runs, what does not, what is published, and what a failure leaves."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import threading
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from modelwright.digest import list_tree, sha256_file
from modelwright.errors import LockedError
from modelwright.fsops import locked
from tests.conftest import (
    DATA_PY,
    ENSEMBLE_YAML,
    ONNX_YAML,
    ROOT,
    TRAIN_PY,
    Recorder,
    Sandbox,
    default_sigint,
    doubling_onnx,
)
from tests.waiting import wait_until


@pytest.mark.torch
def test_a_first_build_publishes_version_1_with_everything_it_needs(sandbox: Sandbox) -> None:
    sandbox.torch_builder()
    outcome = sandbox.build()["scaled"]
    assert (outcome.status, outcome.version) == ("new", 1)
    assert outcome.max_abs_error is not None
    assert set(sandbox.published()) == {f"scaled/{name}" for name in (
        "config.pbtxt", "1/model.onnx", "1/golden.npz", "1/manifest.json", "1/config.pbtxt", "1/sbom.cdx.json")}  # fmt: skip
    manifest = sandbox.manifest("scaled")
    assert manifest.files["model.onnx"].sha256 == sandbox.published()["scaled/1/model.onnx"]
    assert [entry.step for entry in manifest.lineage] == ["samples", "torch", "onnx", "verify"]
    assert sandbox.repository.damage("scaled", 1) == []


def test_each_steps_log_is_kept_with_its_artefact(sandbox: Sandbox) -> None:
    folder = sandbox.onnx_builder()
    (folder / "data.py").write_text(DATA_PY.replace("def samples():\n", "def samples():\n    print('hello log')\n"))
    sandbox.build()
    key = next(entry.key for entry in sandbox.manifest("doubled").lineage if entry.step == "samples")
    assert "hello log" in (sandbox.root / ".modelwright/store" / key[:2] / key / "log.txt").read_text()


def test_nothing_changed_runs_nothing(sandbox: Sandbox) -> None:
    sandbox.onnx_builder()
    sandbox.onnx_builder("other", factor=2.001)
    sandbox.build()
    before = sandbox.published()
    recorder = Recorder()
    outcomes = sandbox.build(listener=recorder)
    assert recorder.ran == []
    assert {outcome.status for outcome in outcomes.values()} == {"unchanged"}
    assert sandbox.published() == before


@pytest.mark.torch
def test_a_change_of_code_rebuilds_that_model_alone(sandbox: Sandbox) -> None:
    folder = sandbox.torch_builder()
    sandbox.onnx_builder()
    sandbox.build()
    (folder / "train.py").write_text((folder / "train.py").read_text().replace("x * self", "x * 1.5 * self"))
    recorder = Recorder()
    outcomes = sandbox.build(listener=recorder)
    assert {model for model, _ in recorder.ran} == {"scaled"}
    assert recorder.reasons["scaled", "torch"] == "train.py changed"
    assert (outcomes["scaled"].status, outcomes["scaled"].version) == ("new", 2)
    assert outcomes["doubled"].status == "unchanged"
    assert sandbox.repository.versions("scaled") == [1, 2]


def test_a_change_of_serving_renders_config_and_makes_no_version(sandbox: Sandbox) -> None:
    folder = sandbox.onnx_builder()
    sandbox.build()
    (folder / "model.yaml").write_text(ONNX_YAML.replace("max_batch_size: 8", "max_batch_size: 16"))
    recorder = Recorder()
    outcome = sandbox.build(listener=recorder)["doubled"]
    assert recorder.ran == []
    assert (outcome.status, outcome.version) == ("config", 1)
    assert "max_batch_size: 16" in sandbox.config("doubled")
    assert sandbox.repository.versions("doubled") == [1]


@pytest.mark.torch
def test_a_change_that_makes_the_same_output_stops_there(sandbox: Sandbox) -> None:
    folder = sandbox.torch_builder()
    sandbox.build()
    (folder / "train.py").write_text("# a comment\n" + (folder / "train.py").read_text())
    recorder = Recorder()
    outcome = sandbox.build(listener=recorder)["scaled"]
    # The module is a pickle of code that changed, so it is exported again; the ONNX file comes out the same.
    assert ("scaled", "verify") not in recorder.ran
    assert outcome.status == "unchanged"


def test_a_config_edited_by_hand_is_put_right(sandbox: Sandbox) -> None:
    sandbox.onnx_builder()
    sandbox.build()
    path = sandbox.root / "model_repository/doubled/config.pbtxt"
    text = path.read_text()
    path.write_text(text + "# mine\n")
    assert sandbox.build()["doubled"].status == "config"
    assert path.read_text() == text


def test_a_version_number_is_never_used_twice(sandbox: Sandbox) -> None:
    folder = sandbox.onnx_builder()
    sandbox.build()
    doubling_onnx(folder / "model.onnx", 2.001)
    assert sandbox.build()["doubled"].version == 2
    subprocess.run(["rm", "-r", str(sandbox.root / "model_repository/doubled/2")], check=True)
    assert sandbox.build()["doubled"].version == 3


@pytest.mark.torch
def test_the_same_inputs_give_the_same_digests_in_another_checkout(sandbox_factory: Callable[[], Sandbox]) -> None:
    published = []
    for workers in (True, False):
        sandbox = sandbox_factory()
        sandbox.workers = workers
        sandbox.torch_builder()
        sandbox.onnx_builder()
        sandbox.build()
        files = sandbox.published()
        published.append({name: digest for name, digest in files.items() if not name.endswith("manifest.json")})
        keys = [entry.key for entry in sandbox.manifest("scaled").lineage]
        published[-1]["keys"] = ",".join(keys)
    assert published[0] == published[1]


@pytest.mark.torch
def test_digits_trained_in_another_checkout_is_the_same_file(sandbox_factory: Callable[[], Sandbox]) -> None:
    digests = []
    for _ in range(2):
        sandbox = sandbox_factory()
        sandbox.workers = True
        folder = sandbox.write("digits")
        for path in (ROOT / "builders/digits").glob("*.*"):
            text = path.read_text().replace("epochs: 15", "epochs: 2").replace("min: 0.98", "min: 0.5")
            (folder / path.name).write_text(text)
        sandbox.build()
        digests.append(sandbox.published()["digits/1/model.onnx"])
    assert digests[0] == digests[1]


@pytest.mark.server
def test_ensembles_get_a_version_when_a_member_does(sandbox: Sandbox) -> None:
    folder = sandbox.onnx_builder()
    sandbox.python_builder()
    sandbox.ensemble_builder()
    outcomes = sandbox.build()
    assert {name: outcome.version for name, outcome in outcomes.items()} == {"both": 1, "doubled": 1, "plus_one": 1}
    doubling_onnx(folder / "model.onnx", 2.002)
    outcomes = sandbox.build("doubled")
    assert {name: outcome.status for name, outcome in outcomes.items()} == {
        "both": "new",
        "doubled": "new",
        "plus_one": "unchanged",
    }
    assert sandbox.manifest("both", 2).made.composing_models["doubled"] == sandbox.manifest("doubled", 2).version_digest


@pytest.mark.server
def test_a_composing_model_goes_out_and_an_ensemble_that_fails_keeps_to_the_version_it_names(sandbox: Sandbox) -> None:
    folder = sandbox.onnx_builder()
    sandbox.python_builder()
    sandbox.onnx_builder("alone")
    data = DATA_PY.replace('samples()["x"] * 2', 'samples()["x"] * 2 + 1')
    sandbox.write(
        "both", model_yaml=ENSEMBLE_YAML + "evaluate: data:evaluate\ngates: {accuracy: {min: 1}}\n", data_py=data
    )
    sandbox.build()
    before = sandbox.published()
    doubling_onnx(folder / "model.onnx", 3.0)  # good enough for its own gate, not for the ensemble's
    (folder / "model.yaml").write_text(ONNX_YAML.replace("min: 0.9", "min: 0.0"))
    sandbox.onnx_builder("alone", factor=2.001)
    outcomes = sandbox.build()
    assert outcomes["both"].status == "failed"
    assert outcomes["doubled"].status == "new"
    assert outcomes["alone"].status == "new"
    after = sandbox.published()
    assert {name for name in after if after[name] != before.get(name)} == {
        "doubled/config.pbtxt",
        *(
            f"{model}/2/{name}"
            for model in ("doubled", "alone")
            for name in ("model.onnx", "golden.npz", "manifest.json", "config.pbtxt", "sbom.cdx.json")
        ),
    }
    assert "versions: [ 1, 2 ]" in sandbox.config("doubled")
    assert sandbox.cli("verify").exit_code == 0


def test_code_that_reads_a_file_the_build_does_not_know_of_is_refused(sandbox: Sandbox) -> None:
    folder = sandbox.onnx_builder()
    (folder / "table.csv").write_text("1,2\n")
    data = DATA_PY.replace('    return {"x"', "    open('table.csv').close()\n    return {\"x\"", 1)
    (folder / "data.py").write_text(data)
    assert "its code reads 'table.csv', which the build does not know of" in sandbox.error()
    (folder / "model.yaml").write_text(ONNX_YAML + "files: ['*.csv']\n")
    sandbox.build()
    (folder / "table.csv").write_text("1,3\n")
    recorder = Recorder()
    sandbox.build(listener=recorder)
    assert recorder.reasons["doubled", "samples"] == "table.csv changed"


def test_code_may_read_what_it_wrote_itself(sandbox: Sandbox) -> None:
    checkpoint = """
    from pathlib import Path
    Path("best.tmp").write_text("1")
    Path("best.tmp").rename("best.pt")
    Path("best.pt").read_text()
    Path("best.pt").unlink()
"""
    folder = sandbox.onnx_builder()
    (folder / "data.py").write_text(DATA_PY.replace("def samples():\n", f"def samples():\n{checkpoint}"))
    outcome = sandbox.build()["doubled"]
    assert outcome.status == "new", outcome.error


def test_a_second_build_says_who_holds_the_lock(sandbox: Sandbox) -> None:
    sandbox.onnx_builder()
    with locked(sandbox.root / ".modelwright/build.lock", "modelwright build", wait=False):
        error = sandbox.error()
    assert f"Error: build.lock is held by modelwright build (process {os.getpid()})" in error
    assert "--wait" in error
    assert sandbox.cli("build").exit_code == 0


def test_a_second_build_waits_if_asked(sandbox: Sandbox, tmp_path: Path) -> None:
    lock = tmp_path / "lock"
    order: list[str] = []

    def second() -> None:
        with locked(lock, "second", wait=True, say=order.append):
            order.append("second")

    with locked(lock, "first", wait=False):
        thread = threading.Thread(target=second)
        thread.start()
        wait_until(lambda: order, "the second's wait")
        order.append("first ends")
    thread.join()
    assert order == [f"first (process {os.getpid()})", "first ends", "second"]
    with locked(lock, "x", wait=False), pytest.raises(LockedError, match="held by x"), locked(lock, "y", wait=False):
        pass


@pytest.mark.parametrize("where", ["samples", "evaluate", "before_publish"])
def test_kill_9_in_a_step_leaves_the_repository_as_it_was(sandbox: Sandbox, where: str) -> None:
    folder = sandbox.onnx_builder()
    sandbox.build()
    before = sandbox.published()
    doubling_onnx(folder / "model.onnx", 2.001)
    pause = "    import pathlib, time\n    pathlib.Path('/proc/self/comm').read_text()\n    print('PAUSED', flush=True)\n    time.sleep(300)\n"
    if where != "before_publish":
        target = "def samples():\n" if where == "samples" else "def evaluate(infer):\n"
        (folder / "data.py").write_text(DATA_PY.replace(target, target + pause))
    process = subprocess.Popen(
        [sys.executable, "-m", "modelwright.cli.main", "--project", str(sandbox.root), "build"],
        stdout=subprocess.DEVNULL,
        stderr=subprocess.PIPE,
        text=True,
    )
    assert process.stderr is not None
    wanted = {"samples": "samples: ", "evaluate": "verify: ", "before_publish": "verify: done"}[where]
    for line in process.stderr:
        if wanted in line:
            break
    if where != "before_publish":
        logs = sandbox.root / ".modelwright/store/tmp"
        wait_until(lambda: any("PAUSED" in log.read_text() for log in logs.glob("*/log.txt")), "the pause")
    process.send_signal(signal.SIGKILL)
    process.wait()
    process.stderr.close()
    if where == "before_publish" and sandbox.published() != before:
        assert sandbox.repository.damage("doubled", 2) == []  # it was quicker than the kill, and then it is complete
        return
    assert sandbox.published() == before
    (folder / "data.py").write_text(DATA_PY)
    assert sandbox.build()["doubled"].status == "new"
    assert not list(sandbox.root.glob(".modelwright/store/tmp/*"))


def test_a_worker_that_dies_is_an_error_not_a_hang(sandbox: Sandbox) -> None:
    sandbox.workers = True
    kill = "    import os, signal\n    os.kill(os.getpid(), signal.SIGKILL)\n"
    folder = sandbox.onnx_builder("scaled")
    (folder / "data.py").write_text(DATA_PY.replace("def samples():\n", "def samples():\n" + kill))
    sandbox.onnx_builder()
    outcomes = sandbox.build()
    assert "its process died (signal SIGKILL)" in str(outcomes["scaled"].error)
    assert outcomes["doubled"].status == "new"


def test_a_damaged_artefact_is_not_published(sandbox: Sandbox) -> None:
    folder = sandbox.onnx_builder()
    sandbox.build()
    (folder / "model.yaml").write_text(ONNX_YAML.replace("min: 0.9", "min: 0.95"))
    doubling_onnx(folder / "model.onnx", 2.001)
    sandbox.build()
    key = next(entry.key for entry in sandbox.manifest("doubled", 2).lineage if entry.step == "onnx")
    subprocess.run(["rm", "-r", str(sandbox.root / "model_repository/doubled")], check=True)
    artefact = sandbox.root / ".modelwright/store" / key[:2] / key / "files/version/model.onnx"
    doubling_onnx(artefact, 5.0)
    assert "the files are not what the step made" in sandbox.error()
    assert sandbox.build()["doubled"].status == "new"  # it was dropped, and is built again
    assert sha256_file(artefact) == sandbox.manifest("doubled", 3).files["model.onnx"].sha256


def test_two_builders_with_the_same_content_share_their_steps(sandbox: Sandbox) -> None:
    sandbox.onnx_builder("first")
    sandbox.onnx_builder("second")
    recorder = Recorder()
    outcomes = sandbox.build(listener=recorder)
    assert sorted(name for _, name in recorder.ran) == ["onnx", "samples", "verify"]
    assert {outcome.status for outcome in outcomes.values()} == {"new"}


@pytest.mark.torch
def test_random_numbers_without_a_seed_still_give_the_same_model(sandbox_factory: Callable[[], Sandbox]) -> None:
    train = TRAIN_PY.replace("torch.tensor([scale])", "torch.rand(1)")
    digests = []
    for _ in range(2):
        sandbox = sandbox_factory()
        sandbox.torch_builder(train=train)
        sandbox.build()
        digests.append(sandbox.published()["scaled/1/model.onnx"])
    assert digests[0] == digests[1]


def test_a_builder_leaves_nothing_in_its_folder(sandbox: Sandbox) -> None:
    folder = sandbox.onnx_builder()
    sandbox.build()
    assert sorted(list_tree(folder)) == ["data.py", "model.onnx", "model.yaml"]


def test_naming_a_model_builds_it_alone(sandbox: Sandbox) -> None:
    sandbox.onnx_builder()
    sandbox.onnx_builder("other")
    assert list(sandbox.build("doubled")) == ["doubled"]
    assert "no builder makes a model named 'doubed'\n  hint: did you mean 'doubled'?" in sandbox.error(
        "build", "doubed"
    )


def with_weights(folder: Path, *, files: int = 1) -> None:
    """Move the weights of a builder's ONNX file into files of their own: w0, w1, …"""
    import onnx
    from onnx import helper, numpy_helper

    model = onnx.load(folder / "model.onnx")
    for number in range(1, files):
        model.graph.initializer.append(numpy_helper.from_array(np.ones(2, np.float32), f"more{number}"))
        model.graph.node.append(helper.make_node("Identity", [f"more{number}"], [f"unused{number}"]))
    for number, tensor in enumerate(model.graph.initializer):
        onnx.external_data_helper.set_external_data(tensor, f"w{number % files}")
    onnx.save(model, folder / "model.onnx")


def test_weights_that_the_graph_lists_are_published_and_need_no_declaration(sandbox: Sandbox) -> None:
    folder = sandbox.onnx_builder()
    with_weights(folder, files=3)
    assert sandbox.build()["doubled"].status == "new"
    assert {f"doubled/1/{name}" for name in ("model.onnx", "w0", "w1", "w2")} <= set(sandbox.published())
    assert (sandbox.root / "model_repository/doubled/1/w0").stat().st_nlink == 1
    assert "Nothing to do" in sandbox.cli("build").output
    (folder / "w1").write_bytes(b"\x00\x00\x80\x3f" * 2 + b" ")
    assert "w1 changed" in sandbox.cli("plan").output
    (folder / "w1").write_bytes(b"\x00\x00\x80\x3f")
    (folder / "w2").write_bytes(b"")
    assert "source.path: weights are incomplete: w1 has 4 bytes of 8, w2 is empty\n" in sandbox.error()


def test_declared_weights_give_the_same_key(sandbox: Sandbox) -> None:
    folder = sandbox.onnx_builder()
    with_weights(folder)
    sandbox.build()
    (folder / "model.yaml").write_text(ONNX_YAML + "files: [w0]\n")
    output = sandbox.cli("build").output
    assert "doubled samples: done" in output
    assert "doubled onnx" not in output


def test_all_weights_that_are_missing_or_pointers_are_named_at_once(sandbox: Sandbox) -> None:
    folder = sandbox.onnx_builder()
    with_weights(folder, files=3)
    (folder / "w0").unlink()
    (folder / "w2").unlink()
    assert "source.path: the graph keeps weights in 2 files that are not there: w0, w2" in sandbox.error()
    for name in ("w0", "w2"):
        (folder / name).write_text("version https://git-lfs.github.com/spec/v1\noid sha256:0\nsize 1\n")
    assert "source.path: weights: w0, w2: a Git LFS pointer, not the file\n  hint: git lfs pull" in sandbox.error()


def test_ctrl_c_stops_the_build_and_publishes_nothing(sandbox: Sandbox) -> None:
    pause = "    import time\n    time.sleep(300)\n"
    folder = sandbox.onnx_builder()
    (folder / "data.py").write_text(DATA_PY.replace("def samples():\n", "def samples():\n" + pause))
    command = [sys.executable, "-m", "modelwright.cli.main", "--project", str(sandbox.root), "build"]
    process = subprocess.Popen(
        command, stderr=subprocess.PIPE, text=True, start_new_session=True, preexec_fn=default_sigint
    )
    assert process.stderr is not None
    for line in process.stderr:
        if "samples: never built" in line:
            break
    os.killpg(process.pid, signal.SIGINT)
    rest = process.stderr.read()
    process.stderr.close()
    assert process.wait(timeout=120) == 130
    assert rest == "interrupted; nothing half done was published\n"
    assert sandbox.published() == {}


def test_what_is_edited_while_it_is_built_is_not_kept(sandbox: Sandbox) -> None:
    folder = sandbox.onnx_builder()
    edit = "    import pathlib\n    path = pathlib.Path(__file__)\n    path.write_text(path.read_text().replace('* 2', '* 2.0'))\n"
    (folder / "data.py").write_text(DATA_PY.replace("def samples():\n", "def samples():\n" + edit))
    error = sandbox.error()
    assert "builders/doubled/model.yaml: samples: data.py was changed while the step ran" in error
    assert "hint: its result would stand under the wrong key: build again" in error
    (folder / "data.py").write_text(DATA_PY)
    assert sandbox.build()["doubled"].status == "new"


@pytest.mark.server
def test_what_waits_for_a_failed_model_is_held_however_indirectly(sandbox: Sandbox) -> None:
    sandbox.onnx_builder(factor=3.0)  # fails its gate
    sandbox.python_builder()
    sandbox.ensemble_builder("inner")
    sandbox.ensemble_builder("outer", yaml=ENSEMBLE_YAML.replace("doubled", "inner"))
    outcomes = sandbox.build()
    assert {name: outcome.status for name, outcome in outcomes.items()} == {
        "doubled": "failed",
        "plus_one": "new",
        "inner": "held",
        "outer": "held",
    }
    (sandbox.root / "builders/doubled/model.onnx").write_bytes(b"")  # now what the ensembles need is not made at all
    assert {outcome.status for outcome in sandbox.build().values()} == {"failed", "held", "unchanged"}
    assert {name.partition("/")[0] for name in sandbox.published()} == {"plus_one"}


@pytest.mark.server
def test_an_ensemble_of_an_ensemble(sandbox: Sandbox) -> None:
    sandbox.onnx_builder()
    sandbox.python_builder()
    sandbox.ensemble_builder("inner")
    sandbox.ensemble_builder("outer", yaml=ENSEMBLE_YAML.replace("doubled", "inner"))
    assert {outcome.status for outcome in sandbox.build().values()} == {"new"}
    sandbox.onnx_builder(factor=2.001)
    outcomes = sandbox.build()
    assert {name: outcome.version for name, outcome in outcomes.items() if outcome.status == "new"} == {
        "doubled": 2, "inner": 2, "outer": 2}  # fmt: skip
    assert sandbox.cli("verify").exit_code == 0


@pytest.mark.torch
def test_a_hugging_face_directory_in_the_builders_folder(sandbox: Sandbox) -> None:
    """A real transformer, made small: its entry reads a declared file, and a change of its weights is noticed."""
    import torch
    from transformers import BertConfig, BertModel

    yaml = """
        source: {kind: huggingface, path: weights, entry: model:first_token, params: {scale: 2.0}}
        inputs: [{name: input_ids, dtype: INT64, shape: [length]}]
        outputs: [{name: state, dtype: FP32, shape: [8]}]
        samples: model:samples
        files: [note.txt]
        serving: {max_batch_size: 4}
        """
    code = """
        from pathlib import Path

        import numpy as np
        import torch


        class FirstToken(torch.nn.Module):
            def __init__(self, bert, scale):
                super().__init__()
                self.bert = bert
                self.scale = scale

            def forward(self, input_ids):
                return self.bert(input_ids=input_ids).last_hidden_state[:, 0] * self.scale


        def first_token(bert, scale):
            assert Path("note.txt").read_text() == "read me"
            return FirstToken(bert, scale).eval()


        def samples():
            return {"input_ids": np.arange(12, dtype=np.int64).reshape(3, 4)}
        """
    folder = sandbox.write("bert", model_yaml=yaml, model_py=code, note_txt="read me")
    size = {
        "hidden_size": 8,
        "num_hidden_layers": 1,
        "num_attention_heads": 2,
        "intermediate_size": 16,
        "vocab_size": 16,
    }
    torch.manual_seed(1)
    BertModel(BertConfig(**size)).save_pretrained(folder / "weights")
    outcome = sandbox.build()["bert"]
    assert outcome.status == "new", outcome.error
    assert "dims: [ -1 ]" in sandbox.config("bert")
    torch.manual_seed(2)
    BertModel(BertConfig(**size)).save_pretrained(folder / "weights")
    assert "run   bert onnx: weights changed" in sandbox.cli("plan").output
    (folder / "weights/model.safetensors").rename(folder / "weights/pytorch_model.bin")
    error = sandbox.error()
    assert "builders/bert/model.yaml: source" in error
    assert "safetensors" in error
