"""Adopting what exists: everything is carried over or named, and the repository is left as it was."""

from __future__ import annotations

import ctypes
import json
import os
import re
import shutil
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import yaml
from hypothesis import HealthCheck, example, given, settings

from modelwright.config.model_config import config_of, tensors_of
from modelwright.config.render import parse, plain_text, render, shipped_templates
from modelwright.digest import list_tree, sha256_file
from modelwright.errors import RepositoryError
from modelwright.kinds.prebuilt import PrebuiltSource
from modelwright.lint.examples import onnx_bytes
from modelwright.lint.rule import Onnx
from modelwright.operations.adopt import adopt
from modelwright.operations.schema import schema_text
from modelwright.project.reader import read_builder
from modelwright.triton.messages import differences
from modelwright.triton.model_config_pb2 import schema
from modelwright.variants.registry import LOOKUPS
from tests.config.modelconfigs import model_configs
from tests.conftest import PYTHON_MODEL_PY, Sandbox, doubling_onnx, new_sandbox
from tests.operations.foreign_repository import CHAIN, CLASSIFIER, COUNTER, PLUS, classifier, hand_made, state
from tests.repository.killing import in_child


@pytest.fixture
def existing(tmp_path: Path) -> Path:
    return hand_made(tmp_path / "existing")


def left(sandbox: Sandbox, root: Path, *names: str) -> dict[str, str]:
    """{"model: thing": why} of what adoption says that it does not carry over."""
    result = sandbox.cli("adopt", str(root), *names, "--json")
    return {f"{item['model']}: {item['thing']}": item["why"] for item in json.loads(result.output)["left"]}


# --- the round trip ---------------------------------------------------------------------------------------------------


def round_trip(config: Any, folder: Path, text: str | None = None) -> None:
    """Adopt a model with this config, and render the builder: the same message, field by field."""
    sandbox = new_sandbox(folder / "project")
    root = folder / "existing"
    (root / "m/1").mkdir(parents=True)
    (root / "m/config.pbtxt").write_text(text or plain_text(config), encoding="utf-8")
    report = adopt(sandbox.project, root)
    assert [item.status for item in report.models] == ["adopted"], report.left
    builder = sandbox.builders["m"]
    made = config_of(builder, tensors_of(builder))
    again = parse(render(made, builder.file, [shipped_templates()]), "config.pbtxt")
    assert list(differences(config, again)) == []


@settings(max_examples=40, deadline=None, suppress_health_check=list(HealthCheck))
@given(model_configs())
@example(schema().ModelConfig())
def test_any_config_is_rendered_as_it_was_after_adoption(config: Any) -> None:
    with tempfile.TemporaryDirectory() as folder:
        round_trip(parse(plain_text(config), "any"), Path(folder))


CONFIGS = {
    "an onnx model with labels and warm-up": CLASSIFIER,
    "a python model": PLUS,
    "a sequence model": COUNTER,
    "an ensemble": CHAIN,
    "nothing at all": "",
    "nothing but a comment": "# to be completed by the server",
    "initial states": """
        backend: "onnxruntime"
        sequence_batching { oldest { max_candidate_sequences: 4 } state [ { input_name: "s" output_name: "t"
          data_type: TYPE_FP32 dims: [ -1 ] initial_state { name: "zero" zero_data: false data_type: TYPE_FP32 dims: [ 1 ] }
        } ] }""",
    "empty messages": "dynamic_batching { } optimization { } response_cache { } version_policy { latest { } }",
    "numbers at their bounds": """
        max_batch_size: 2147483647 version_policy { specific { versions: [ 1, 9223372036854775807 ] } }
        dynamic_batching { default_queue_policy { default_timeout_microseconds: 18446744073709551615 } }
        sequence_batching { direct { minimum_slot_utilization: 3.4028235e38 } }""".replace("dynamic_batching { default_queue_policy { default_timeout_microseconds: 18446744073709551615 } }", ""),
    "floats": """sequence_batching { direct { minimum_slot_utilization: 0.1 } control_input [ { name: "a" control [
        { kind: CONTROL_SEQUENCE_START fp32_false_true: [ nan, inf ] }, { fp32_false_true: [ -inf, 1e-45 ] } ] } ] }""",
    "a negative batch size, which no server takes": "max_batch_size: -1",
    "words that YAML has other ideas of": """
        parameters { key: "yes" value { string_value: "no" } } parameters { key: "1e3" value { string_value: "0x1f" } }
        parameters { key: "~" value { string_value: ": #" } } parameters { key: "" value { string_value: "" } }
        parameters { key: "a\\nb" value { string_value: "{\\n  \\"json\\": true\\n}\\n" } }
        metric_tags { key: "<<" value: "*alias" }""",
}  # fmt: skip


@pytest.mark.parametrize("case", CONFIGS)
def test_a_config_is_rendered_as_it_was_after_adoption(case: str, tmp_path: Path) -> None:
    round_trip(parse(CONFIGS[case], case), tmp_path, CONFIGS[case])


def test_the_model_yaml_is_one_that_people_can_read(sandbox: Sandbox, existing: Path) -> None:
    adopt(sandbox.project, existing, ["classifier"])
    folder = sandbox.root / "builders/classifier"
    three, seven = (sha256_file(folder / f"{number}/model.onnx") for number in (3, 7))
    assert (folder / "model.yaml").read_text(encoding="utf-8") == (
        "# yaml-language-server: $schema=../../schemas/model.schema.json\n"
        "# Adopted: the files lie beside this one, and stay what their SHA-256 says. serving is the whole config.pbtxt.\n"
        "name: classifier\n"
        "source:\n"
        "  kind: prebuilt\n"
        "  versions:\n"
        f"    3: {{model.onnx: {three}}}\n"
        f"    7: {{model.onnx: {seven}}}\n"
        "  files:\n"
        f"    labels.txt: {sha256_file(folder / 'labels.txt')}\n"
        f"    warmup/x.bin: {sha256_file(folder / 'warmup/x.bin')}\n"
        "serving:\n"
        "  name: classifier\n"
        "  version_policy: {all: {}}\n"
        "  max_batch_size: 8\n"
        "  input: [{name: x, data_type: TYPE_FP32, dims: [2]}]\n"
        "  output: [{name: 'y', data_type: TYPE_FP32, dims: [2], label_filename: labels.txt}]\n"
        "  instance_group: [{count: 1, kind: KIND_CPU}]\n"
        "  dynamic_batching: {max_queue_delay_microseconds: 100}\n"
        "  model_warmup:\n"
        "    - name: w\n"
        "      batch_size: 1\n"
        "      inputs: {x: {data_type: TYPE_FP32, dims: [2], input_data_file: x.bin}}\n"
        "  backend: onnxruntime\n"
    )


# --- the repository is left as it was ---------------------------------------------------------------------------------


def test_nothing_in_the_repository_is_touched(sandbox: Sandbox, existing: Path) -> None:
    before = state(existing)
    assert sandbox.cli("adopt", str(existing)).exit_code == 0
    assert sandbox.cli("adopt", str(existing)).exit_code == 0
    assert state(existing) == before


def test_files_of_the_repository_are_opened_for_reading_only(sandbox: Sandbox, existing: Path) -> None:
    opened: list[tuple[str, int]] = []

    def run() -> None:
        import sys

        def hook(event: str, arguments: tuple[Any, ...]) -> None:
            if event == "open" and str(arguments[0]).startswith(str(existing)):
                opened.append((str(arguments[0]), int(arguments[2] or 0)))

        sys.addaudithook(hook)
        adopt(sandbox.project, existing)
        assert opened
        assert all(flags & (os.O_WRONLY | os.O_RDWR | os.O_CREAT) == 0 for _, flags in opened)

    assert in_child(run).done


def test_builders_are_not_written_into_the_repository(sandbox: Sandbox, existing: Path) -> None:
    with pytest.raises(RepositoryError, match="which adoption does not touch"):
        adopt(sandbox.project, existing, into=existing / "builders")
    assert not (existing / "builders").exists()


# --- what is carried over ---------------------------------------------------------------------------------------------


def test_every_file_lies_under_the_path_it_had(sandbox: Sandbox, existing: Path) -> None:
    assert sandbox.cli("adopt", str(existing)).exit_code == 0
    for folder in existing.iterdir():
        wanted = {name: sha256_file(path) for name, path in list_tree(folder).items() if name != "config.pbtxt"}
        found = {name: sha256_file(path) for name, path in list_tree(sandbox.root / "builders" / folder.name).items()}
        assert found.pop("model.yaml")
        assert found == wanted


def test_links_inside_the_repository_are_followed(sandbox: Sandbox, existing: Path) -> None:
    folder = existing / "plus"
    (folder / "2").symlink_to("1")
    (folder / "extra").mkdir()
    (folder / "extra/words.txt").symlink_to("../../classifier/labels.txt")
    (existing / "alias").symlink_to("plus")
    assert left(sandbox, existing) == {"classifier: comments in config.pbtxt": left_comments()}
    builders = sandbox.builders
    source = builders["plus"].spec.source
    assert isinstance(source, PrebuiltSource)
    assert list(source.versions) == [1, 2]
    assert (sandbox.root / "builders/plus/extra/words.txt").read_text() == "cat\ndog\n"
    assert not any(path.is_symlink() for path in (sandbox.root / "builders").rglob("*"))
    assert (sandbox.root / "builders/alias/2/model.py").is_file()


def left_comments() -> str:
    return "a ModelConfig has no place for them; write them into model.yaml"


def test_a_model_without_a_config_is_left_to_the_server(sandbox: Sandbox, existing: Path) -> None:
    (existing / "plus/config.pbtxt").unlink()
    assert left(sandbox, existing, "plus") == {
        "plus: config.pbtxt": "there is none: serving is empty, and the server completes it"
    }
    builder = sandbox.builders["plus"]
    assert builder.spec.serving == {}
    assert "the server completes the configuration" in (builder.folder / "model.yaml").read_text()


def test_the_models_that_are_named_are_adopted_and_no_other(sandbox: Sandbox, existing: Path) -> None:
    adopt(sandbox.project, existing, ["plus", "chain"])
    assert list(sandbox.builders) == ["chain", "plus"]


def test_into_another_folder(sandbox: Sandbox, existing: Path, tmp_path: Path) -> None:
    adopt(sandbox.project, existing, ["plus"], tmp_path / "elsewhere")
    assert read_builder(tmp_path / "elsewhere/plus", "x", LOOKUPS).name == "plus"
    assert list(sandbox.project.builders.iterdir()) == []


# --- what is not ------------------------------------------------------------------------------------------------------


def empty_version(name: str) -> Callable[[Path], None]:
    return lambda folder: (folder / name).mkdir()


def a_link(name: str, target: str) -> Callable[[Path], None]:
    return lambda folder: (folder / name).symlink_to(target)


def a_file(name: str, content: str = "") -> Callable[[Path], None]:
    def make(folder: Path) -> None:
        (folder / name).parent.mkdir(exist_ok=True)
        (folder / name).write_text(content)

    return make


def a_script(folder: Path) -> None:
    (folder / "start.sh").write_text("#!/bin/sh\n")
    (folder / "start.sh").chmod(0o755)


LEFT: dict[str, tuple[Callable[[Path], object], str, str]] = {
    "a temporary folder that counts as a version": (empty_version("5.tmp"), "5.tmp/", "no version, though a server takes it for version 5"),
    "an old version set aside": (empty_version("2-old"), "2-old/", "no version, though a server takes it for version 2"),
    "leading zeros": (empty_version("007"), "007/", "a server ignores versions with leading zeros"),
    "a version that begins with a zero": (empty_version("0x10"), "0x10/", "a server ignores versions with leading zeros"),
    "a negative version": (empty_version("-1"), "-1/", "takes it for version -1"),
    "a version with a sign": (empty_version("+3"), "+3/", "takes it for version 3 and fails to load it"),
    "a version beyond 64 bits": (empty_version("9223372036854775808"), "9223372036854775808/", "a server aborts over it"),
    "a hidden folder": (empty_version(".git"), ".git/", "hidden"),
    "a hidden file": (a_file(".DS_Store"), ".DS_Store", "hidden"),
    "Python's cache": (a_file("1/__pycache__/model.pyc"), "1/__pycache__/", "Python makes it again"),
    "a dangling link": (a_link("1/weights.bin", "nowhere"), "1/weights.bin", "a dangling link"),
    "a link in a circle": (a_link("1/self", "self"), "1/self", "a dangling link"),
    "a link that leads out": (a_link("1/passwords", "/etc/passwd"), "1/passwords", "leads out of the repository, to /etc/passwd"),
    "a link to a folder above": (a_link("1/up", "../1"), "1/up", "a link to a folder that it is in"),
    "a pipe": (lambda folder: os.mkfifo(folder / "1/pipe"), "1/pipe", "neither a file nor a folder"),
    "a name that is no text": (lambda folder: (folder / os.fsdecode(b"a\xff")).write_text(""), r"'a\udcff'", "cannot be written in model.yaml"),
    "a name with a line break": (a_file("a\nb"), r"'a\nb'", "cannot be written in model.yaml"),
    "a name that builders use": (a_file("model.yaml"), "model.yaml", "Modelwright reads a file of this name"),
    "a template of ours": (a_file("config.pbtxt.j2"), "config.pbtxt.j2", "Modelwright reads a file of this name"),
    "an executable": (a_script, "the executable bit of start.sh", "publishes files without it"),
}  # fmt: skip


@pytest.mark.parametrize("case", LEFT)
def test_what_is_left_behind_is_named(sandbox: Sandbox, existing: Path, case: str) -> None:
    make, thing, why = LEFT[case]
    make(existing / "plus")
    found = left(sandbox, existing, "plus")
    assert list(found) == [f"plus: {thing}"]
    assert why in found[f"plus: {thing}"]
    source = yaml.safe_load((sandbox.root / "builders/plus/model.yaml").read_text())["source"]
    assert list(source["versions"]) == [1]
    assert source["versions"][1].keys() == {"model.py"}


@pytest.mark.parametrize(
    ("make", "thing", "why"),
    [
        (a_file("README.md"), ": README.md", "no folder, so no model"),
        (a_file("modelwright.json"), ": modelwright.json", "the ledger of that repository"),
        (a_link("gone", "nowhere"), "gone: (the model)", "a dangling link"),
        (a_file(".git/config"), ".git: (the model)", "the folder is hidden, but a server would serve it as a model"),
        (a_file("my model/config.pbtxt"), "my model: (the model)", "use letters, digits"),
        (a_link("outside", "/usr"), "outside: (the model)", "a link that leads out of the repository"),
        (a_file("bare/config.pbtxt"), "bare: (the model)", "has no version directory"),
        (a_file("wrong/config.pbtxt", "name: 'wrong'\nmax_bach_size: 4"), "wrong: (the model)", "wrong/config.pbtxt: not a ModelConfig: 2:1: unknown field 'max_bach_size'"),
        (a_file("big/config.pbtxt", "#" * 1_000_001), "big: (the model)", "more than 1,000,000 bytes"),
        (lambda root: ((root / "odd").mkdir(), (root / "odd/config.pbtxt").write_bytes(b"\xff\0")), "odd: (the model)", "odd/config.pbtxt: not a ModelConfig: 1:1: unexpected character"),
    ],
    ids=["a file", "a ledger", "a dangling link", "hidden", "a bad name", "a link out", "no version", "a misspelt field", "a huge config", "a binary config"],
)  # fmt: skip
def test_what_is_no_model_is_named_and_the_others_go_on(
    sandbox: Sandbox, existing: Path, make: Callable[[Path], object], thing: str, why: str
) -> None:
    make(existing)
    found = left(sandbox, existing)
    assert why in found[thing]
    assert list(sandbox.builders) == ["chain", "classifier", "counter", "plus"]


@pytest.mark.parametrize("name", ["manifest.json", "golden.npz"])
def test_a_file_that_modelwright_would_overwrite_is_an_error_of_its_model(
    sandbox: Sandbox, existing: Path, name: str
) -> None:
    (existing / "plus/1" / name).write_text("{}")
    assert "Modelwright writes a file of this name itself" in left(sandbox, existing, "plus")["plus: (the model)"]
    assert not (sandbox.root / "builders/plus").exists()


def test_a_file_that_cannot_be_read_is_an_error_of_its_model(sandbox: Sandbox, existing: Path) -> None:
    (existing / "plus/1/model.py").chmod(0)

    def run() -> None:
        without_capabilities()
        report = adopt(sandbox.project, existing)
        why = next(item.why for item in report.left if item.model == "plus")
        assert why == "plus/1/model.py: cannot be read: Permission denied"

    assert in_child(run).done
    assert list(sandbox.builders) == ["chain", "classifier", "counter"]


def without_capabilities() -> None:
    """For root, whom no permission stops: this process gives up what makes it so."""
    version, size = 0x20080522, 24  # linux/capability.h
    header = (ctypes.c_uint32 * 2)(version, 0)
    ctypes.CDLL(None, use_errno=True).capset(header, (ctypes.c_char * size)())


def test_links_that_multiply_folders_end_in_an_error(sandbox: Sandbox, existing: Path) -> None:
    folder = existing / "plus/1"
    for level in range(14):
        (folder / f"d{level}").mkdir()
        for name in "ab":
            (folder / f"d{level}" / name).symlink_to(f"../d{level + 1}")
    (folder / "d14").mkdir()
    (folder / "d14/file").write_text("")
    assert "more than 10,000 files and folders" in left(sandbox, existing, "plus")["plus: (the model)"]


def test_comments_are_told_of_once(sandbox: Sandbox, existing: Path) -> None:
    for name in ("plus", "counter"):
        config = existing / name / "config.pbtxt"
        config.write_text(config.read_text() + "# a remark\n")
    config = existing / "chain/config.pbtxt"
    config.write_text(config.read_text() + 'parameters { key: "#" value { string_value: "no # comment" } }\n')
    assert left(sandbox, existing) == {"classifier, counter, plus: comments in config.pbtxt": left_comments()}


def test_the_output_has_the_builders_and_what_is_not_carried_over(sandbox: Sandbox, existing: Path) -> None:
    (existing / "plus/5.tmp").mkdir()
    (existing / "plus/1/model.py").write_text("x" * 1500)
    output = sandbox.cli("adopt", str(existing), "plus", "chain").output
    assert output == (
        "model           versions  files  size    builder\n"
        "plus   adopted  1         2      1.5 kB  builders/plus\n"
        "chain  adopted  1         0      0 B     builders/chain\n"
        "\n"
        "Not carried over:\n"
        "model  what    why\n"
        "plus   5.tmp/  no version, though a server takes it for version 5 and fails to load it\n"
        "\n"
        "Next: modelwright build --replay    publish them, and load them on a real server\n"
    )


def test_the_exit_code_is_1_when_nothing_was_adopted(sandbox: Sandbox, tmp_path: Path) -> None:
    root = tmp_path / "existing"
    (root / "m").mkdir(parents=True)
    result = sandbox.cli("adopt", str(root))
    assert result.exit_code == 1
    assert "Error: nothing was adopted" in result.output


@pytest.mark.parametrize(
    ("path", "names", "message"),
    [
        ("nowhere", (), "nowhere: there is no such folder"),
        ("existing/plus", (), "is one model, not a repository of models"),
        ("existing", ("pluss",), "pluss: is not in .*existing\n  hint: did you mean 'plus'?"),
    ],
    ids=["no folder", "a model", "an unknown name"],
)
def test_a_path_or_name_that_is_not_there(
    sandbox: Sandbox, existing: Path, path: str, names: tuple[str, ...], message: str
) -> None:
    assert re.search(message, sandbox.error("adopt", str(existing.parent / path), *names))


# --- builders that are there ------------------------------------------------------------------------------------------


def test_adopting_again_changes_nothing(sandbox: Sandbox, existing: Path) -> None:
    adopt(sandbox.project, existing)
    before = state(sandbox.root / "builders")
    assert {item.status for item in adopt(sandbox.project, existing).models} == {"unchanged"}
    # Its folder was opened for staging.
    after = state(sandbox.root / "builders")
    builders = str(sandbox.root / "builders")
    assert {**after, builders: before[builders]} == before


@pytest.mark.parametrize("what", ["model.yaml", "a file", "the repository", "another kind", "an empty folder", "a file in its place"])  # fmt: skip
def test_a_builder_that_is_there_is_never_overwritten(sandbox: Sandbox, existing: Path, what: str) -> None:
    folder = sandbox.root / "builders/plus"
    if what == "another kind":
        sandbox.python_builder("plus")
    elif what == "an empty folder":
        folder.mkdir()
    elif what == "a file in its place":
        folder.write_text("")
    else:
        adopt(sandbox.project, existing, ["plus"])
        changed = {"model.yaml": folder, "a file": folder / "1", "the repository": existing / "plus/1"}[what]
        with (changed / ("model.yaml" if what == "model.yaml" else "model.py")).open("a") as file:
            file.write("# mine\n")
    before = state(sandbox.root / "builders")
    result = sandbox.cli("adopt", str(existing), "plus", "chain")
    assert result.exit_code == 0
    assert "builders/plus exists, and differs from what adoption would write (nothing was overwritten" in result.output
    assert {path: found for path, found in state(sandbox.root / "builders").items() if "plus" in path} == {
        path: found for path, found in before.items() if "plus" in path
    }


def test_a_name_that_another_builder_makes_is_refused(sandbox: Sandbox, existing: Path) -> None:
    folder = sandbox.python_builder("mine")
    (folder / "model.yaml").write_text("name: plus\n" + (folder / "model.yaml").read_text())
    assert "the name is taken by builders/mine/model.yaml" in left(sandbox, existing, "plus")["plus: (the model)"]


def test_kill_9_at_any_file_operation_leaves_whole_builders(tmp_path: Path) -> None:
    root = tmp_path / "existing"
    classifier(root)
    schema_text()  # made once, not in every child

    def one_run(folder: Path, kill_at: int | None) -> tuple[Sandbox, int]:
        sandbox = new_sandbox(folder)
        ended = in_child(lambda: adopt(sandbox.project, root), kill_at=kill_at)
        return sandbox, -1 if ended.killed else ended.operations

    whole, operations = one_run(tmp_path / "whole", None)
    wanted = {name: sha256_file(path) for name, path in list_tree(whole.root / "builders").items()}
    assert operations >= 10
    before = state(root)
    for point in range(1, operations + 1):
        sandbox, killed = one_run(tmp_path / f"killed{point}", point)
        assert killed == -1
        for builder in sandbox.builders.values():
            for name, path in list_tree(builder.folder).items():
                assert sha256_file(path) == wanted[f"{builder.name}/{name}"], f"killed at {point} of {operations}"
        adopt(sandbox.project, root)
        found = {name: sha256_file(path) for name, path in list_tree(sandbox.root / "builders").items()}
        assert found == wanted
        shutil.rmtree(sandbox.root)
    assert state(root) == before


def test_a_file_is_copied_in_pieces(sandbox: Sandbox, tmp_path: Path) -> None:
    root = tmp_path / "existing"
    folder = classifier(root)
    with (folder / "3/table.bin").open("wb") as file:
        file.truncate(100_000_000)

    def run() -> None:
        import resource

        limit = 60_000_000 + int(Path("/proc/self/statm").read_text().split()[0]) * resource.getpagesize()
        resource.setrlimit(resource.RLIMIT_AS, (limit, limit))
        report = adopt(sandbox.project, root)
        assert report.models[0].status == "adopted", report.left

    assert in_child(run).done


# --- files that are not what they seem, and version 0 ------------------------------------------------------------------


POINTER = "version https://git-lfs.github.com/spec/v1\noid sha256:0\nsize 90387630\n"
PLAN = b"ftrt" + bytes(20) + bytes([11, 0, 0, 1]) + bytes(64)
ONNX_HEAD, PLAN_HEAD, TORCH_HEAD = (f'backend: "{name}"' for name in ("onnxruntime", "tensorrt", "pytorch"))
TENSORS = """
input [ { name: "x" data_type: TYPE_FP32 dims: [ 2 ] } ]
output [ { name: "y" data_type: TYPE_FP32 dims: [ 2 ] } ]
"""
UNUSABLE: dict[str, tuple[str, dict[str, str | bytes], str]] = {
    "ONNX a pointer": (ONNX_HEAD, {"1/model.onnx": POINTER}, "1/model.onnx: is a Git LFS pointer, not the file (git lfs pull"),
    "ONNX a web page": (ONNX_HEAD, {"1/model.onnx": "<html>"}, "1/model.onnx: it is a web page (HTML) (MW601)"),
    "ONNX cut short": (ONNX_HEAD, {"1/model.onnx": onnx_bytes(Onnx())[:40]}, "1/model.onnx: byte 40: cut short"),
    "a plan of an older TensorRT": (
        PLAN_HEAD,
        {"1/model.plan": PLAN.replace(b"\x0b", b"\x0a")},
        "1/model.plan: built with TensorRT 10.0.0.1; Triton 26.07 has 11.0.0 or later (MW801)",
    ),
    "a plan that is none": (PLAN_HEAD, {"1/model.plan": b"\x00" * 64}, "it is of an unknown format (MW803)"),
    "a plan that is empty": (PLAN_HEAD, {"1/model.plan": ""}, "1/model.plan: it is empty (MW803)"),
    "TorchScript a pickle": (TORCH_HEAD, {"1/model.pt": b"\x80\x04K\x01."}, "it is a Python pickle, not TorchScript (MW116)"),
    "labels a pointer": (
        ONNX_HEAD,
        {"1/model.onnx": onnx_bytes(Onnx()), "labels.txt": POINTER},
        "labels.txt: is a Git LFS pointer, not the file",
    ),
    "a pointer of an older version": (
        ONNX_HEAD,
        {"1/model.onnx": POINTER, "2/model.onnx": onnx_bytes(Onnx())},
        "1/model.onnx: is a Git LFS pointer, not the file",
    ),
    "a pointer deep in a version": (
        ONNX_HEAD,
        {"1/model.onnx": onnx_bytes(Onnx()), "1/a/b/c": POINTER},
        "1/a/b/c: is a Git LFS pointer, not the file",
    ),
}  # fmt: skip


def foreign(root: Path, head: str, files: dict[str, str | bytes]) -> None:
    for name, content in {"config.pbtxt": f"{head}\n{TENSORS}", **files}.items():
        path = root / "m" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(content if isinstance(content, bytes) else content.encode())


@pytest.mark.parametrize("case", UNUSABLE)
def test_a_file_that_is_not_what_it_seems_is_not_adopted(sandbox: Sandbox, tmp_path: Path, case: str) -> None:
    head, files, why = UNUSABLE[case]
    foreign(tmp_path / "existing", head, files)
    report = adopt(sandbox.project, tmp_path / "existing")
    assert [item.status for item in report.models] == ["failed"]
    assert why in report.left[-1].why
    assert not (sandbox.root / "builders/m").exists()


def test_a_plan_of_the_release_is_adopted(sandbox: Sandbox, tmp_path: Path) -> None:
    foreign(tmp_path / "existing", PLAN_HEAD, {"1/model.plan": PLAN})
    assert [item.status for item in adopt(sandbox.project, tmp_path / "existing").models] == ["adopted"]


def test_a_plan_that_the_project_vouches_for_is_adopted(sandbox: Sandbox, tmp_path: Path) -> None:
    foreign(tmp_path / "existing", PLAN_HEAD, {"1/model.plan": PLAN.replace(b"\x0b", b"\x0a")})
    with (sandbox.root / "modelwright.toml").open("a") as file:
        file.write('[[lint.ignore]]\nrule = "MW801"\nreason = "version compatible, and our servers take such plans"\n')
    assert [item.status for item in adopt(sandbox.project, tmp_path / "existing").models] == ["adopted"]


def test_version_0_is_adopted_and_published_as_the_server_has_it(sandbox: Sandbox, tmp_path: Path) -> None:
    foreign(tmp_path / "existing", 'backend: "python"', {"0/model.py": PYTHON_MODEL_PY})
    report = adopt(sandbox.project, tmp_path / "existing")
    assert [(item.status, item.versions) for item in report.models] == [("adopted", (0,))]
    sandbox.cli("build")
    assert (sandbox.root / "model_repository/m/0/model.py").read_text() == PYTHON_MODEL_PY
    assert "Nothing to do" in sandbox.cli("build").output


# --- repositories of our own ------------------------------------------------------------------------------------------


def test_versions_of_ours_bring_their_golden_samples_and_not_their_manifest(
    sandbox: Sandbox, sandbox_factory: Callable[[], Sandbox]
) -> None:
    sandbox.onnx_builder()
    sandbox.build()
    other = sandbox_factory()
    found = left(other, sandbox.project.repository)
    assert found.keys() == {
        ": modelwright.json", "doubled: manifest.json of each version", "doubled: comments in config.pbtxt",
    }  # fmt: skip
    source: Any = other.builders["doubled"].spec.source
    assert source.versions[1].keys() == {"model.onnx"}
    manifest = sandbox.manifest("doubled")
    assert source.golden[1].sha256 == manifest.files["golden.npz"].sha256
    comparison = manifest.verification.golden
    assert comparison is not None
    assert (source.golden[1].batch, source.golden[1].tolerance) == (comparison.batch, comparison.tolerance)


def test_samples_of_a_version_that_was_changed_since_stay_behind(
    sandbox: Sandbox, sandbox_factory: Callable[[], Sandbox]
) -> None:
    sandbox.onnx_builder()
    sandbox.build()
    doubling_onnx(sandbox.repository.folder("doubled", 1) / "model.onnx", 3.0)
    other = sandbox_factory()
    found = left(other, sandbox.project.repository)
    assert found["doubled: 1/golden.npz"] == "recorded for other files: model.onnx is not what the manifest says"
    assert not (other.root / "builders/doubled/1/golden.npz").exists()
