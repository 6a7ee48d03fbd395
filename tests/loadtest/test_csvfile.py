from __future__ import annotations

import csv
import json
import re
from pathlib import Path

import numpy as np
import pytest

from modelwright.errors import StoreError
from modelwright.loadtest.document import Result
from modelwright.loadtest.report.csv_file import COLUMNS, Cell, write_csv, written
from tests.conftest import ROOT
from tests.loadtest import results


def rows(result: Result, folder: Path) -> list[dict[str, str]]:
    path = folder / "result.csv"
    write_csv(result, path)
    with path.open(encoding="utf-8", newline="") as file:
        return list(csv.DictReader(file, strict=True))


@pytest.mark.parametrize("kind", results.EVERY)
def test_a_row_a_measurement_with_every_column(kind: str, tmp_path: Path) -> None:
    result = results.EVERY[kind]()
    written_rows = rows(result, tmp_path)
    assert len(written_rows) == len(result.measurements)
    assert all(list(row) == list(COLUMNS) for row in written_rows)


def test_numbers_are_as_they_were_measured(tmp_path: Path) -> None:
    item = results.open_run().measurements[0]
    row = rows(results.open_run(), tmp_path)[0]
    assert float(row["response_p99.9_ms"]) == item.response.percentiles_ms["p99.9"]
    assert float(row["service_p50_ms"]) == item.service.percentiles_ms["p50"] != float(row["response_p50_ms"])
    assert (row["succeeded"], row["failed"], row["wrong"]) == ("147936", "42", "3")
    assert (row["mode"], row["rate_per_s"], row["concurrency"]) == ("open", "5000.0", "")
    assert (row["complete"], row["stable"]) == ("true", "false")
    assert row["failures"] == "timeout: 37; HTTP 503: 5"


def test_null_is_an_empty_cell_and_zero_is_not(tmp_path: Path) -> None:
    row = rows(results.interrupted(), tmp_path)[0]
    empty = {name for name, value in row.items() if value == ""}
    assert {"response_p50_ms", "server_requests", "server_queue_ms", "client_cpu_cores", "client_ceiling_per_s"} < empty
    assert row["succeeded"] == "0"
    assert row["throughput_per_s"] == "0.0"


@pytest.mark.parametrize("text", ["=1+1", "+1", "-1", "@SUM(A1)", "\t=1", "\r=1", "\n=1", "  =1"])
def test_a_text_that_a_spreadsheet_would_run_is_guarded(text: str) -> None:
    assert written(text) == "'" + text


@pytest.mark.parametrize(
    ("value", "cell"),
    [
        (-0.5, "-0.5"),
        (np.float64(0.1), "0.1"),
        (float("nan"), ""),
        (None, ""),
        (True, "true"),
        (7, "7"),
        ("a=b", "a=b"),
        ("a\0b", "ab"),
    ],
)
def test_a_cell(value: Cell, cell: str) -> None:
    assert written(value) == cell


def test_hostile_texts_come_back_whole(tmp_path: Path) -> None:
    first, second = rows(results.hostile(), tmp_path)
    assert first["label"] == f"'=1+1 {results.HOSTILE}"
    assert second["label"] == results.LONG
    assert first["version"] == results.HOSTILE


def test_the_documents_list_of_columns_is_this_one() -> None:
    text = (ROOT / "docs/load-result.md").read_text(encoding="utf-8")
    table = text.split("| columns | from |")[1].split("\n\n")[0]
    first_cells = [line.split(" | ")[0] for line in table.splitlines()]
    assert re.findall(r"`([\w.]+)`", " ".join(first_cells)) == list(COLUMNS)


def test_a_full_disk_is_an_error(tmp_path: Path) -> None:
    if not Path("/dev/full").exists():
        pytest.skip("no /dev/full here")
    with pytest.raises(StoreError, match="/dev/full"):
        write_csv(results.run(), Path("/dev/full"))


def test_the_file_has_lines_that_other_tools_can_count(tmp_path: Path) -> None:
    write_csv(results.sweep(), tmp_path / "a.csv")
    data = (tmp_path / "a.csv").read_bytes()
    assert data.count(b"\n") == 8
    assert b"\r" not in data
    assert json.loads(results.sweep().model_dump_json())["measurements"][0]["label"] in data.decode().splitlines()[1]
