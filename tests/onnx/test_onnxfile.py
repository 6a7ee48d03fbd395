from __future__ import annotations

import subprocess
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper

from modelwright.errors import StepError
from modelwright.onnx.canonical import canonicalise, load, rename_values, save_canonical
from modelwright.onnx.check import check_limits, check_shapes, read_signature
from modelwright.onnx.runtime import load_session, run_session, session_values
from modelwright.onnx.signature import Signature, Value, element_type
from modelwright.triton.arrays import numpy_dtype
from modelwright.triton.releases import release

FLOAT, STRING = TensorProto.FLOAT, TensorProto.STRING


def linear(weights: Any = None, **options: Any) -> onnx.ModelProto:
    """y = (x @ w) + b, rows of 4 to rows of 3."""
    weights = np.arange(12, dtype=np.float32).reshape(4, 3) if weights is None else weights
    graph = helper.make_graph(
        [
            helper.make_node("MatMul", ["x", "w"], ["product"], name=options.pop("node_name", "project")),
            helper.make_node("Add", ["product", "b"], ["y"]),
        ],
        "some graph",
        [helper.make_tensor_value_info("x", FLOAT, ["batch", 4])],
        [helper.make_tensor_value_info("y", FLOAT, ["batch", 3])],
        [numpy_helper.from_array(weights, "w"), numpy_helper.from_array(np.ones(3, np.float32), "b")],
    )
    return model_of(graph, **options)


def model_of(graph: onnx.GraphProto, opset: int = 17, ir_version: int = 9) -> onnx.ModelProto:
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", opset)], ir_version=ir_version)


def identity(dtype: int = FLOAT, shape: Any = ("batch", 2)) -> onnx.ModelProto:
    value = [helper.make_tensor_value_info(name, dtype, shape) for name in ("x", "y")]
    return model_of(helper.make_graph([helper.make_node("Identity", ["x"], ["y"])], "g", value[:1], value[1:]))


def saved(model: onnx.ModelProto, folder: Path, name: str = "model.onnx") -> Path:
    path = folder / name
    path.write_bytes(model.SerializeToString())
    return path


class TestReadSignature:
    def test_names_types_dims_and_versions(self, tmp_path: Path) -> None:
        assert read_signature(saved(linear(), tmp_path)) == Signature(
            inputs=(Value("x", "tensor", FLOAT, ("batch", 4)),),
            outputs=(Value("y", "tensor", FLOAT, ("batch", 3)),),
            opsets={"": 17},
            ir_version=9,
        )

    @pytest.mark.parametrize(
        ("shape", "dims"),
        [((), ()), ((None, 2), (-1, 2)), (("n", "m"), ("n", "m")), ((0, 2), (0, 2))],
        ids=["scalar", "unnamed", "named", "zero"],
    )
    def test_dims(self, tmp_path: Path, shape: Any, dims: Any) -> None:
        assert read_signature(saved(identity(shape=shape), tmp_path)).inputs[0].dims == dims

    def test_an_initializer_among_the_inputs_is_not_an_input(self, tmp_path: Path) -> None:
        model = linear()
        model.graph.input.add().CopyFrom(helper.make_tensor_value_info("w", FLOAT, [4, 3]))
        assert [tensor.name for tensor in read_signature(saved(model, tmp_path)).inputs] == ["x"]

    @pytest.mark.parametrize(
        ("content", "match"),
        [
            (b"", "not an ONNX model: it is empty"),
            (b"not a model at all", "not an ONNX model: it is text: 'not a model at all'"),
            (
                b"version https://git-lfs.github.com/spec/v1\noid",
                "it is a Git LFS pointer, not the file\n.*git lfs pull",
            ),
            (linear().SerializeToString()[:150], "not a whole ONNX model: .*cut short"),
            (linear().SerializeToString()[:2], "no ONNX graph"),
            (linear(ir_version=0).SerializeToString(), "no IR version"),
            (model_of(helper.make_graph([], "g", [], [])).SerializeToString(), "no outputs"),
        ],
        ids=["empty", "text", "pointer", "truncated", "truncated-between-fields", "no-ir-version", "no-outputs"],
    )
    def test_what_is_not_a_model(self, tmp_path: Path, content: bytes, match: str) -> None:
        path = tmp_path / "model.onnx"
        path.write_bytes(content)
        with pytest.raises(StepError, match=match):
            read_signature(path)

    def test_a_missing_file(self, tmp_path: Path) -> None:
        with pytest.raises(StepError, match="No such file"):
            read_signature(tmp_path / "none.onnx")

    @pytest.mark.parametrize(
        ("kind", "what", "hint"),
        [
            ("sequence", "a sequence", "join the parts in the model"),
            ("map", "a map", "the values of the map"),
            ("optional", "an optional value", "a tensor that is always there"),
            ("sparse_tensor", "a sparse tensor", "make it dense"),
        ],
    )
    def test_what_is_no_tensor_cannot_be_served(self, tmp_path: Path, kind: str, what: str, hint: str) -> None:
        tensor = helper.make_tensor_type_proto(FLOAT, [2])
        types = {
            "sequence": helper.make_sequence_type_proto(tensor),
            "map": helper.make_map_type_proto(TensorProto.INT64, tensor),
            "optional": helper.make_optional_type_proto(tensor),
            "sparse_tensor": helper.make_sparse_tensor_type_proto(FLOAT, [2]),
        }
        model = identity()
        model.graph.output[0].type.CopyFrom(types[kind])
        with pytest.raises(StepError, match=f"'y' is {what}, which Triton cannot serve") as error:
            read_signature(saved(model, tmp_path))
        assert hint in error.value.hint

    def test_an_input_that_is_no_tensor_is_told_what_to_take(self, tmp_path: Path) -> None:
        model = identity()
        tensor = helper.make_tensor_type_proto(FLOAT, [2])
        model.graph.input[0].type.CopyFrom(helper.make_sequence_type_proto(tensor))
        with pytest.raises(StepError, match="'x' is a sequence") as error:
            read_signature(saved(model, tmp_path))
        assert error.value.hint.startswith("take each part as an input")

    def test_a_zipmap_is_named_with_the_option_that_leaves_it_out(self, tmp_path: Path) -> None:
        """What the converters of scikit-learn, LightGBM and CatBoost write for a classifier."""
        values = helper.make_map_type_proto(TensorProto.INT64, helper.make_tensor_type_proto(FLOAT, []))
        output = helper.make_value_info("probabilities", helper.make_sequence_type_proto(values))
        node = helper.make_node("ZipMap", ["x"], ["probabilities"], domain="ai.onnx.ml", classlabels_int64s=[0, 1])
        model = model_of(
            helper.make_graph([node], "g", [helper.make_tensor_value_info("x", FLOAT, ["n", 2])], [output])
        )
        with pytest.raises(StepError, match="'probabilities' is a sequence") as error:
            read_signature(saved(model, tmp_path))
        assert "options={'zipmap': False}" in error.value.hint

    @pytest.mark.parametrize(
        ("number", "name"), [(14, "COMPLEX64"), (17, "FLOAT8E4M3FN"), (22, "INT4"), (99, "element type 99")]
    )
    def test_a_type_without_a_triton_name(self, tmp_path: Path, number: int, name: str) -> None:
        with pytest.raises(StepError, match=f"'x' is of {name}, which Triton cannot serve"):
            read_signature(saved(identity(number), tmp_path))

    def test_element_types_have_the_names_that_onnx_gives_them(self) -> None:
        numbers = TensorProto.DataType.items()
        assert {name: element_type(number) for name, number in numbers} == {name: name for name, _ in numbers}

    @pytest.mark.parametrize("name", ["25.02", "26.02"])
    def test_bfloat16_is_refused_for_a_release_that_does_not_take_it(self, tmp_path: Path, name: str) -> None:
        signature = read_signature(saved(identity(TensorProto.BFLOAT16), tmp_path))
        with pytest.raises(StepError, match=f"'x' is BFLOAT16, which Triton {name} does not serve .* is 26.03"):
            check_limits(signature, release(name))
        check_limits(signature, release("26.03"))

    def test_an_undeclared_shape(self, tmp_path: Path) -> None:
        with pytest.raises(StepError, match="'x' declares no shape"):
            read_signature(saved(identity(shape=None), tmp_path))

    def test_an_output_without_a_shape_gets_that_of_the_session(self, tmp_path: Path) -> None:
        model = identity(shape=("n", 2))
        model.graph.output[0].type.tensor_type.ClearField("shape")
        path = saved(model, tmp_path)
        declared = read_signature(path)
        assert declared.outputs[0].dims is None
        outputs = session_values(load_session(path))[1]
        assert outputs[0].dims == ("n", 2)
        check_shapes(declared, replace(declared, outputs=outputs), path.name)
        with pytest.raises(StepError, match="'y' has no shape, and onnxruntime infers none"):
            check_shapes(declared, replace(declared, outputs=(replace(outputs[0], dims=()),)), path.name)

    @pytest.mark.parametrize("location", ["../secrets", "/etc/passwd", ""], ids=["parent", "absolute", "none"])
    def test_external_weights_outside_the_folder(self, tmp_path: Path, location: str) -> None:
        model = linear()
        tensor = model.graph.initializer[0]
        tensor.ClearField("raw_data")
        tensor.data_location = TensorProto.EXTERNAL
        tensor.external_data.add(key="location", value=location)
        with pytest.raises(StepError, match="weights of 'w' lie outside its folder"):
            read_signature(saved(model, tmp_path))


class TestCheckLimits:
    def test_what_the_release_loads(self, tmp_path: Path) -> None:
        check_limits(read_signature(saved(linear(opset=19, ir_version=9), tmp_path)), release("23.10"))

    @pytest.mark.parametrize(
        ("opset", "ir_version", "match"),
        [
            (17, 10, r"IR version 10 is above 9, the limit of onnxruntime 1\.16\.0 in Triton 23\.10"),
            (20, 9, r"opset 20 is above 19, the limit of onnxruntime 1\.16\.0 in Triton 23\.10"),
        ],
        ids=["ir", "opset"],
    )
    def test_what_it_does_not_load(self, opset: int, ir_version: int, match: str) -> None:
        with pytest.raises(StepError, match=match):
            check_limits(Signature(opsets={"": opset}, ir_version=ir_version), release("23.10"))


class TestCanonical:
    def bytes_of(self, model: onnx.ModelProto, folder: Path) -> bytes:
        save_canonical(model, folder / "out.onnx")
        return (folder / "out.onnx").read_bytes()

    def noisy(self) -> onnx.ModelProto:
        model = linear()
        model.producer_name, model.producer_version, model.domain = "somebody", "9.9", "here"
        model.doc_string = model.graph.doc_string = model.graph.node[0].doc_string = "made on a Tuesday"
        model.graph.input[0].doc_string = model.graph.initializer[0].doc_string = "made on a Tuesday"
        model.graph.name = "main_graph_7"
        for holder in (model, model.graph, model.graph.node[0], model.graph.output[0], model.graph.initializer[0]):
            holder.metadata_props.add(key="stack_trace", value="/home/me/secret.py, line 3")
        weights = list(reversed(model.graph.initializer))
        del model.graph.initializer[:]
        model.graph.initializer.extend(weights)
        return model

    def test_noise_and_order_do_not_matter(self, tmp_path: Path) -> None:
        assert self.bytes_of(self.noisy(), tmp_path) == self.bytes_of(linear(), tmp_path)

    def test_weights_matter(self, tmp_path: Path) -> None:
        other = linear(np.zeros((4, 3), np.float32))
        assert self.bytes_of(other, tmp_path) != self.bytes_of(linear(), tmp_path)

    def test_it_is_a_fixed_point(self, tmp_path: Path) -> None:
        once = self.bytes_of(self.noisy(), tmp_path)
        assert self.bytes_of(load(tmp_path / "out.onnx"), tmp_path) == once

    def test_nothing_of_the_machine_is_left(self, tmp_path: Path) -> None:
        written = self.bytes_of(self.noisy(), tmp_path)
        assert not any(word in written for word in (b"secret", b"Tuesday", b"somebody", b"9.9", b"here"))

    def test_typed_and_raw_weights_are_the_same(self, tmp_path: Path) -> None:
        typed = linear()
        typed.graph.initializer[1].CopyFrom(helper.make_tensor("b", FLOAT, [3], [1.0, 1.0, 1.0]))
        assert not typed.graph.initializer[1].HasField("raw_data")
        assert self.bytes_of(typed, tmp_path) == self.bytes_of(linear(), tmp_path)

    def test_a_tensor_that_does_not_fit_its_shape(self) -> None:
        model = linear()
        model.graph.initializer[1].CopyFrom(helper.make_tensor("b", FLOAT, [3], [1.0, 1.0, 1.0]))
        model.graph.initializer[1].dims[0] = 7
        with pytest.raises(StepError, match="tensor 'b' does not fit its declared shape"):
            canonicalise(model)

    def test_names_the_author_gave_are_kept_and_others_filled_in(self) -> None:
        assert [node.name for node in canonicalise(linear()).graph.node] == ["project", "Add_0"]

    def test_repeated_node_names_become_unique(self) -> None:
        model = linear(node_name="Add_0")
        model.graph.node[1].name = "Add_0"
        names = [node.name for node in canonicalise(model).graph.node]
        assert names == ["Add_0", "Add_1"]

    def test_overridable_weights_are_no_inputs(self) -> None:
        model = linear()
        model.graph.input.add().CopyFrom(helper.make_tensor_value_info("w", FLOAT, [4, 3]))
        assert [value.name for value in canonicalise(model).graph.input] == ["x"]

    def test_graphs_inside_nodes_are_cleaned(self, tmp_path: Path) -> None:
        model = branching()
        model.graph.node[0].attribute[0].g.node[0].metadata_props.add(key="stack_trace", value="/secret")
        model.graph.node[0].attribute[0].g.name = "noise"
        assert self.bytes_of(model, tmp_path) == self.bytes_of(branching(), tmp_path)

    def test_another_process_writes_the_same(self, tmp_path: Path) -> None:
        source = saved(self.noisy(), tmp_path, "source.onnx")
        code = (
            "import sys; from pathlib import Path; from modelwright.onnx.canonical import load, save_canonical\n"
            "save_canonical(load(Path(sys.argv[1])), Path(sys.argv[2]))"
        )
        other = tmp_path / "other.onnx"
        subprocess.run([sys.executable, "-c", code, source, other], check=True, env={"PYTHONHASHSEED": "7"})
        assert other.read_bytes() == self.bytes_of(self.noisy(), tmp_path)


class TestExternalWeights:
    weights = np.random.default_rng(0).random((4, 300), dtype=np.float32)

    def wide(self) -> onnx.ModelProto:
        model = linear(self.weights)
        model.graph.initializer[1].CopyFrom(numpy_helper.from_array(np.ones(300, np.float32), "b"))
        model.graph.output[0].type.tensor_type.shape.dim[1].dim_value = 300
        return model

    def test_they_lie_beside_the_file_in_order_and_page_aligned(self, tmp_path: Path) -> None:
        path = tmp_path / "model.onnx"
        save_canonical(self.wide(), path, external_above_bytes=1000)
        assert read_signature(path).external == ("model.onnx.data",)
        data = (tmp_path / "model.onnx.data").read_bytes()
        assert data[:1200] == np.ones(300, np.float32).tobytes()
        assert data[4096:] == self.weights.tobytes()

    def test_the_result_is_that_of_one_file(self, tmp_path: Path) -> None:
        rows = {"x": np.ones((2, 4), np.float32)}
        results = []
        for name, limit in (("one.onnx", 10**9), ("two.onnx", 1000)):
            save_canonical(self.wide(), tmp_path / name, external_above_bytes=limit)
            results.append(run_session(load_session(tmp_path / name), rows)["y"])
        np.testing.assert_array_equal(results[0], results[1])

    def test_loading_and_saving_gives_the_same_files(self, tmp_path: Path) -> None:
        path = tmp_path / "model.onnx"
        contents = []
        for model in (self.wide(), None):
            save_canonical(model or load(path), path, external_above_bytes=1000)
            contents.append([file.read_bytes() for file in sorted(tmp_path.iterdir())])
        assert contents[0] == contents[1]

    def test_a_lost_data_file(self, tmp_path: Path) -> None:
        path = tmp_path / "model.onnx"
        save_canonical(self.wide(), path, external_above_bytes=1000)
        (tmp_path / "model.onnx.data").unlink()
        with pytest.raises(StepError, match="external weights cannot be read"):
            load(path)
        with pytest.raises(StepError, match="onnxruntime does not load it"):
            load_session(path)


def branching() -> onnx.ModelProto:
    """y = x + w where the flag is set, else x - w; both graphs read `w` of the outer one."""
    branches = [
        helper.make_graph(
            [helper.make_node(op, ["x", "w"], [name])], name, [], [helper.make_tensor_value_info(name, FLOAT, ["n"])]
        )
        for op, name in (("Add", "plus"), ("Sub", "minus"))
    ]
    node = helper.make_node("If", ["flag"], ["y"], then_branch=branches[0], else_branch=branches[1])
    inputs = [
        helper.make_tensor_value_info("flag", TensorProto.BOOL, []),
        helper.make_tensor_value_info("x", FLOAT, ["n"]),
    ]
    outputs = [helper.make_tensor_value_info("y", FLOAT, ["n"])]
    weights = [numpy_helper.from_array(np.ones(1, np.float32), "w")]
    return model_of(helper.make_graph([node], "g", inputs, outputs, weights))


class TestRenameValues:
    def run(self, model: onnx.ModelProto, folder: Path, **inputs: Any) -> Any:
        save_canonical(model, folder / "m.onnx")
        return run_session(load_session(folder / "m.onnx"), inputs)

    def test_an_inner_tensor_moves_out_of_the_way(self, tmp_path: Path) -> None:
        model, rows = linear(), np.ones((1, 4), np.float32)
        expected = self.run(linear(), tmp_path, x=rows)["y"]
        rename_values(model, {"y": "product"})
        np.testing.assert_array_equal(self.run(model, tmp_path, x=rows)["product"], expected)
        assert model.graph.node[0].output[0] == "product.1"

    def test_two_names_can_change_places(self, tmp_path: Path) -> None:
        model = linear()
        rename_values(model, {"x": "y", "y": "x"})
        assert list(self.run(model, tmp_path, y=np.ones((1, 4), np.float32))) == ["x"]

    def test_graphs_inside_nodes_follow(self, tmp_path: Path) -> None:
        model = branching()
        rename_values(model, {"x": "plus", "w": "weight"})
        result = self.run(model, tmp_path, flag=np.array(False), plus=np.array([3.0], np.float32))
        np.testing.assert_array_equal(result["y"], [2.0])


class TestRun:
    def test_numbers(self, tmp_path: Path) -> None:
        result = run_session(load_session(saved(linear(), tmp_path), threads=2), {"x": np.eye(4, dtype=np.float32)})
        np.testing.assert_array_equal(result["y"], np.arange(12).reshape(4, 3) + 1)

    def test_strings_are_bytes(self, tmp_path: Path) -> None:
        text = np.array([["é".encode(), b""]], dtype=object)
        result = run_session(load_session(saved(identity(STRING), tmp_path)), {"x": text})
        assert result["y"].tolist() == text.tolist()

    def test_bfloat16_goes_in_and_comes_out(self, tmp_path: Path) -> None:
        session = load_session(saved(identity(TensorProto.BFLOAT16), tmp_path))
        values = np.array([[1.5, -2.25]], numpy_dtype("BF16"))
        answer = run_session(session, {"x": values})["y"]
        assert (answer.dtype.name, answer.tolist()) == ("bfloat16", values.tolist())
        assert run_session(session, {"x": values[:0]})["y"].shape == (0, 2)

    def test_a_model_that_does_not_load_says_why_in_one_line(self, tmp_path: Path) -> None:
        model = linear()
        model.graph.node[1].op_type = "Addd"
        with pytest.raises(StepError, match=r"^model\.onnx: onnxruntime does not load it: .*Addd") as caught:
            load_session(saved(model, tmp_path))
        assert "\n" not in caught.value.message
        assert str(tmp_path) not in caught.value.message

    @pytest.mark.parametrize(
        ("node", "dtype", "hint"),
        [
            pytest.param(
                helper.make_node("Max", ["x", "x"], ["y"]),
                TensorProto.UINT16,
                "onnxruntime has no Max of opset 13 on the CPU for these element types: export with a later opset, or cast",
                id="no kernel",
            ),
            pytest.param(
                helper.make_node("StringNormalizer", ["x"], ["y"], case_change_action="LOWER", locale="xx_YY.UTF-8"),
                STRING,
                "containers have no locale xx_YY.UTF-8: set the attribute locale of StringNormalizer to C.UTF-8",
                id="no locale",
            ),
            pytest.param(
                helper.make_node("RNN", ["x", "x", "x"], ["y"], hidden_size=4, layout=1),
                FLOAT,
                "set the node's attribute layout to 0, with the sequence first",
                id="layout of batches",
            ),
            pytest.param(
                helper.make_node("Adagrad", ["x"] * 5, ["y"], domain="ai.onnx.preview.training"),
                FLOAT,
                "export the model for inference: a server does not train",
                id="training",
            ),
        ],
    )
    def test_a_model_that_does_not_load_says_what_to_do(
        self, tmp_path: Path, node: onnx.NodeProto, dtype: int, hint: str
    ) -> None:
        dims = ["a", "b", "c"] if node.op_type == "RNN" else ["n"]
        values = [helper.make_tensor_value_info(name, dtype, dims) for name in ("x", "y")]
        values[1].type.tensor_type.ClearField("shape")
        model = model_of(helper.make_graph([node], "g", values[:1], values[1:]))
        if node.domain:
            model.opset_import.append(helper.make_opsetid(node.domain, 1))
        with pytest.raises(StepError) as caught:
            load_session(saved(model, tmp_path))
        assert caught.value.hint.startswith(hint)

    def test_two_tensors_of_one_name(self, tmp_path: Path) -> None:
        model = linear()
        model.graph.node[0].output[0] = model.graph.node[1].input[0] = "y"
        with pytest.raises(StepError, match="two tensors share a name: rename the input or output"):
            load_session(saved(model, tmp_path))

    @pytest.mark.parametrize(
        ("inputs", "match"),
        [
            ({"x": np.zeros((2, 5), np.float32)}, r"fails on inputs x \[2, 5\]"),
            ({"x": np.zeros((2, 4), np.int64)}, "Unexpected input data type"),
            ({"q": np.zeros((2, 4), np.float32)}, "missing from input feed"),
        ],
        ids=["shape", "type", "name"],
    )
    def test_inputs_it_refuses(self, tmp_path: Path, inputs: Any, match: str) -> None:
        with pytest.raises(StepError, match=match):
            run_session(load_session(saved(linear(), tmp_path)), inputs)


def test_it_imports_no_framework() -> None:
    heavy = ("torch", "onnx", "onnxruntime", "numpy")
    code = f"import sys, modelwright.onnx.canonical, modelwright.onnx.check; print([name for name in {heavy} if name in sys.modules])"
    assert subprocess.run([sys.executable, "-c", code], capture_output=True, check=True).stdout.strip() == b"[]"
