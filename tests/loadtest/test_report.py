"""The HTML report: what it says, what it draws, and that nothing in a result can break out of it."""

from __future__ import annotations

import re
from functools import cache
from html.parser import HTMLParser

import pytest

from modelwright.loadtest.document import Verdict
from modelwright.loadtest.report.forest import forest
from modelwright.loadtest.report.html import render
from tests.conftest import ROOT
from tests.loadtest import results
from tests.loadtest.browser import Browser, View

VOID = {"meta", "br"}
CSS = "".join(
    (ROOT / "modelwright" / name).read_text(encoding="utf-8")
    for name in ("charts/chart.css", "loadtest/report/report.css")
)


class Page(HTMLParser):
    """A page's tags, attributes and texts; fails on a tag that is not closed where it should be."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.tags: list[tuple[str, dict[str, str | None]]] = []
        self.texts: dict[str, list[str]] = {}
        self._open: list[str] = []
        self.feed(text)
        self.close()
        assert self._open == []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, dict(attrs)))
        if tag not in VOID:
            self._open.append(tag)

    def handle_endtag(self, tag: str) -> None:
        assert self._open.pop() == tag

    def handle_data(self, data: str) -> None:
        if self._open and data.strip():
            self.texts.setdefault(self._open[-1], []).append(data.strip())

    def words(self) -> str:
        return " ".join(text for name, texts in self.texts.items() if name not in ("style", "title") for text in texts)


@cache
def rendered(kind: str) -> str:
    return render(results.EVERY[kind]())


@cache
def read(kind: str) -> Page:
    return Page(rendered(kind))


# --- one file that needs nothing --------------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", results.EVERY)
def test_a_page_has_no_way_out(kind: str) -> None:
    names = {name for name, _ in read(kind).tags}
    assert names.isdisjoint({"script", "link", "img", "iframe", "object", "embed", "form", "a", "base", "image", "use"})
    attributes = {name for _, attributes in read(kind).tags for name in attributes}
    assert not {name for name in attributes if name.startswith("on") or name in ("src", "href", "style", "xlink:href")}


def test_the_style_loads_nothing() -> None:
    assert not re.search(r"@import|url\(|@font-face|expression", CSS)


def test_the_policy_forbids_everything_but_the_style() -> None:
    head = [attributes for name, attributes in read("run").tags if name == "meta"]
    policy = next(one["content"] for one in head if one.get("http-equiv") == "Content-Security-Policy")
    assert policy == "default-src 'none'; style-src 'unsafe-inline'; base-uri 'none'; form-action 'none'"


@pytest.mark.parametrize("kind", ["hostile", "ab hostile"])
def test_hostile_texts_are_shown_as_texts(kind: str) -> None:
    assert results.HOSTILE in read(kind).words()
    assert results.LONG in read(kind).words()


def test_the_same_result_gives_the_same_page() -> None:
    assert render(results.ab(2)) == render(results.ab(2))


def test_an_ab_run_of_twenty_rounds_and_eight_models_stays_small() -> None:
    gates = [results.gate(f"model {number}", "PASS", 0.003, 0.01) for number in range(8)]
    items = [item for one in gates for item in results.sides(one.model, 20)]
    page = render(results.result("ab", "8 models", items, gates=gates))
    assert len(items) == 960
    assert len(page) < 5_000_000
    assert page.count("<summary>") == 8 * (2 + 1 + 150 // 8)
    assert "<details open" not in page
    assert "102 more have no charts here" in page


# --- what it says -----------------------------------------------------------------------------------------------------

SAID = {
    "run": [
        "VALID",
        "digits version 3 over gRPC, 32 requests in flight.",
        "5,012 requests a second. Half of the requests took no longer than 5.93 ms, and 99 % no longer than 11.9 ms.",
        "client and server share 2 cores: each takes time from the other",
    ],
    "open run": [
        "INVALID",
        "digits version 3 over gRPC, 5,000 requests a second (poisson arrivals).",
        "42 (0.028 %) of the requests failed. 3 of 1,480 checked answers were wrong.",
        "Do not trust these numbers:",
        "send lag p99 is 1.9 ms, 16 % of the measured p99 (5 % is allowed): the client sent late",
        "not steady: p50 of the last 3 windows",
        "no answer within 1 s",
        "0.800 s before, in the warm-up",
    ],
    "sweep": ["7 measurements, all valid.", "digits version 3 over gRPC is fastest at 64 in flight: 5,619 req/s, p99 21.6 ms."],
    "slo": [
        "OBJECTIVE HOLDS",
        "digits version 3 over gRPC holds a p99 of at most 20 ms up to 4,000 requests a second.",
        "At 4,000 req/s:",
    ],
    "slo that fails": [
        "OBJECTIVE DOES NOT HOLD",
        "digits version 3 over gRPC did not hold a p99 of at most 20 ms, not even at the lowest rate that was tried.",
    ],
    "interrupted": ["INVALID", "No request was measured.", "It stopped early.", "32 in flight: 0 s of 30.0 s", "interrupted by Ctrl-C in the warm-up"],
    "all failed": ["No request succeeded: 4,096 requests failed (connect).", "127.0.0.1:8001: connection refused"],
    "few": ["Half of the requests took no longer than 301 ms; for a p99 there are too few: 99 succeeded, 662 are needed.", "n/a (needs 130)", "n/a (needs 6,636)"],
    "nothing": ["Nothing was measured.", "STOPPED EARLY", "no metadata"],
    "ab": [
        "3 models compared: 1 FAIL, 1 INCONCLUSIVE, 1 PASS.",
        "digits: version 4 against version 3 is worse than the margins allow. Cause: compute.",
        "sentences: version 4 against version 3 is undecided: the difference is too small for the noise.",
        "wine: version 4 against version 3 is not slower than the margins allow.",
        "Cause: compute.",
        "config: dynamic_batching.max_queue_delay_microseconds 200 → 2000",
        "Calibration A/A",
    ],
}  # fmt: skip


@pytest.mark.parametrize("kind", SAID)
def test_it_says(kind: str) -> None:
    text = " ".join(read(kind).words().split())
    assert [said for said in SAID[kind] if said not in text] == []


@pytest.mark.parametrize("verdict", ["PASS", "FAIL", "INCONCLUSIVE"])
def test_a_gates_verdict_is_the_badge_at_the_top(verdict: Verdict) -> None:
    page = render(results.result("ab", "digits", [], gates=[results.gate("digits", verdict, 0.1, 0.01)]))
    assert re.findall(r'<span class="badge \w+"><span aria-hidden="true">.</span> (\w+)</span>', page)[0] == verdict


def test_a_client_that_was_the_limit_is_named() -> None:
    made = results.slo()
    assert made.slo
    limited = made.model_copy(update={"slo": made.slo.model_copy(update={"limited_by": "client"})})
    assert "The client was the limit: the server may do more." in render(limited)


def test_the_command_can_be_pasted() -> None:
    assert "modelwright load run digits --concurrency 32 --output 'load reports/digits.json'" in read("run").words()


# --- what it draws ----------------------------------------------------------------------------------------------------

CHARTS = {
    "run": ["Latency and throughput over time", "Percentile curve", "Where a request's time goes", "Batch sizes"],
    "sweep": ["Throughput against latency", "Where a request's time goes"],
    "slo": ["Throughput against latency", "Where a request's time goes"],
    "interrupted": [],
    "all failed": ["Throughput over time"],
    "few": ["Throughput over time", "Percentile curve", "Where a request's time goes", "Batch sizes"],
    "nothing": [],
}


def charts(page: str) -> list[str]:
    """Titles of the charts that are not folded."""
    unfolded = re.sub(r"<details>.*</details>", "", page, flags=re.DOTALL)
    return [title.replace("&#39;", "'") for title in re.findall(r"<figure>\s*<h3>(.*?)</h3>", unfolded)]


@pytest.mark.parametrize("kind", CHARTS)
def test_a_chart_stands_only_where_there_is_data(kind: str) -> None:
    assert charts(rendered(kind)) == CHARTS[kind]


def test_a_gate_has_its_intervals_and_its_attribution() -> None:
    page = render(results.result("ab", "digits", [], gates=[results.gate("digits", "FAIL", 0.12, 0.01)]))
    where = "Where a request's time goes, saturation"
    assert charts(page) == ["Candidate against baseline", where, "Batch sizes, saturation"]


@pytest.mark.parametrize("kind", results.EVERY)
def test_every_chart_says_what_it_shows(kind: str) -> None:
    drawings = [attributes for name, attributes in read(kind).tags if name == "svg"]
    assert all(one.get("aria-hidden") == "true" or (one["role"] == "img" and one["aria-label"]) for one in drawings)


def test_no_number_of_a_drawing_is_missing() -> None:
    for kind in results.EVERY:
        page = re.sub(r"<title>.*?</title>", "", rendered(kind))
        assert not re.search(r'="[^"<>]*\b(?:nan|inf|None)\b[^"<>]*"', page)


def test_a_verdict_is_a_word_and_a_shape_in_the_chart() -> None:
    drawn = {verdict: forest(results.gate("m", verdict, 0.1, 0.01)) for verdict in ("PASS", "FAIL", "INCONCLUSIVE")}
    shapes = {}
    for verdict, figure in drawn.items():
        assert figure
        assert f" {verdict}</text>" in figure.svg
        shapes[verdict] = len(re.findall(r'<circle [^>]*class="m ', figure.svg)), figure.svg.count('class="cross"')
    assert shapes == {"PASS": (7, 0), "FAIL": (0, 7), "INCONCLUSIVE": (0, 0)}


def test_the_margin_is_shaded_on_the_worse_side() -> None:
    figure = forest(results.gate("m", "PASS", 0.0, 0.01))
    assert figure
    worse = re.findall(r'<rect x="([\d.]+)" y="[\d.]+" class="worse" width="([\d.]+)"', figure.svg)
    throughput, p50 = [(float(left), float(width)) for left, width in worse][:2]
    assert throughput[0] + throughput[1] < p50[0]


# --- colours ----------------------------------------------------------------------------------------------------------


def palettes() -> list[dict[str, str]]:
    """Light, dark and print."""
    return [dict(re.findall(r"--(\w+): (#\w{6})", block)) for block in re.findall(r":root \{(.*?)\}", CSS, re.DOTALL)]


def contrast(one: str, other: str) -> float:
    """WCAG 2's ratio, 1 to 21."""

    def luminance(colour: str) -> float:
        parts = [int(colour[place : place + 2], 16) / 255 for place in (1, 3, 5)]
        red, green, blue = (part / 12.92 if part <= 0.04045 else ((part + 0.055) / 1.055) ** 2.4 for part in parts)
        return 0.2126 * red + 0.7152 * green + 0.0722 * blue

    high, low = sorted((luminance(one), luminance(other)), reverse=True)
    return (high + 0.05) / (low + 0.05)


TEXTS = [
    ("text", "page"), ("text", "panel"), ("muted", "page"), ("muted", "panel"), ("good", "goodbg"), ("bad", "badbg"),
    ("unsure", "unsurebg"), ("good", "page"), ("bad", "page"), ("unsure", "page"), *(("on", f"s{number}") for number in range(6)),
]  # fmt: skip
SHAPES = [*((f"s{number}", "page") for number in range(6)), ("bad", "worse"), ("good", "margin"), ("unsure", "margin")]


@pytest.mark.parametrize("palette", range(3), ids=["light", "dark", "print"])
def test_texts_and_shapes_stand_out(palette: int) -> None:
    colours = palettes()[palette]
    assert [pair for pair in TEXTS if contrast(colours[pair[0]], colours[pair[1]]) < 4.5] == []
    assert [pair for pair in SHAPES if contrast(colours[pair[0]], colours[pair[1]]) < 3] == []


# --- in a browser -----------------------------------------------------------------------------------------------------

in_browser = pytest.mark.xdist_group("browser")  # and not with all tests that use the Triton server
PHONE, DESKTOP = View(360, dark=False), View(1280, dark=True)


@in_browser
@pytest.mark.parametrize("view", [PHONE, DESKTOP], ids=str)
@pytest.mark.parametrize("kind", results.EVERY)
def test_nothing_leaves_its_box(kind: str, view: View, browser: Browser) -> None:
    page = rendered(kind)
    seen = browser.measure(page, view)
    assert (seen["width"], seen["dark"]) == (view.width, view.dark)
    assert seen["scroll_width"] == view.width
    assert seen["figures"] == page.count("<figure>")
    assert {name: seen[name] for name in ("outside", "cut", "touching", "small")} == {
        "outside": [], "cut": [], "touching": [], "small": [],
    }  # fmt: skip


@in_browser
def test_the_browser_sees_what_leaves_its_box(browser: Browser) -> None:
    """A page made wrong on purpose."""
    text = '<text x="{}" y="50" font-size="{}">words</text>'
    drawing = (
        f'<svg viewBox="0 0 360 100" width="340">{text.format(0, 12)}{text.format(9, 12)}{text.format(350, 12)}</svg>'
    )
    small = f'<svg viewBox="0 0 360 100" width="340">{text.format(0, 6)}</svg>'
    page = f"<figure style='margin:0'>{drawing}</figure><figure>{small}</figure><p style='width:50px'>{'x' * 400}</p>"
    seen = browser.measure(page + "<div style='width:700px'>wide</div>", PHONE)
    assert seen["scroll_width"] > 360
    assert all(seen[name] for name in ("outside", "cut", "touching", "small"))


@in_browser
def test_a_page_follows_the_readers_light_or_dark(browser: Browser) -> None:
    page = render(results.run())
    light, dark = (browser.measure(page, View(360, dark))["background"] for dark in (False, True))
    assert (light, dark) == ("rgb(255, 255, 255)", "rgb(20, 23, 27)")


@in_browser
@pytest.mark.parametrize("width", [360, 1280])
def test_a_screenshot_shows_a_page(width: int, browser: Browser) -> None:
    """Not blank, and light and dark differ. Looking at it is for a person."""
    page, empty = render(results.open_run()), "<!DOCTYPE html>"
    pictures: list[bytes] = []
    for shown, dark in ((page, False), (page, True), (empty, False)):
        pictures.append(browser.screenshot(shown, View(width, dark), 1200))
        assert pictures[-1].startswith(b"\x89PNG")
        assert int.from_bytes(pictures[-1][16:20], "big") == width
    light, dark_one, blank = pictures
    assert light != dark_one
    assert min(len(light), len(dark_one)) > 5 * len(blank)
