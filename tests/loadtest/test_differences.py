"""differences.py: two versions, line by line."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from modelwright.errors import RepositoryError
from modelwright.loadtest.gate.differences import differences
from tests.conftest import ONNX_YAML, Sandbox, doubling_onnx

CONFIG = """
name: "m"
max_batch_size: 8
dynamic_batching { max_queue_delay_microseconds: 200 }
instance_group [ { count: 2, kind: KIND_CPU } ]
"""


def lineage(step: str, **content: Any) -> dict[str, Any]:
    standard = {"step": step, "revision": 1, "config": {}, "code": {}, "data": {}, "tools": {}, "inputs": {}}
    return {"step": step, "key": "k", "output": "o", "seconds": 1.0, "payload": standard | content}


MANIFEST: dict[str, Any] = {
    "schema": 1,
    "model": "m",
    "version": 1,
    "description": "",
    "created": "2026-01-02T03:04:05+00:00",
    "payload": "a" * 64,
    "modelwright": "0.1.0",
    "target": {"triton": "26.07", "onnxruntime": "1.27.0", "python": "3.12"},
    "source": {"builder": "builders/m/model.yaml", "commit": "17ae910d8b5a4a7e", "dirty": False},
    "files": {"model.onnx": {"sha256": "0" * 64, "size_bytes": 234925}},
    "tensors": {"batched": True, "inputs": [{"name": "x", "dtype": "FP32", "dims": [2]}], "outputs": []},
    "made": {},
    "verification": {"max_abs_error": {"y": 0.0}, "compared_with": "its source", "samples": 4},
    "metrics": {"accuracy": 0.9916666666666667},
    "lineage": [
        lineage("samples", config={"entry": "data:samples"}, tools={"numpy": "2.4.6"}),
        lineage(
            "torch",
            config={"entry": "train:train", "params": {"epochs": 15, "lr": 0.005}},
            code={"train.py": "a", "data.py": "b"},
            data={"weights.bin": "c"},
            tools={"numpy": "2.4.6", "torch": "2.13.0"},
        ),
    ],
}


def model(
    root: Path, config: str | None = CONFIG, manifest: Any = MANIFEST, files: dict[str, bytes] | None = None
) -> Path:
    version = root / "1"
    version.mkdir(parents=True)
    if config is not None:
        (root / "config.pbtxt").write_text(config)
    if manifest is not None:
        (version / "manifest.json").write_text(json.dumps(manifest))
    for name, data in (files or {}).items():
        (version / name).parent.mkdir(exist_ok=True)
        (version / name).write_bytes(data)
    return root


def changed(change: Callable[[Any], Any]) -> Any:
    manifest = json.loads(json.dumps(MANIFEST))
    change(manifest)
    return manifest


def torch(manifest: Any) -> Any:
    return manifest["lineage"][1]["payload"]


CONFIGS: dict[str, tuple[str | None, list[str]]] = {
    "none": (CONFIG, []),
    "a number": (
        CONFIG.replace("200", "5000"),
        ["config: dynamic_batching.max_queue_delay_microseconds 200 → 5000"],
    ),
    "an instance": (CONFIG.replace("count: 2", "count: 1"), ["config: instance_group[0].count 2 → 1"]),
    "a message less": (
        CONFIG.replace("dynamic_batching { max_queue_delay_microseconds: 200 }", ""),
        ["config: dynamic_batching removed: { max_queue_delay_microseconds: 200 }"],
    ),
    "a message more": (
        CONFIG + "response_cache { enable: true }\n",
        ["config: response_cache added: { enable: true }"],
    ),
    "the same, written otherwise": (CONFIG.replace("{ count: 2, kind: KIND_CPU }", "{ kind: KIND_CPU count: 2 }"), []),
    "no file": (None, ["config: only the baseline has a config.pbtxt"]),
}


@pytest.mark.parametrize("case", CONFIGS)
def test_configs_field_by_field(tmp_path: Path, case: str) -> None:
    config, expected = CONFIGS[case]
    assert differences(model(tmp_path / "a"), 1, model(tmp_path / "b", config), 1) == expected


def test_a_config_that_does_not_parse_is_told(tmp_path: Path) -> None:
    found = differences(model(tmp_path / "a"), 1, model(tmp_path / "b", "nonsense: 1\n"), 1)
    assert len(found) == 1
    assert found[0].startswith(f"config: cannot be compared: {tmp_path}/b/config.pbtxt: not a ModelConfig: 1:1: ")


MANIFESTS: dict[str, tuple[Callable[[Any], Any], list[str]]] = {
    "a parameter": (
        lambda m: torch(m)["config"]["params"].update(epochs=30, depth=[2, 3]),
        ["torch: params.epochs 15 → 30", "torch: params.depth added: [2, 3]"],
    ),
    "a parameter less": (lambda m: torch(m)["config"]["params"].pop("lr"), ["torch: params.lr removed: 0.005"]),
    "code and data": (
        lambda m: torch(m).update(code={"train.py": "x", "new.py": "y"}, data={"weights.bin": "z"}),
        [
            "torch: code train.py changed",
            "torch: code data.py removed",
            "torch: code new.py added",
            "torch: data weights.bin changed",
        ],
    ),
    "a tool that two steps use": (
        lambda m: [step["payload"]["tools"].update(numpy="2.5.0") for step in m["lineage"]],
        ["tools: numpy 2.4.6 → 2.5.0"],
    ),
    "a revision": (lambda m: torch(m).update(revision=2), ["torch: revision 1 → 2"]),
    "a step more": (
        lambda m: m["lineage"].append(lineage("quantise")),
        ["quantise: a step of the candidate only"],
    ),
    "a step less": (lambda m: m["lineage"].pop(), ["torch: a step of the baseline only"]),
    "the commit": (
        lambda m: m["source"].update(commit="2b3c4d5e6f70819a", dirty=True),
        ["source: commit 17ae910d8b → 2b3c4d5e6f", "source: dirty false → true"],
    ),
    "a metric": (lambda m: m["metrics"].update(accuracy=0.9933), ["metrics: accuracy 0.991667 → 0.9933"]),
    "a tensor": (
        lambda m: m["tensors"]["inputs"][0].update(dims=[4]),
        ["tensors: inputs[0].dims [2] → [4]"],
    ),
    "the target": (lambda m: m["target"].update(triton="26.08"), ["target: triton 26.07 → 26.08"]),
    "Modelwright": (lambda m: m.update(modelwright="0.2.0"), ["tools: modelwright 0.1.0 → 0.2.0"]),
    "a larger file": (
        lambda m: m["files"]["model.onnx"].update(sha256="1" * 64, size_bytes=258113),
        ["files: model.onnx 234,925 → 258,113 bytes"],
    ),
    "another file of the same size": (
        lambda m: m["files"]["model.onnx"].update(sha256="1" * 64),
        ["files: model.onnx changed, 234,925 bytes as before"],
    ),
    "a file more": (
        lambda m: m["files"].update({"model.onnx.data": {"sha256": "2" * 64, "size_bytes": 1024}}),
        ["files: model.onnx.data added, 1,024 bytes"],
    ),
    "other golden samples": (
        lambda m: m["files"].update({"golden.npz": {"sha256": "2" * 64, "size_bytes": 1024}}),
        [],
    ),
}


@pytest.mark.parametrize("case", MANIFESTS)
def test_manifests_line_by_line(tmp_path: Path, case: str) -> None:
    change, expected = MANIFESTS[case]
    assert differences(model(tmp_path / "a"), 1, model(tmp_path / "b", manifest=changed(change)), 1) == expected


def test_many_differences_are_cut_short(tmp_path: Path) -> None:
    files = {f"{number}.py": {"sha256": "2" * 64, "size_bytes": 1} for number in range(1_000)}
    found = differences(
        model(tmp_path / "a"), 1, model(tmp_path / "b", manifest=changed(lambda m: m["files"].update(files))), 1
    )
    assert len(found) == 41
    assert found[-1] == "… and 960 more"


def test_versions_of_other_makers_are_compared_by_content(tmp_path: Path) -> None:
    files = {"model.onnx": b"one", "sub/weights": b"12", "golden.npz": b"x"}
    one = model(tmp_path / "a", manifest=None, files=files)
    other = model(tmp_path / "b", manifest=None, files={"model.onnx": b"two", "sub/weights": b"1234"})
    assert differences(one, 1, one, 1) == []
    assert differences(one, 1, other, 1) == [
        "files: model.onnx changed, 3 bytes as before",
        "files: sub/weights 2 → 4 bytes",
    ]


@pytest.mark.parametrize("theirs", [None, {"name": "of another tool"}, [1]])
def test_one_manifest_alone_says_so(tmp_path: Path, theirs: Any) -> None:
    one = model(tmp_path / "a", manifest=changed(lambda m: m.update(files={})))
    other = model(tmp_path / "b", manifest=theirs, files={"model.onnx": b"two"})
    assert differences(one, 1, other, 1) == [
        "manifest: only the baseline has one: how it was made is not compared",
        "files: model.onnx added, 3 bytes",
    ]


def test_a_damaged_manifest_is_an_error(tmp_path: Path) -> None:
    one = model(tmp_path / "a")
    (one / "1/manifest.json").write_text("{")
    with pytest.raises(RepositoryError, match=r"a/1/manifest.json: damaged: not JSON"):
        differences(one, 1, one, 1)


def test_a_version_that_is_not_there_is_an_error(tmp_path: Path) -> None:
    one = model(tmp_path / "a")
    with pytest.raises(RepositoryError, match=r"a/2: there is no such version"):
        differences(one, 1, one, 2)


def test_two_versions_that_were_built_here(sandbox: Sandbox) -> None:
    folder = sandbox.onnx_builder()
    sandbox.build()
    doubling_onnx(folder / "model.onnx", 2.001)
    (folder / "model.yaml").write_text(ONNX_YAML.replace("max_batch_size: 8", "max_batch_size: 16"))
    sandbox.build()
    published = sandbox.root / "model_repository/doubled"
    found = differences(published, 1, published, 2)
    assert "onnx: data model.onnx changed" in found
    assert any(line.startswith("files: model.onnx changed, ") for line in found)
    assert not any(line.startswith("config:") for line in found)  # both are served by the one config
