"""Writes and reads a load test's result: result.json, measurements.csv and report.html in a folder of its own."""

from __future__ import annotations

import contextlib
import os
import platform
from collections.abc import Sequence
from datetime import datetime, timezone
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from modelwright import __version__, tools
from modelwright.errors import LoadError
from modelwright.fsops import disk_errors, read_text
from modelwright.loadtest.document import Gate, MachineFacts, Result, SloResult

if TYPE_CHECKING:
    from modelwright.loadtest.measure.run import Findings

Kind = Literal["run", "sweep", "slo", "ab"]
RESULT, CSV, REPORT = "result.json", "measurements.csv", "report.html"


def folder_for(base: Path, given: Path | None, kind: str, models: Sequence[str]) -> Path:
    """The given folder, or a new one below `base`; created, and checked to be writable."""
    now = datetime.now(timezone.utc).strftime("%Y%m%d-%H%M%S")
    name = models[0] if len(models) == 1 else f"{len(models)}-models"
    folder = given or base / f"{now}-{kind}-{name}"
    try:
        folder.mkdir(parents=True, exist_ok=True)
        (folder / ".probe").touch()
        (folder / ".probe").unlink()
    except OSError as error:
        raise LoadError(f"--output {folder}: cannot be written: {error.strerror}") from None
    return folder


def remove_if_empty(folder: Path) -> None:
    """A command that measured nothing leaves no folder behind."""
    with contextlib.suppress(OSError):
        folder.rmdir()


def result_of(
    kind: Kind,
    models: Sequence[str],
    findings: Findings,
    *,
    command: Sequence[str],
    is_local: bool,
    slo: SloResult | None = None,
    gates: Sequence[Gate] = (),
) -> Result:
    words = {"run": "Load test", "sweep": "Sweep", "slo": "Objective", "ab": "Performance gate"}
    return Result(
        kind=kind,
        title=f"{words[kind]}: {', '.join(models)}",
        modelwright=__version__,
        created=datetime.now(timezone.utc).isoformat(timespec="seconds"),
        command=list(command),
        machine=machine_facts(is_local),
        server=findings.server,
        complete=findings.complete,
        notes=[*findings.notes, *([f"stopped early: {findings.stopped}"] if findings.stopped else [])],
        measurements=findings.measurements,
        slo=slo,
        gates=list(gates),
    )


def write(result: Result, folder: Path) -> Path:
    """Write all three files; returns the report's path."""
    from modelwright.loadtest.report.csv_file import write_csv
    from modelwright.loadtest.report.html import render

    _write(folder / RESULT, result.model_dump_json(indent=1))
    write_csv(result, folder / CSV)
    _write(folder / REPORT, render(result))
    return folder / REPORT


def _write(path: Path, text: str) -> None:
    part = path.with_name(f".{path.name}.part")
    with disk_errors(path):
        try:
            part.write_text(text, encoding="utf-8")
            part.replace(path)
        except OSError:
            part.unlink(missing_ok=True)
            raise


def read(path: Path) -> Result:
    """A result.json, or the folder that has one. Raises LoadError for anything else."""
    from pydantic import ValidationError

    file = path / RESULT if path.is_dir() else path
    try:
        return Result.model_validate_json(read_text(file))
    except (OSError, UnicodeDecodeError) as error:
        reason = error.strerror if isinstance(error, OSError) else "not text"
        raise LoadError(f"{path}: cannot be read: {reason}", "give a result.json, or the folder that has one") from None
    except ValidationError as error:
        first = error.errors()[0]
        where = ".".join(map(str, first["loc"]))
        raise LoadError(f"{path}: not a load test's result: {where}: {first['msg']}") from None


def machine_facts(is_local: bool) -> MachineFacts:
    return MachineFacts(
        cpu=_cpu(),
        cores=tools.cores(),
        memory_bytes=os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES"),
        system=f"{platform.system()} {platform.release()}, Python {platform.python_version()}",
        client_and_server_share_it=is_local,
    )


def _cpu() -> str:
    try:
        text = Path("/proc/cpuinfo").read_text()
    except OSError:
        return platform.processor() or platform.machine()
    fields: dict[str, Any] = dict(part.split(":", 1) for part in text.splitlines() if ":" in part)
    return str(
        next((value for key, value in fields.items() if key.strip() == "model name"), platform.machine())
    ).strip()
