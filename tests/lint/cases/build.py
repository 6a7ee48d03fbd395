"""Parts that cases are put together from: one good model, of which a case changes one thing."""

from __future__ import annotations

from tests.lint.trees import MODEL_PY, Content, Onnx, Tree

X = 'input [{ name: "x" data_type: TYPE_FP32 dims: [4] }]'
Y = 'output [{ name: "y" data_type: TYPE_FP32 dims: [4] }]'
PYTHON = 'backend: "python"'
ONNX = 'backend: "onnxruntime"'


def config(extra: str = "", *, batch: int = 4, head: str = PYTHON, inputs: str = X, outputs: str = Y) -> str:
    """A config.pbtxt. One instance, on the CPU: what a Python model gets when nothing is said."""
    return "\n".join([head, f"max_batch_size: {batch}", inputs, outputs, extra, ""])


def python(
    extra: str = "", *, name: str = "m", batch: int = 4, inputs: str = X, outputs: str = Y, **files: Content
) -> Tree:
    """A Python model. `files` are more of its files, by their path; "config.pbtxt" among them replaces the config."""
    text = config(extra, batch=batch, inputs=inputs, outputs=outputs)
    return {f"{name}/config.pbtxt": text, f"{name}/1/model.py": MODEL_PY} | _inside(name, files)


def onnx(
    model: Content | None = None,
    extra: str = "",
    *,
    name: str = "m",
    batch: int = 4,
    inputs: str = X,
    outputs: str = Y,
    **files: Content,
) -> Tree:
    """An onnxruntime model with one instance."""
    text = config(f"instance_group [{{ count: 1 }}]\n{extra}", batch=batch, head=ONNX, inputs=inputs, outputs=outputs)
    return {f"{name}/config.pbtxt": text, f"{name}/1/model.onnx": model or Onnx()} | _inside(name, files)


def text(whole: str | bytes, name: str = "m") -> Tree:
    """A Python model with this config.pbtxt and no other word."""
    return {f"{name}/config.pbtxt": whole, f"{name}/1/model.py": MODEL_PY}


def step(model: str, inputs: str, outputs: str, version: int | None = -1, more: str = "") -> str:
    """A step of an ensemble. The maps are written `"model's: ensemble's, …"`."""
    lines = [f'model_name: "{model}"']
    lines += [f"model_version: {version}"] if version is not None else []
    for field, pairs in (("input_map", inputs), ("output_map", outputs)):
        for pair in filter(None, pairs.split(",")):
            key, value = pair.split(":")
            lines.append(f'{field} {{ key: "{key.strip()}" value: "{value.strip()}" }}')
    return "step [{ " + " ".join(lines) + f" {more} }}]"


def ensemble(
    *steps: str,
    members: Tree | None = None,
    extra: str = "",
    batch: int = 4,
    inputs: str = X,
    outputs: str = Y,
    head: str = 'platform: "ensemble"',
) -> Tree:
    """The ensemble `e` after its members; two Python models `a` and `b`, x → y, where none are given."""
    scheduling = f"ensemble_scheduling {{ {' '.join(steps)} }}"
    text = config(f"{scheduling} {extra}", batch=batch, head=head, inputs=inputs, outputs=outputs)
    given = {**python(name="a"), **python(name="b")} if members is None else members
    return {**given, "e/config.pbtxt": text, "e/1/keep": ""}


def without(tree: Tree, *names: str) -> Tree:
    return {name: content for name, content in tree.items() if name not in names}


def _inside(model: str, files: dict[str, Content]) -> dict[str, Content]:
    return {f"{model}/{name}": content for name, content in files.items()}
