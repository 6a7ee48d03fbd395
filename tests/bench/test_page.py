"""The report of a bench: what it says, and that everything on it fits."""

from __future__ import annotations

import re

import pytest

from modelwright.bench.page import render
from modelwright.charts.scatter import ScatterPoint, ScatterTitles, scatter
from tests.bench.results import result, row, source
from tests.loadtest.browser import Browser, View

HOSTILE = '<script>alert("x")</script>' + "w" * 60
TITLES = ScatterTitles("Accuracy against speed", "times as fast", "accuracy", at=1.0)


def variants() -> list[object]:
    return [
        source(),
        row("digits", 0.5, 1000),
        row("digits_int8", 0.3, 1500, metrics={"accuracy": 0.985}, size_bytes=40_000),
        row("digits_trt", reason="not built: modelwright build digits_trt", version=None, size_bytes=None, metrics={}),
    ]


def test_the_page_says_which_is_fastest_and_what_was_not_measured() -> None:
    page = render([result(variants())])  # type: ignore[arg-type]
    assert "With 1 row a call, digits_int8 is fastest: 0.300 ms, 3.3" in page
    assert "digits_trt: not built: modelwright build digits_trt" in page
    assert "Accuracy against speed, 1 row a call" in page
    assert "A CPU (AVX2)" in page
    assert page.count("BUSY MACHINE") == 0


def test_a_busy_machine_is_said_first() -> None:
    page = render([result(variants(), notes=["other programs kept 1.2 cores busy meanwhile"])])  # type: ignore[arg-type]
    assert page.index("BUSY MACHINE") < page.index("other programs kept") < page.index("Calls in a process")


def test_several_benches_are_one_page() -> None:
    page = render([result(variants()), result([row("minilm", 2.0)], model="minilm")])  # type: ignore[arg-type]
    assert page.count('<section class="card">') == 2
    assert "2 models with their variants" in page


def test_without_a_metric_there_is_no_chart_of_it() -> None:
    rows = [row("m", 1.0, metrics={}), row("m_int8", 0.5, metrics={})]
    page = render([result(rows)])
    assert "Size against speed" in page
    assert page.count("<figure>") == 1


def test_text_of_a_result_is_never_markup() -> None:
    page = render([result([source(), row(HOSTILE, 0.5, metrics={HOSTILE: 0.5})], model=HOSTILE)])
    assert "<script" not in page


@pytest.mark.browser
@pytest.mark.parametrize("width", [360, 1200])
@pytest.mark.parametrize("name", ["plain", "hostile"])
def test_nothing_leaves_its_box(browser: Browser, width: int, name: str) -> None:
    rows = variants() if name == "plain" else [source(), row(HOSTILE, 0.5, 10)]
    measured = browser.measure(render([result(rows)]), View(width, dark=False))  # type: ignore[arg-type]
    assert measured["scroll_width"] <= measured["width"]
    assert (measured["outside"], measured["cut"], measured["touching"], measured["small"]) == ([], [], [], [])


# --- the chart --------------------------------------------------------------------------------------------------------


def point(x: float, y: float, series: int = 0) -> ScatterPoint:
    return ScatterPoint(f"p{series}", x, x * 0.9, x * 1.1, y, "title", series)


def test_right_is_more_and_up_is_more() -> None:
    figure = scatter(TITLES, [point(1.0, 0.98), point(3.0, 0.99), point(2.0, 0.97)])
    assert figure is not None
    places = [(float(x), float(y)) for x, y in re.findall(r'<circle cx="([\d.]+)" cy="([\d.]+)"', figure.svg)]
    (x0, y0), (x1, y1), (x2, y2) = places[:3]
    assert x0 < x2 < x1
    assert y1 < y0 < y2


def test_equal_values_and_no_values() -> None:
    assert scatter(TITLES, []) is None
    figure = scatter(TITLES, [point(1.0, 0.98), point(2.0, 0.98, 1)])
    assert figure is not None
    assert "nan" not in figure.svg


def test_a_mark_is_the_same_in_every_chart() -> None:
    figure = scatter(TITLES, [point(2.0, 0.98, series=3)])
    assert figure is not None
    assert 'class="l s3"' in figure.svg
    assert "m s3" in figure.svg
