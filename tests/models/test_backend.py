"""A sixtieth of the backend tests of the package onnx; `python -m benchmarks onnx_backend` runs them all."""

from __future__ import annotations

import pytest

from benchmarks.onnx_backend import measure
from benchmarks.options import Options

pytestmark = [pytest.mark.models, pytest.mark.server, pytest.mark.torch, pytest.mark.timeout(1800)]


def test_each_is_served_or_refused_with_a_known_reason() -> None:
    verdicts, reasons, *faults = measure(Options(quick=True))
    assert [section.markdown() for section in faults] == []
    tests, passes_alone, served, refused = (int(number) for number in verdicts.rows[-1][1:5])
    assert tests == served + refused
    assert 20 < served <= passes_alone
    assert refused == sum(int(row[1]) for row in reasons.rows)
