"""Records of one process and of several."""

from __future__ import annotations

import threading

import numpy as np
import pytest

from modelwright.loadtest.generator.recording import RECORD, FailureKind, Record, Recorder, clock_offset_ns
from modelwright.loadtest.measure.latency import latency


def test_a_row_has_every_field_in_its_place() -> None:
    recorder = Recorder()
    recorder.add(1, 2, 2**62, 3, 2**31 - 1)
    recorder.add(4, 5, 6, 2**31 - 1, 0)
    rows = np.frombuffer(recorder.take(), RECORD)
    assert rows.tolist() == [(1, 2, 2**62, 3, 2**31 - 1), (4, 5, 6, 2**31 - 1, 0)]


def test_rows_are_taken_once() -> None:
    recorder = Recorder()
    recorder.add(1, 2, 3, 0, 0)
    assert len(recorder.take()) == RECORD.itemsize
    assert recorder.take() == b""
    recorder.add(4, 5, 6, 0, 0)
    assert np.frombuffer(recorder.take(), RECORD)["start_ns"].tolist() == [5]


def test_failures_are_told_apart_by_their_kind() -> None:
    recorder = Recorder()
    numbers = [recorder.code(kind, message) for kind, message in (("a", "1"), ("b", "2"), ("a", "3"))]
    assert numbers == [1, 2, 1]
    assert recorder.failures == [FailureKind("a", "1"), FailureKind("b", "2")]


def bytes_of(*rows: tuple[int, int, int, int, int]) -> bytes:
    return np.array(list(rows), RECORD).tobytes()


def test_records_of_workers_with_other_numbers_for_the_same_failures_become_one() -> None:
    record = Record()
    one = bytes_of((0, 0, 30, 1, 0), (0, 0, 10, 2, 0), (0, 0, 50, 0, 0))
    two = bytes_of((0, 0, 20, 1, 5), (0, 0, 40, 0, 6))
    record.add(one, [FailureKind("timeout", "1"), FailureKind("closed", "2")], checked=2)
    record.add(two, [FailureKind("closed", "3")], checked=3)
    rows = record.rows()
    assert rows["end_ns"].tolist() == [10, 20, 30, 40, 50]
    kinds = ["", *(failure.kind for failure in record.failures)]
    assert [kinds[code] for code in rows["code"]] == ["closed", "closed", "timeout", "", ""]
    assert [failure.message for failure in record.failures] == ["1", "2"]
    assert record.checked == 5


def test_rows_can_be_asked_for_between_additions() -> None:
    record = Record()
    assert len(record.rows()) == 0
    record.add(bytes_of((0, 0, 2, 0, 0)), [])
    assert record.rows()["end_ns"].tolist() == [2]
    record.add(bytes_of((0, 0, 1, 0, 0)), [])
    assert record.rows()["end_ns"].tolist() == [1, 2]
    record.add(b"", [])
    assert len(record.rows()) == 2


def test_another_machines_clock_is_shifted() -> None:
    record = Record()
    part = record.add(bytes_of((10, 20, 30, 0, 4)), [], offset_ns=-5)
    assert part.tolist() == record.rows().tolist() == [(5, 15, 25, 0, 4)]


def test_percentiles_of_merged_records_are_those_of_all_requests() -> None:
    generator = np.random.default_rng(7)
    record, everything = Record(), []
    for scale in (1e6, 5e6, 50e6):  # three workers that see very different latencies
        rows = np.zeros(2000, RECORD)
        rows["start_ns"] = generator.integers(0, 10**9, len(rows))
        rows["end_ns"] = rows["start_ns"] + generator.exponential(scale, len(rows)).astype(int)
        record.add(rows.tobytes(), [])
        everything.append(rows)
    merged, whole = record.rows(), np.concatenate(everything)
    found = latency(merged["end_ns"] - merged["start_ns"])
    assert found == latency(whole["end_ns"] - whole["start_ns"])
    assert found.percentiles_ms["p99"] == pytest.approx(
        np.quantile(whole["end_ns"] - whole["start_ns"], 0.99, method="inverted_cdf") / 1e6
    )


def test_threads_may_add_at_once() -> None:
    record = Record()

    def add(kind: str) -> None:
        for number in range(200):
            record.add(bytes_of((0, 0, number, 1, 0)), [FailureKind(kind, "")], checked=1)

    threads = [threading.Thread(target=add, args=(kind,)) for kind in "abca"]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    counts = {failure.kind: 0 for failure in record.failures}
    for code in record.rows()["code"]:
        counts[record.failures[code - 1].kind] += 1
    assert (counts, record.checked) == ({"a": 400, "b": 200, "c": 200}, 800)


def test_the_offset_brings_monotonic_times_to_the_time_of_day() -> None:
    import time

    assert abs(time.monotonic_ns() + clock_offset_ns() - time.time_ns()) < 10**9
