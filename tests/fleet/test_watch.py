"""How a change is shown while it goes on."""

from __future__ import annotations

import io

from rich.console import Console

from modelwright.cli.watch import _Table


def test_the_table_has_a_row_a_server_with_its_last_stage() -> None:
    table = _Table()
    for url, stage, text in (
        ("http://a", "loading", "doubled"),
        ("http://a", "serves it", "1 version replayed, 0.50 s"),
        ("http://b", "failed", "http://b: out of memory"),
    ):
        table.server(url, stage, text)  # type: ignore[arg-type]
    console = Console(file=io.StringIO(), width=100, force_terminal=False)
    console.print(table._render())
    text = console.file.getvalue()  # type: ignore[attr-defined]
    assert [" ".join(line.split()) for line in text.splitlines()] == [
        "server for",
        "http://a serves it 1 version replayed, 0.50 s",
        "http://b failed http://b: out of memory",
    ]
