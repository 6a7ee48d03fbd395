from __future__ import annotations

import json
import re
import runpy
from typing import Any

import jsonschema
import pytest
from pydantic import TypeAdapter, ValidationError

from modelwright.loadtest import document as models
from modelwright.loadtest.document import Gate, Measurement, MetricVerdict, Result
from modelwright.loadtest.measure.latency import NEEDED
from tests.conftest import ROOT
from tests.loadtest import results

DOCUMENT = (ROOT / "docs/load-result.md").read_text(encoding="utf-8")
SCHEMA = json.loads((ROOT / "schemas/load-result.schema.json").read_text(encoding="utf-8"))


def example(model: str) -> dict[str, Any]:
    found = re.search(rf"<!-- {model}: checked .*?```json\n(.*?)```", DOCUMENT, re.DOTALL)
    assert found
    made: dict[str, Any] = json.loads(found[1])
    return made


@pytest.mark.parametrize("kind", results.EVERY)
def test_a_result_is_the_same_once_written_and_read(kind: str) -> None:
    made = results.EVERY[kind]()
    assert Result.model_validate_json(made.model_dump_json()) == made


@pytest.mark.parametrize("kind", results.EVERY)
def test_what_is_written_validates(kind: str) -> None:
    written = json.loads(results.EVERY[kind]().model_dump_json())
    problems = [error.message for error in jsonschema.Draft202012Validator(SCHEMA).iter_errors(written)]
    assert problems == []


def test_the_committed_schema_is_current() -> None:
    jsonschema.Draft202012Validator.check_schema(SCHEMA)
    made = runpy.run_path(str(ROOT / "scripts/load_schema.py"))["schema_text"]()
    assert (ROOT / "schemas/load-result.schema.json").read_text(encoding="utf-8") == made, "run: make docs"


def test_the_schema_says_what_the_parts_are() -> None:
    undescribed = [name for name, part in SCHEMA["$defs"].items() if "description" not in part]
    assert set(undescribed) <= {"MachineFacts", "Validity"}


def test_an_unknown_field_is_refused() -> None:
    written = json.loads(results.run().model_dump_json()) | {"schema": 1}
    with pytest.raises(ValidationError, match="Extra inputs are not permitted"):
        Result.model_validate(written)
    assert not jsonschema.Draft202012Validator(SCHEMA).is_valid(written)


def test_a_newer_document_is_refused() -> None:
    written = json.loads(results.run().model_dump_json()) | {"schema_version": models.SCHEMA + 1}
    with pytest.raises(ValidationError, match="schema_version"):
        Result.model_validate(written)


def test_the_documents_measurement_is_one() -> None:
    fragment = example("Measurement")
    for name, value in fragment.items():
        annotation: Any = Measurement.model_fields[name].annotation
        TypeAdapter(annotation).validate_python(value)
    count = fragment["response"]["count"]
    for name, value in fragment["response"]["percentiles_ms"].items():
        assert (value is None) == (count < NEEDED[name])


def test_the_documents_interval_is_one() -> None:
    made = MetricVerdict.model_validate(example("MetricVerdict"))
    interval = made.interval
    assert interval.low <= interval.ratio <= interval.high
    assert interval.candidate / interval.baseline == pytest.approx(interval.ratio, abs=1e-3)


@pytest.mark.parametrize(
    "model", [Result, Measurement, Gate, models.SloResult, models.OfferedLoad, models.Requests, models.Latency]
)
def test_the_document_names_every_field(model: type[Any]) -> None:
    missing = [name for name in model.model_fields if f"`{name}`" not in DOCUMENT and f"`{name} " not in DOCUMENT]
    assert missing == []


def test_the_document_says_how_many_requests_a_percentile_needs() -> None:
    row = " | ".join(f"{needed:,}" for needed in NEEDED.values())
    assert f"| requests needed | {row} |" in DOCUMENT
    assert f"| percentile | {' | '.join(NEEDED)} |" in DOCUMENT
