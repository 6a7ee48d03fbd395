"""charts/: where values are drawn, and that what is drawn fits. What a page looks like is test_report.py's."""

from __future__ import annotations

import re

import pytest

from modelwright.charts import axes
from modelwright.charts.bars import Bar, Histogram, histogram, stacked
from modelwright.charts.intervals import IntervalRow, IntervalTitles, Span, intervals
from modelwright.charts.lines import (
    Line,
    LineTitles,
    Quantiles,
    Slice,
    Spot,
    TimeTitles,
    over_time,
    quantile_curves,
    xy,
)
from modelwright.charts.svg import Drawing, fitted, tag, text_width

# --- lines ------------------------------------------------------------------------------------------------------------


def test_points_lie_where_their_values_are() -> None:
    spots = [Spot(0.0, 0.0, "a", ""), Spot(500.0, 5.0, "b", ""), Spot(1000.0, 10.0, "c", "")]
    figure = xy(LineTitles("t", "requests a second"), [Line("p50", spots, 0)])
    assert figure
    circles = re.findall(r'<circle cx="([\d.]+)" cy="([\d.]+)"', figure.svg)
    (x0, y0), (x1, y1), (x2, y2) = [(float(x), float(y)) for x, y in circles]
    assert x1 - x0 == pytest.approx(x2 - x1, abs=0.2)
    assert y0 - y1 == pytest.approx(y1 - y2, abs=0.2)
    assert x2 > x0
    assert y2 < y0


def test_a_chart_without_points_is_none() -> None:
    assert xy(LineTitles("t", "x"), [Line("a", [], 0)]) is None
    assert quantile_curves(LineTitles("t", "x"), [Quantiles("a", [(0.5, 1.0)])], ()) is None


def test_a_line_has_a_gap_where_a_value_is_not_known() -> None:
    titles = TimeTitles("t", ["a"], "ms", "nothing", "steps", "per s", "marked")
    values = [1.0, 2.0, None, 3.0, 4.0]
    slices = [Slice(float(place), 1.0, [value], 1.0, "") for place, value in enumerate(values)]
    figure = over_time(titles, slices)
    assert len(re.findall(r'<path d="[^"]*" class="l s0"', figure.svg)) == 2


# --- bars -------------------------------------------------------------------------------------------------------------


def test_parts_of_a_bar_are_as_wide_as_they_are_large() -> None:
    figure = stacked("t", [Bar("one", [1.0, 3.0]), Bar("two", [2.0, 2.0])], ["a", "b"], "ms")
    assert figure
    widths = [float(width) for width in re.findall(r'class="bar s\d" width="([\d.]+)"', figure.svg)]
    assert [width / widths[0] for width in widths] == pytest.approx([1, 3, 2, 2], abs=0.01)
    assert [key.text for key in figure.legend] == ["a", "b"]
    assert stacked("t", [], ["a"], "ms") is None


def test_sides_of_a_histogram_stand_beside_each_other() -> None:
    sides = {"old": {1: 0.5, 8: 0.5}, "new": {8: 1.0}}
    figure = histogram(Histogram("t", sides, "runs", "size", "size"))
    assert figure.svg.count('class="bar s0"') == figure.svg.count('class="bar s1"') == 2
    assert "size 8: 100 %, new" in figure.svg


# --- intervals --------------------------------------------------------------------------------------------------------


def test_an_interval_beyond_the_chart_ends_in_an_arrow() -> None:
    titles = IntervalTitles("t", "change", "", "", "")
    rows = [
        IntervalRow("g", name, "", Span(low, 0.5, high, ""), 0.05, False, "fail", "")
        for name, low, high in (("a", 0, 0.9), ("b", 0, 9))
    ]
    assert intervals(titles, rows[:1]).svg.count("iv fail open") == 0
    assert intervals(titles, rows).svg.count("iv fail open") == 1


# --- axes -------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("values", "labels"),
    [
        ([0.0, 9.7], ["0", "2", "4", "6", "8", "10"]),
        ([5012.0], ["0", "2,000", "4,000", "6,000"]),
        ([0.0023], ["0", "0.0005", "0.0010", "0.0015", "0.0020", "0.0025"]),
        ([0.0], ["0", "0.2", "0.4", "0.6", "0.8", "1.0"]),
        ([], ["0", "0.2", "0.4", "0.6", "0.8", "1.0"]),
        ([float("nan"), 1.0], ["0", "0.2", "0.4", "0.6", "0.8", "1.0"]),
        ([11.0], ["0.0", "2.5", "5.0", "7.5", "10.0", "12.5"]),
    ],
)
def test_ticks_are_round(values: list[float], labels: list[str]) -> None:
    made = [label for _, label in axes.linear(values, 0, 100).ticks]
    assert (
        made == [label if float(label) else "0" for label in (one.replace(",", "") for one in labels)] or made == labels
    )


def test_decades_are_equally_far_apart() -> None:
    axis = axes.logarithmic([0.1, 100.0], 0, 300)
    assert [label for _, label in axis.ticks] == ["0.1", "1", "10", "100"]
    assert [axis(value) for value in (0.1, 1, 10, 100)] == pytest.approx([0, 100, 200, 300])


def test_quantiles_are_on_a_scale_of_what_is_left() -> None:
    axis = axes.quantiles(0.9999, 0, 400)
    assert [label for _, label in axis.ticks] == ["50 %", "90 %", "99 %", "99.9 %", "99.99 %"]
    assert [axis(share) for share in (0.9, 0.99, 0.999, 0.9999)] == pytest.approx([100, 200, 300, 400])


def test_values_far_apart_get_a_logarithmic_axis() -> None:
    assert axes.linear_or_logarithmic([1.0, 19.0], 0, 1).low == 0
    assert axes.linear_or_logarithmic([1.0, 2000.0], 0, 1).low == 1


def test_a_label_leaves_out_what_has_no_room() -> None:
    drawing, area = Drawing(100, ""), (0.0, 0.0, 100.0, 100.0)
    placed = [drawing.label_near((50, 50), "1,000/s", area) for _ in range(8)]
    assert placed[0]
    assert not placed[-1]


def test_a_text_is_cut_to_its_room() -> None:
    assert fitted("short", 100) == "short"
    cut = fitted("a_long_name_" * 20, 100)
    assert cut.endswith("…")
    assert text_width(cut) <= 100
    assert fitted("a\x00\n\u202eb", 100) == "a   b"


def test_an_element_escapes_text_and_attributes() -> None:
    assert tag("text", "<b>&", class_='"x"') == '<text class="&#34;x&#34;">&lt;b&gt;&amp;</text>'
