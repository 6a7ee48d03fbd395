"""A graph that answers the same and runs faster: clean-up and fusions by libraries, each measured."""

from __future__ import annotations

from typing import Any, Literal

from pydantic import Field

from modelwright.kinds.kind import Needs
from modelwright.kinds.registry import kind_of
from modelwright.kinds.step import Step, StepFunction
from modelwright.project.spec import StepOptions
from modelwright.variants.half import served_by_onnxruntime
from modelwright.variants.technique import Stage, Technique

_OPTIMISE = StepFunction("optimise", "modelwright.steps.optimise:run", revision=2)
Candidate = Literal["onnxslim", "onnxruntime", "transformers", "onnxscript"]
CANDIDATES: tuple[Candidate, ...] = ("onnxslim", "onnxruntime", "transformers", "onnxscript")
# Those for which onnxruntime.transformers has fusions.
Architecture = Literal[
    "bart", "bert", "bert_keras", "bert_tf", "clip", "conformer", "gpt2", "gpt2_tf", "gpt_neox", "phi", "swin", "t5",
    "tnlr", "unet", "vae", "vit",
]  # fmt: skip
# What Hugging Face calls model_type, where that is another word.
_LIKE_BERT = ("albert", "camembert", "deberta", "distilbert", "electra", "mpnet", "roberta", "xlm-roberta")
_ARCHITECTURES: dict[str, str] = {
    **dict.fromkeys(_LIKE_BERT, "bert"),
    **{name: name for name in ("bart", "bert", "clip", "gpt2", "gpt_neox", "phi", "swin", "t5", "vit")},
}
_HEADS = ("num_attention_heads", "n_heads", "n_head")
_HIDDEN = ("hidden_size", "dim", "n_embd", "d_model")


class OptimiseOptions(StepOptions):
    candidates: tuple[Candidate, ...] = Field(default=CANDIDATES, description="what is tried")
    choose: Candidate | None = Field(
        default=None, description="the candidate that is kept, without measuring: the same result on every machine"
    )
    level: Literal["basic", "extended"] = Field(
        default="extended", description="of onnxruntime's offline optimiser; its other levels fit one CPU only"
    )
    architecture: Architecture | None = Field(
        default=None, description="for the fusions of onnxruntime.transformers; by default config.json's model_type"
    )
    heads: int = Field(default=0, ge=0, description="attention heads; 0: found in config.json or the graph")
    hidden_size: int = Field(default=0, ge=0, description="width of the model; 0: found in config.json or the graph")
    batch: int | None = Field(default=None, ge=1, description="rows to measure with, beside one; by default 8 at most")
    margin: float = Field(default=0.05, ge=0, lt=1, description="the gain that is worth another graph: 0.05 is 5 %")
    operators: Literal["onnx", "onnxruntime"] | None = Field(
        default=None,
        description="onnx: standard operators only; onnxruntime: its own, too. By default what the backend takes",
    )


def _step(stage: Stage, options: OptimiseOptions) -> Step:
    stage.check_rows(options.batch or 1, "batch")
    found = _architecture(stage)
    given = {"architecture": options.architecture, "heads": options.heads, "hidden_size": options.hidden_size}
    config = {
        "model": {name: given[name] or found.get(name) for name in given},
        "own_operators": (options.operators or _operators(stage)) == "onnxruntime",
        "batch": options.batch or min(max(stage.recipe.builder.spec.max_batch_size, 1), 8),
        "limits": stage.recipe.target.onnxruntime,
    }
    return stage.step(
        _OPTIMISE,
        options,
        config=config,
        tools=("onnx", "onnxruntime", "onnxslim", "onnxscript", "onnx_ir"),
    )


def _operators(stage: Stage) -> str:
    """TensorRT knows the standard operators only, as a backend and inside onnxruntime."""
    optimization = stage.recipe.builder.spec.serving.get("optimization")
    accelerated = isinstance(optimization, dict) and "execution_accelerators" in optimization
    return "onnx" if accelerated or not served_by_onnxruntime(stage) else "onnxruntime"


def _architecture(stage: Stage) -> dict[str, Any]:
    """What the source says of its architecture: config.json of a Hugging Face directory."""
    builder = stage.recipe.builder
    said = kind_of(builder).declared_architecture(builder, builder.spec.source)
    if not said:
        return {}
    return {
        "architecture": _ARCHITECTURES.get(str(said.get("model_type"))),
        "heads": next((said[name] for name in _HEADS if isinstance(said.get(name), int)), 0),
        "hidden_size": next((said[name] for name in _HIDDEN if isinstance(said.get(name), int)), 0),
    }


TECHNIQUE = Technique(
    name="optimise",
    options=OptimiseOptions,
    summary="graph clean-up and fusions; the measured fastest, if it is faster",
    works_on="graph",
    step=_step,
    lossy=False,
    needs=(Needs("graph optimisers", ("onnxslim", "onnxscript"), "modelwright[variants]"),),
)
