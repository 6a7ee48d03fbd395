"""The JSON schema of model.yaml: what editors complete from, and underline."""

from __future__ import annotations

import contextlib
import importlib
import json
import re
from pathlib import Path
from typing import Any

import jsonschema
import pytest
import yaml
from click.testing import CliRunner
from hypothesis import HealthCheck, given, settings
from pydantic import ValidationError

from modelwright.cli.main import main
from modelwright.operations.schema import PLACE, editor_line, model_schema, put_into, schema_text
from modelwright.project.spec import ModelSpec, parse_spec
from modelwright.project.writer import serving_of
from modelwright.triton.model_config_pb2 import schema as model_config
from modelwright.variants.registry import LOOKUPS
from tests.config.modelconfigs import model_configs
from tests.conftest import ROOT, Sandbox

SCHEMA = model_schema()
VALIDATOR = jsonschema.Draft202012Validator(SCHEMA)
LINE = "# yaml-language-server: $schema=../../schemas/model.schema.json\n"

GOOD: dict[str, Any] = {
    "source": {"kind": "onnx", "path": "model.onnx"},
    "samples": "data:samples",
    "serving": {"max_batch_size": 8},
}
PREBUILT: dict[str, Any] = {
    "source": {"kind": "prebuilt", "versions": {"3": {"model.onnx": "0" * 64}}, "files": {"labels.txt": "a" * 64}},
    "serving": {"name": "m", "backend": "onnxruntime", "platform": "onnxruntime_onnx"},
}


def problems(document: Any) -> list[str]:
    """What the schema has against a document; keys are text, as a language server has them."""
    return [error.message for error in VALIDATOR.iter_errors(json.loads(json.dumps(document)))]


def test_the_committed_schema_is_current() -> None:
    hint = f"run: modelwright export-schema --output {PLACE}"
    assert (ROOT / PLACE).read_text(encoding="utf-8") == schema_text(), hint


def test_it_is_a_schema() -> None:
    jsonschema.Draft202012Validator.check_schema(SCHEMA)


@pytest.mark.parametrize("path", sorted(ROOT.glob("builders/*/model.yaml")), ids=lambda path: path.parent.name)
def test_a_shipped_builder_validates_and_names_the_schema(path: Path) -> None:
    text = path.read_text(encoding="utf-8")
    assert problems(yaml.safe_load(text)) == []
    assert text.startswith(LINE)


def yamls() -> dict[str, dict[str, Any]]:
    """Every model.yaml that stands in a test module as X_YAML and that the spec takes."""
    found = {}
    for module in ("tests.conftest", *(f"tests.{path.stem}" for path in sorted((ROOT / "tests").glob("test_*.py")))):
        if module == __name__:
            continue
        for name, value in vars(importlib.import_module(module)).items():
            if isinstance(value, str) and re.fullmatch(r"[A-Z_]*YAML", name):
                with contextlib.suppress(ValidationError):  # one has places to be filled in, one a fault
                    parse_spec({"name": "m", **yaml.safe_load(value)}, LOOKUPS)
                    found[f"{module} {name}"] = yaml.safe_load(value)
    return found


YAMLS = yamls()


@pytest.mark.parametrize("name", YAMLS)
def test_what_the_spec_takes_in_tests_validates(name: str) -> None:
    assert problems(YAMLS[name]) == []


def test_the_tests_have_yaml_of_most_kinds() -> None:
    assert {document["source"]["kind"] for document in YAMLS.values()} >= {"torch", "onnx", "python", "ensemble"}


ACCEPTED: dict[str, dict[str, Any]] = {
    "an onnx model": GOOD,
    "a prebuilt model": PREBUILT,
    "every way to write a dimension": GOOD | {"inputs": [{"name": "x", "dtype": "FP32", "shape": [1, -1, "length"]}]},
    "a metric of one's own": GOOD | {"evaluate": "data:e", "gates": {"accuracy": {"min": 0.9}, "tolerance": {"atol": 1}}},
    "a priority level": GOOD | {"serving": {"dynamic_batching": {"priority_queue_policy": {"1": {"max_queue_size": 2}}}}},
    "an environment": GOOD | {"serving": {"environments": {"gpu": {"instance_group": [{"kind": "KIND_GPU"}]}}}},
    "a field taken away": GOOD | {"serving": {"environments": {"cpu": {"dynamic_batching": None}}}},
    "objectives": GOOD | {"slo": {"p99_ms": 20, "throughput_min": 1000.5, "margins": {"p99": 0.2}, "concurrency": 32, "rate": 500}},
    "a 64-bit number": GOOD | {"serving": {"version_policy": {"specific": {"versions": [2**63 - 1]}}}},
}  # fmt: skip


@pytest.mark.parametrize("case", ACCEPTED)
def test_is_accepted(case: str) -> None:
    assert problems(ACCEPTED[case]) == []


REFUSED: dict[str, tuple[dict[str, Any], str]] = {
    "a misspelt field": (GOOD | {"sample": "data:samples"}, "'sample' was unexpected"),
    "a misspelt kind": (GOOD | {"source": {"kind": "onx"}}, "is not valid under any of the given schemas"),
    "a misspelt field of the source": (GOOD | {"source": {"kind": "onnx", "pth": "m"}}, "is not valid under any"),
    "a misspelt field of serving": (GOOD | {"serving": {"max_batchsize": 8}}, "'max_batchsize' was unexpected"),
    "a misspelt field further down": (GOOD | {"serving": {"dynamic_batching": {"delay": 1}}}, "is not valid under any"),
    "a misspelt field of an environment": (GOOD | {"serving": {"environments": {"gpu": {"instances": 1}}}}, "'instances' was unexpected"),
    "a misspelt data type": (GOOD | {"inputs": [{"name": "x", "dtype": "FLOAT", "shape": [1]}]}, "'FLOAT' is not one of"),
    "a misspelt value": (GOOD | {"serving": {"instance_group": [{"kind": "KIND_TPU"}]}}, "is not valid under any"),
    "a misspelt objective": (GOOD | {"slo": {"p99": 20}}, "is not valid under any"),
    "a dimension of 0": (GOOD | {"inputs": [{"name": "x", "dtype": "FP32", "shape": [0]}]}, "0 is not valid under any"),
    "no samples": ({key: value for key, value in GOOD.items() if key != "samples"}, "'samples' is a required property"),
    "no inputs": (GOOD | {"source": {"kind": "torch", "entry": "a:b"}}, "'inputs' is a required property"),
    "what follows from the source": (GOOD | {"serving": {"backend": "python"}}, "'backend' was unexpected"),
    "a number too large": (GOOD | {"serving": {"max_batch_size": 2**31}}, "is not valid under any"),
    "a version that is no number": (PREBUILT | {"source": {"kind": "prebuilt", "versions": {"v3": {}}}}, "is not valid under any"),
    "an entry that is none": (GOOD | {"samples": "data.py"}, "is not valid under any"),
}  # fmt: skip


@pytest.mark.parametrize("case", REFUSED)
def test_is_refused(case: str) -> None:
    document, message = REFUSED[case]
    assert any(message in problem for problem in problems(document)), problems(document)


@settings(max_examples=30, deadline=None, suppress_health_check=[HealthCheck.too_slow, HealthCheck.data_too_large])
@given(model_configs())
def test_any_config_that_adopt_writes_validates(config: Any) -> None:
    assert problems(PREBUILT | {"serving": serving_of(config)}) == []


def test_notes_are_about_fields_that_exist_and_every_section_has_one() -> None:
    notes = json.loads((ROOT / "modelwright/triton/data/field_notes.json").read_text(encoding="utf-8"))
    definitions = {"ModelSpec": SCHEMA, **SCHEMA["$defs"]}
    fields = {f"{name}.{field}" for name, item in definitions.items() for field in item.get("properties", {})}
    assert notes.keys() - fields == set()
    sections = {f"ModelConfig.{field.name}" for field in model_config().ModelConfig.DESCRIPTOR.fields}
    own = {f"ModelSpec.{field}" for field in ModelSpec.model_fields}
    assert (sections | own) - notes.keys() == set()


def test_a_field_carries_its_note_where_editors_look() -> None:
    note = SCHEMA["$defs"]["Serving"]["properties"]["max_batch_size"]["description"]
    assert "rows in one run" in note


def test_export_schema_writes_to_standard_output_or_a_file(tmp_path: Path) -> None:
    assert CliRunner().invoke(main, ["export-schema"]).output == schema_text()
    file = tmp_path / "deep" / "schema.json"
    assert CliRunner().invoke(main, ["export-schema", "--output", str(file)]).exit_code == 0
    assert file.read_text(encoding="utf-8") == schema_text()


def test_export_schema_says_where_it_cannot_write(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    result = CliRunner().invoke(main, ["export-schema", "--output", str(tmp_path / "file/schema.json")])
    assert result.exit_code == 1
    assert "schema.json: cannot be written" in result.output


# --- in a project -----------------------------------------------------------------------------------------------------


def test_new_writes_the_schema_into_the_project_and_its_builder_names_it(sandbox: Sandbox) -> None:
    assert sandbox.cli("new", "edges", "--kind", "onnx").exit_code == 0
    text = (sandbox.root / "builders/edges/model.yaml").read_text(encoding="utf-8")
    assert text.startswith(LINE)
    assert (sandbox.root / PLACE).read_text(encoding="utf-8") == schema_text()
    assert problems(yaml.safe_load(text)) == []


def test_an_older_schema_of_ours_is_replaced_and_a_file_of_others_is_not(sandbox: Sandbox) -> None:
    path = sandbox.root / PLACE
    path.parent.mkdir()
    path.write_text(schema_text().replace("FP32", "FP31"), encoding="utf-8")
    assert put_into(sandbox.project)
    assert path.read_text(encoding="utf-8") == schema_text()
    assert not put_into(sandbox.project)
    path.write_text("{}")
    assert not put_into(sandbox.project)
    assert path.read_text() == "{}"


def test_the_line_leads_to_the_schema_wherever_the_builders_are(sandbox: Sandbox) -> None:
    (sandbox.root / "modelwright.toml").write_text('triton = "26.07"\n[paths]\nbuilders = "src/models/all"\n')
    folder = sandbox.project.builders / "m"
    target = editor_line(sandbox.project, folder).partition("$schema=")[2].strip()
    assert (folder / target).resolve() == sandbox.root / PLACE
