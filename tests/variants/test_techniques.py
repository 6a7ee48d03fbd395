"""What holds for every technique."""

from __future__ import annotations

import subprocess
import sys

import pytest

from modelwright.project.spec import StepOptions
from modelwright.variants import registry
from modelwright.variants.technique import Technique

pytestmark = pytest.mark.usefixtures("toy_techniques")
TOYS = {"shift", "tidy", "stretch", "far"}
ALL = sorted({*registry.names(), *TOYS})


@pytest.mark.parametrize("name", ALL)
def test_a_technique_has_the_name_of_its_module(name: str) -> None:
    technique = registry.find(name)
    assert isinstance(technique, Technique)
    assert technique.name == name
    assert issubclass(technique.options, StepOptions)
    assert technique.summary
    assert not technique.summary.endswith(".")


def test_loading_every_technique_loads_no_framework() -> None:
    code = (
        "import sys; from modelwright.variants import registry\n"
        "for name in registry.names(): registry.find(name)\n"
        "heavy = {'torch', 'onnx', 'onnxruntime', 'tensorrt', 'polygraphy', 'numpy'} & set(sys.modules)\n"
        "assert not heavy, heavy"
    )
    subprocess.run([sys.executable, "-c", code], check=True)
