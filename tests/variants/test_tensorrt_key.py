"""What a plan is built from is in its key: change any of it, and the old plan is not used."""

from __future__ import annotations

import struct
from collections.abc import Callable, Iterator

import pytest

from modelwright.build import stamp
from modelwright.facts.plan import PlanOptions, PlanRequest
from modelwright.gpus import Gpu
from modelwright.variants.profiles import ProfileSpec, SizeRange
from modelwright.variants.techniques.tensorrt import TensorRtOptions
from tests.conftest import Sandbox, doubling_onnx
from tests.variants.plan_double import A100, L4, PlanBuilder, installed
from tests.variants.test_variants import with_variants

# Each option → a value that is not its default. A new option must be added here: see the test of completeness.
OPTIONS = {
    "profiles": "[{batch: {min: 1, opt: 4, max: 8}}]",
    "compute_capabilities": "['8.0']",
    "workspace_mb": "64",
    "builder_level": "2",
    "version_compatible": "true",
    "hardware_compatibility": "ampere_plus",
    "sparsity": "true",
    "tf32": "true",
}
# The parts of a profile, each changed alone.
PROFILES = {
    "batch.min": "{batch: {min: 2, opt: 4, max: 8}}",
    "batch.opt": "{batch: {min: 1, opt: 5, max: 8}}",
    "batch.max": "{batch: {min: 1, opt: 4, max: 7}}",
    "inputs": "{batch: {min: 1, opt: 4, max: 8}, inputs: {x: [2]}}",
    "one more": "{batch: {min: 1, opt: 4, max: 8}}, {batch: 2}",
}


@pytest.fixture
def builder() -> Iterator[PlanBuilder]:
    with installed(PlanBuilder(gpus=(L4, A100))) as double:
        yield double


def variant(options: str = "") -> str:
    return f"{{name: doubled_trt, steps: [{{tensorrt: {{{options}}}}}]}}"


def built(sandbox: Sandbox) -> None:
    outcome = sandbox.build("doubled_trt")["doubled_trt"]
    assert outcome.status in ("new", "unchanged"), outcome


def external_weights(sandbox: Sandbox, factor: float) -> None:
    """The same graph, byte for byte, whatever the factor is: that lies in a file beside it."""
    import onnx

    folder = sandbox.root / "builders" / "doubled"
    doubling_onnx(folder / "model.onnx", 2.0)
    model = onnx.load(str(folder / "model.onnx"))
    (folder / "weights.bin").unlink(missing_ok=True)
    onnx.save(model, str(folder / "model.onnx"), save_as_external_data=True, location="weights.bin", size_threshold=0)
    (folder / "weights.bin").write_bytes(struct.pack("<f", factor))


def another_graph(sandbox: Sandbox, builder: PlanBuilder) -> None:
    doubling_onnx(sandbox.root / "builders" / "doubled" / "model.onnx", 2.0, opset=19)


def another_weight(sandbox: Sandbox, builder: PlanBuilder) -> None:
    doubling_onnx(sandbox.root / "builders" / "doubled" / "model.onnx", 2.5)


def other_external_weights(sandbox: Sandbox, builder: PlanBuilder) -> None:
    external_weights(sandbox, 2.5)


def another_tensorrt(sandbox: Sandbox, builder: PlanBuilder) -> None:
    builder.tensorrt = "11.1.0.106"


def another_gpu(sandbox: Sandbox, builder: PlanBuilder) -> None:
    builder.gpus = (Gpu(0, "NVIDIA A10", "8.6"),)


def another_image(sandbox: Sandbox, builder: PlanBuilder) -> None:
    builder.image = "nvcr.io/nvidia/tensorrt@sha256:1"


def another_release(sandbox: Sandbox, builder: PlanBuilder) -> None:
    path = sandbox.root / "modelwright.toml"
    path.write_text(path.read_text().replace(sandbox.project.target.name, "26.08"))


def a_larger_batch(sandbox: Sandbox, builder: PlanBuilder) -> None:
    path = sandbox.root / "builders" / "doubled" / "model.yaml"
    path.write_text(path.read_text().replace("max_batch_size: 8", "max_batch_size: 9"))


Change = Callable[[Sandbox, PlanBuilder], None]
SURROUNDINGS: dict[str, Change] = {
    change.__name__: change
    for change in (
        another_graph,
        another_weight,
        other_external_weights,
        another_tensorrt,
        another_gpu,
        another_image,
        another_release,
        a_larger_batch,
    )
}


@pytest.mark.parametrize("change", SURROUNDINGS.values(), ids=SURROUNDINGS)
def test_another_input_makes_another_plan(sandbox: Sandbox, builder: PlanBuilder, change: Change) -> None:
    with_variants(sandbox, variant())
    if change is other_external_weights:
        external_weights(sandbox, 2.0)
    built(sandbox)
    built(sandbox)
    assert len(builder.requests) == 1
    change(sandbox, builder)
    built(sandbox)
    assert len(builder.requests) == 2
    if change is other_external_weights:
        first, second = builder.requests
        assert first.onnx == second.onnx
        assert first.weights != second.weights


@pytest.mark.parametrize("option", OPTIONS)
def test_another_option_makes_another_plan(sandbox: Sandbox, builder: PlanBuilder, option: str) -> None:
    with_variants(sandbox, variant())
    built(sandbox)
    with_variants(sandbox, variant(f"{option}: {OPTIONS[option]}"))
    built(sandbox)
    assert len(builder.requests) == 2


@pytest.mark.parametrize("part", PROFILES)
def test_another_profile_makes_another_plan(sandbox: Sandbox, builder: PlanBuilder, part: str) -> None:
    with_variants(sandbox, variant("profiles: [{batch: {min: 1, opt: 4, max: 8}}, {batch: 1}]"))
    built(sandbox)
    with_variants(sandbox, variant(f"profiles: [{PROFILES[part]}, {{batch: 1}}]"))
    built(sandbox)
    assert len(builder.requests) == 2


def test_another_gpu_is_noticed_after_a_build_that_had_nothing_to_do(
    sandbox: Sandbox, builder: PlanBuilder, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The command line answers such a build by timestamps, which a GPU has not."""
    monkeypatch.setattr(stamp, "_RACY_NS", -(10**12))  # a stamp is kept however young the files are
    with_variants(sandbox, variant())
    for _ in range(2):
        assert sandbox.cli("build", "doubled_trt").exit_code == 0
    builder.gpus = (Gpu(0, "NVIDIA A10", "8.6"),)
    assert sandbox.cli("build", "doubled_trt").exit_code == 0
    assert [request.compute_capability for request in builder.requests] == ["8.9", "8.6"]


def test_every_option_and_every_part_of_a_request_is_tried() -> None:
    """A new field of these must get a case above."""
    assert set(OPTIONS) == set(TensorRtOptions.model_fields)
    assert set(ProfileSpec.model_fields) == {"batch", "dims", "inputs"}
    assert set(SizeRange.model_fields) == {"min", "opt", "max"}
    # What a builder of plans is told, and which case above changes it.
    told = {
        "model": "it names messages, and is in no plan",
        "release": another_release,
        "tensorrt": another_tensorrt,
        "compute_capability": another_gpu,
        "onnx": another_graph,
        "weights": other_external_weights,
        "profiles": "profiles",
        "options": "the options below",
    }
    assert set(told) == set(PlanRequest.model_fields)
    options = {
        "workspace_bytes": "workspace_mb",
        **{name: name for name in PlanOptions.model_fields if name in OPTIONS},
    }
    assert set(options) == set(PlanOptions.model_fields)
    assert set(options.values()) <= set(OPTIONS)
