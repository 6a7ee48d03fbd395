"""compare.py: two documents side by side, with what makes them hard to compare."""

from __future__ import annotations

from typing import Any

import pytest

from modelwright.loadtest.document import MachineFacts, Measurement, Result
from modelwright.loadtest.gate.compare import compare, text
from tests.loadtest.synthetic import Facts, measurement


def document(*measurements: Measurement, **changes: Any) -> Result:
    machine = {"cpu": "x", "cores": 2, "memory_bytes": 1024, "system": "Linux", "client_and_server_share_it": True}
    return Result(
        kind=changes.get("kind", "run"),
        title="t",
        modelwright=changes.get("modelwright", "0.1.0"),
        created="2026-01-01T00:00:00+00:00",
        command=["load", "run"],
        machine=MachineFacts.model_validate(machine | changes.get("machine", {})),
        server={"name": "triton", "version": changes.get("version", "2.51.0")},
        complete=changes.get("complete", True),
        measurements=list(measurements),
    )


def changed(given: Measurement, **parts: dict[str, Any]) -> Measurement:
    return given.model_copy(
        update={name: getattr(given, name).model_copy(update=values) for name, values in parts.items()}
    )


ONE = measurement(Facts(), label="700 req/s")


def test_the_table_as_a_person_reads_it() -> None:
    other = measurement(
        Facts(throughput=1100, p50=3.0, p99=None, queue=0.5, batches={4: 1}, failures={"closed": 2}), label="700 req/s"
    )
    assert text(compare(document(ONE), document(other)), ("a.json", "b.json")).splitlines() == [
        "A: a.json",
        "B: b.json",
        "",
        "700 req/s",
        "                          A      B   change",
        "  throughput, req/s   1,000  1,100  +10.0 %",
        "  p50 service, ms      4.00   3.00  -25.0 %",
        "  p99 service, ms      9.00    n/a         ",
        "  p50 response, ms     4.00   3.00  -25.0 %",
        "  p99 response, ms     9.00    n/a         ",
        "  server queue, ms     1.00  0.500  -50.0 %",
        "  server compute, ms   1.60   1.60    0.0 %",
        "  mean batch           6.00   4.00  -33.3 %",
        "  failed                  0      2         ",
        "",
        "No verdict: for one that allows for noise, use `modelwright load ab`.",
    ]


def test_a_closed_loop_has_one_kind_of_latency() -> None:
    one = measurement(Facts(), "closed", "32 in flight")
    names = [row.name for row in compare(document(one), document(one)).rows]
    assert names == ["throughput", "p50", "p99", "server queue", "server compute", "mean batch", "failed"]


def test_a_server_without_statistics_leaves_its_rows_out() -> None:
    one = measurement(Facts(statistics=False), label="700 req/s")
    names = [row.name for row in compare(document(one), document(ONE)).rows]
    assert not any(name.startswith("server") for name in names)


def test_labels_of_one_document_only_are_named() -> None:
    a, b = ONE.model_copy(update={"label": "a"}), ONE.model_copy(update={"label": "b"})
    found = compare(document(ONE, a), document(b, ONE))
    assert (found.only_a, found.only_b) == (["a"], ["b"])
    shown = text(compare(document(a), document(b)))
    assert "No measurement has the same label in both.\n\nOnly in A: a\n\nOnly in B: b\n" in shown


def test_equal_documents_have_no_warnings() -> None:
    found = compare(document(ONE), document(ONE))
    assert found.warnings == []
    assert {row.ratio for row in found.rows} <= {1.0, None}


WARNINGS: dict[str, tuple[Result, str]] = {
    "another machine": (document(ONE, machine={"cores": 64}), "the machines differ: cores 2 and 64"),
    "another server": (document(ONE, version="2.60.0"), "the servers differ: version 2.51.0 and 2.60.0"),
    "another Modelwright": (document(ONE, modelwright="0.2.0"), "the clients differ: Modelwright 0.1.0 and 0.2.0"),
    "another command": (document(ONE, kind="sweep"), "A is of `load run`, B of `load sweep`"),
    "interrupted": (document(ONE, complete=False), "B is not complete"),
    "another rate": (
        document(changed(ONE, load={"rate": 1200.0})),
        "700 req/s: the loads differ: rate 700 and 1,200",
    ),
    "another mode": (
        document(changed(ONE, load={"mode": "closed", "rate": None})),
        "700 req/s: the loads differ: mode open and closed",
    ),
    "another model": (document(changed(ONE, target={"model": "n"})), "700 req/s: the models differ: model m and n"),
    "another protocol": (
        document(changed(ONE, target={"protocol": "grpc"})),
        "700 req/s: the clients differ: protocol http and grpc",
    ),
    "another payload": (
        document(changed(ONE, target={"payload_bytes": 2048})),
        "700 req/s: the payloads differ: payload_bytes none and 2,048",
    ),
    "invalid": (
        document(changed(ONE, validity={"verdict": "INVALID", "reasons": ["lag"]})),
        "700 req/s: B is INVALID: lag",
    ),
    "cut short": (document(ONE.model_copy(update={"complete": False})), "700 req/s: B was not measured to its end"),
}


@pytest.mark.parametrize("case", WARNINGS)
def test_what_makes_them_hard_to_compare_is_a_warning(case: str) -> None:
    other, warning = WARNINGS[case]
    found = compare(document(ONE), other)
    assert warning in found.warnings
    assert f"\nWarning: {warning}\n" in text(found)


def test_another_version_is_what_a_comparison_is_for() -> None:
    assert compare(document(ONE), document(changed(ONE, target={"version": "2"}))).warnings == []


def test_a_warning_about_many_measurements_is_told_once() -> None:
    labels = [ONE.model_copy(update={"label": label}) for label in ("a", "b", "c")]
    found = compare(document(*labels), document(*(changed(item, load={"processes": 4}) for item in labels)))
    assert found.warnings == ["a and 2 more: the loads differ: processes 1 and 4"]
