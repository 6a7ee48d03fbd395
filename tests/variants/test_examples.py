"""The examples of the documentation are model.yaml's that the schema takes, and that can be planned."""

from __future__ import annotations

import json
import re
from typing import Any

import jsonschema
import pytest
import yaml

from tests.conftest import ROOT, Sandbox

BUILDER = """
source: {kind: torch, entry: "train:train"}
inputs: [{name: x, dtype: FP32, shape: [%s]}]
outputs: [{name: y, dtype: FP32, shape: [2]}]
samples: data:samples
evaluate: data:evaluate
serving: {max_batch_size: 32}
"""
SCHEMA = json.loads((ROOT / "schemas/model.schema.json").read_text())
BLOCK = re.compile(r"^```yaml\n(.*?)^```", re.MULTILINE | re.DOTALL)


def models(document: str) -> list[dict[str, Any]]:
    """Each example of a document about models, as a model.yaml; a list of variants as one for each."""
    found = []
    for text in BLOCK.findall((ROOT / "docs" / document).read_text()):
        example = yaml.safe_load(text.replace("…\n", ""))
        if isinstance(example, list):
            example = {"variants": example}
        elif set(example) == {"gates"}:
            example = {"variants": [{"name": "gated", "steps": ["optimise"], **example}]}
        for variant in example.get("variants", ()):
            size = "sequence" if "sequence" in str(variant) else 2
            found.append({**yaml.safe_load(BUILDER % size), **example, "variants": [variant]})
    return found


@pytest.mark.parametrize(("document", "least"), [("variants.md", 12), ("tensorrt.md", 3)])
def test_the_examples_of_the_documentation_can_be_planned(sandbox: Sandbox, document: str, least: int) -> None:
    examples = models(document)
    assert len(examples) >= least
    for number, example in enumerate(examples):
        jsonschema.Draft202012Validator(SCHEMA).validate(example)
        text = yaml.safe_dump(example)
        files: dict[str, str] = {}
        for module, function in re.findall(r"\b([a-z]\w*):([a-z]\w*)\b", text):
            name = f"{module}_py"
            files[name] = files.get(name, "") + f"def {function}(*given, **params): ...\n"
        sandbox.write("example", model_yaml=text, **files)
        result = sandbox.cli("plan", "--all")
        assert result.exit_code == 0, f"{document}, example {number}: {result.output}"
        for variant in example["variants"]:
            assert re.search(rf" {variant['name']}[ :]", result.output)
