"""What the commands print: tables for people, plain data for machines."""

from __future__ import annotations

import json
import shutil
import sys
from collections.abc import Sequence
from dataclasses import asdict
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, Any

from modelwright.build.outcome import Outcome
from modelwright.build.plan import Planned
from modelwright.build.workspace import open_workspace, plan_workspace
from modelwright.cli.progress import Display, Lines, Silent
from modelwright.errors import VerifyError
from modelwright.operations import replay
from modelwright.operations.replay import Replayed
from modelwright.project.project import ProjectConfig
from modelwright.project.spec import FILE
from modelwright.repository.repository import Repository
from modelwright.repository.versions import published

if TYPE_CHECKING:
    from rich.console import Console

    from modelwright.operations.adopt import Report

_WORST_FIRST = ("failed", "not served here", "loads", "ok")
_NOT_COMPARED = "not compared"  # there was nothing to compare a prebuilt version with
_WORDS = {"new": "new", "config": "config changed", "unchanged": "unchanged", "failed": "FAILED", "held": "held back"}


@cache
def console(stderr: bool = False) -> Console:
    from rich.console import Console

    return Console(stderr=stderr, highlight=False, emoji=False)


def listener(as_data: bool) -> Silent:
    """Who tells how a build goes: on standard error, so that standard output holds the result alone."""
    if as_data:
        return Silent()
    where = console(stderr=True)
    return Display(where) if where.is_terminal else Lines(where)


# --- build ------------------------------------------------------------------------------------------------------------


def print_outcomes(project: ProjectConfig, outcomes: Sequence[Outcome], results: Sequence[Replayed] | None) -> None:
    """The table of a build, its errors, and what to type next."""
    if not outcomes:
        print_line(f"{project.shown(project.builders)} holds no {FILE} yet. Make one: {_program()} new NAME")
        return
    idle = not any(outcome.ran or outcome.status != "unchanged" for outcome in outcomes)
    if idle and not results:
        count = len(outcomes)
        print_line(f"Nothing to do: {count} model{'s' if count != 1 else ''} up to date in {_shown(project)}.")
        program = _program()
        print_line(f"Serve them: {program} serve    Look closer: {program} status")
        return
    _print_table(_outcome_table(outcomes, results))
    for outcome in outcomes:
        if outcome.error:
            print_line("")
            print_line(f"Error: {outcome.error}", error=True)
            if outcome.log and outcome.log.exists():
                print_line(f"  log: {project.shown(outcome.log)}", error=True)
    for outcome in outcomes:
        for warning in outcome.warnings:
            print_line(f"Warning: {warning}", error=True)
    failures = [result for result in results or () if result.verdict == "failed"]
    for failure in failures:
        print_line(f"Error: {failure.model} version {failure.version}, {failure.url}: {failure.detail}", error=True)
    if not failures and not any(outcome.status in ("failed", "held") for outcome in outcomes):
        _print_next(outcomes)


def _outcome_table(outcomes: Sequence[Outcome], results: Sequence[Replayed] | None) -> list[list[str]]:
    header = ["model", "version", "", "size", "max error", "accuracy", "build"]
    rows = [header + (["replay"] if results else [])]
    for outcome in outcomes:
        row = [
            outcome.model,
            ", ".join(map(str, outcome.published)) or str(outcome.version or "-"),
            _WORDS[outcome.status],
            size_text(outcome.size_bytes) if outcome.version else "-",
            _error_text(outcome),
            metrics_text(outcome.metrics),
            f"{outcome.build_s:.1f} s",
        ]
        rows.append(row + ([_replay_text(outcome.model, results)] if results else []))
    return rows


def _error_text(outcome: Outcome) -> str:
    if outcome.max_abs_error is not None:
        return f"{outcome.max_abs_error:.1e}"
    return _NOT_COMPARED if outcome.compared_with == "nothing" else "-"


def metrics_text(metrics: dict[str, float]) -> str:
    """`0.9944` for accuracy, `cosine_min 1.0000` for a metric of another name; the first one is enough here."""
    for name, value in metrics.items():
        shown = f"{value:.4f}"
        return shown if name == "accuracy" else f"{name} {shown}"
    return "-"


def _replay_text(model: str, results: Sequence[Replayed] | None) -> str:
    own = [result for result in results or () if result.model == model]
    parts = []
    for protocol in ("http", "grpc"):
        mine = [result for result in own if result.url.startswith(protocol)]
        # The worst of its versions; one that cannot be checked any more says nothing of the others.
        verdict = next((word for word in _WORST_FIRST if any(result.verdict == word for result in mine)), "ok")
        if mine:
            parts.append(f"{'HTTP' if protocol == 'http' else 'gRPC'} {verdict}")
    return ", ".join(parts) or "-"


def _print_next(outcomes: Sequence[Outcome]) -> None:
    names = [outcome.model for outcome in outcomes]
    example = "digits" if "digits" in names else names[0] if names else "NAME"
    program = _program()
    hints = {
        f"{program} serve": "keep a server up (HTTP 8000, gRPC 8001, metrics 8002)",
        f"{program} infer {example}": "send it a sample",
        f"{program} status": "what is published",
    }
    print_line("")
    print_line("Next:")
    width = max(map(len, hints))
    for command, purpose in hints.items():
        print_line(f"  {command:<{width}}  {purpose}")


def _program() -> str:
    """What to type to get this program: its name where the shell finds it, its path after a plain `make repo`."""
    started = Path(sys.argv[0])
    if shutil.which("modelwright") or started.name != "modelwright":
        return "modelwright"
    return str(started.relative_to(Path.cwd())) if started.is_relative_to(Path.cwd()) else str(started)


def outcomes_as_data(outcomes: Sequence[Outcome], results: Sequence[Replayed] | None) -> dict[str, Any]:
    models = []
    for outcome in outcomes:
        data = asdict(outcome)
        data["error"] = None
        if outcome.error:
            data["error"] = {"message": outcome.error.message, "hint": outcome.error.hint}
        data["log"] = str(outcome.log) if outcome.log else None
        models.append(data)
    return {"models": models, "replay": None if results is None else replays_as_data(results)}


# --- replay -----------------------------------------------------------------------------------------------------------


def replay_now(project: ProjectConfig, names: Sequence[str], urls: Sequence[str], as_data: bool) -> list[Replayed]:
    """Replay on the given servers, or on a local one that serves every version, over both protocols."""
    repository = Repository(project.repository, project.staging)
    versions = published(repository, names)
    if not versions:
        raise VerifyError("nothing is published yet", "build first: modelwright build")
    if urls:
        return replay.replay(repository, versions, urls)
    say = (lambda text: None) if as_data else lambda text: print_line(text, error=True)
    log = project.logs / "replay.log"
    with replay.serving_all(project, versions, log, say) as local:
        return replay.replay(repository, versions, local.urls, local.refused)


def replay_if_changed(project: ProjectConfig, as_data: bool) -> list[Replayed] | None:
    """Replay all on a local server, unless the same repository passed on the same server before: then None."""
    versions = published(Repository(project.repository, project.staging))
    memory = project.state / "cache" / "replayed.json"
    state = replay.fingerprint(project, versions)
    if not versions or (memory.is_file() and memory.read_text() == json.dumps(state)):
        return None
    results = replay_now(project, (), (), as_data)
    if not any(result.verdict == "failed" for result in results):
        memory.parent.mkdir(parents=True, exist_ok=True)
        # The server's environment may have been made just now; it is part of the state.
        memory.write_text(json.dumps(replay.fingerprint(project, versions)))
    return results


def print_replays(results: Sequence[Replayed]) -> None:
    rows = [["model", "version", "server", "replay", "max error", ""]]
    for result in results:
        error = "-" if result.max_abs_error is None else f"{result.max_abs_error:.1e}"
        rows.append([result.model, str(result.version), result.url, result.verdict, error, result.detail])
    _print_table(rows)


def replays_as_data(results: Sequence[Replayed]) -> list[dict[str, Any]]:
    return [asdict(result) for result in results]


# --- adopt ------------------------------------------------------------------------------------------------------------


def print_adopted(project: ProjectConfig, adopted: Report) -> None:
    """The builders that were written, all that was not carried over, and what to type next."""
    rows = [["model", "", "versions", "files", "size", "builder"]]
    for item in adopted.models:
        if item.status != "failed":
            versions = ", ".join(map(str, item.versions))
            place = project.shown(item.folder)
            rows.append([item.model, item.status, versions, str(item.files), size_text(item.size_bytes), place])
    if len(rows) > 1:
        _print_table(rows)
    if adopted.left:
        print_line("" if len(rows) == 1 else "\nNot carried over:")
        _print_table([["model", "what", "why"], *([item.model or "-", item.thing, item.why] for item in adopted.left)])
    if not adopted.any_adopted:
        print_line("Error: nothing was adopted", error=True)
        return
    print_line("")
    print_line(f"Next: {_program()} build --replay    publish them, and load them on a real server")


def adopted_as_data(adopted: Report) -> dict[str, Any]:
    models = [asdict(item) | {"folder": str(item.folder), "versions": list(item.versions)} for item in adopted.models]
    return {"models": models, "left": [asdict(item) for item in adopted.left]}


# --- plan and status --------------------------------------------------------------------------------------------------


def print_plan(planned: Sequence[Planned]) -> None:
    """A line for each step that would run, then how many would not."""
    todo = [entry for entry in planned if entry.status != "cached"]
    for entry in todo:
        verb = "run" if entry.status == "run" else "maybe"
        print_line(f"{verb:<6}{entry.step.model} {entry.step.name}: {entry.reason}")
    print_line(f"{len(planned)} steps: {len(todo)} to run, {len(planned) - len(todo)} up to date")


def status_rows(project: ProjectConfig) -> list[dict[str, Any]]:
    """One row a model, of builders and of the repository both."""
    workspace = open_workspace(project)
    planned = plan_workspace(workspace)
    workspace.fingerprints.save()
    rows = []
    for model in sorted({*workspace.builders, *workspace.repository.models()}):
        latest = workspace.repository.latest(model)
        stale = [entry for entry in planned if entry.step.model == model and entry.status != "cached"]
        state = "up to date"
        if model not in workspace.builders:
            state = "no builder makes it"
        elif latest is None:
            state = "not built"
        elif stale:
            state = f"to rebuild: {stale[0].reason}"
        rows.append(
            {
                "model": model,
                "versions": workspace.repository.versions(model),
                "state": state,
                "created": latest[1]["created"] if latest else None,
                "commit": latest[1]["source"].get("commit") if latest else None,
                "size_bytes": sum(item["size_bytes"] for item in latest[1]["files"].values()) if latest else 0,
                "metrics": latest[1]["metrics"] if latest else {},
            }
        )
    return rows


def print_status(project: ProjectConfig, rows: Sequence[dict[str, Any]]) -> None:
    table = [["model", "versions", "size", "accuracy", "built", "state"]]
    for row in rows:
        versions = ", ".join(map(str, row["versions"])) or "-"
        size = size_text(row["size_bytes"]) if row["size_bytes"] else "-"
        table.append(
            [row["model"], versions, size, metrics_text(row["metrics"]), (row["created"] or "-")[:16], row["state"]]
        )
    _print_table(table)
    print_line(f"Target: Triton {project.target.name}, onnxruntime {project.target.onnxruntime}")


# --- printing ---------------------------------------------------------------------------------------------------------


def print_line(text: str, *, error: bool = False) -> None:
    console(stderr=error).print(text, markup=False, soft_wrap=True)


def size_text(size_bytes: float) -> str:
    for unit in ("B", "kB", "MB"):
        if size_bytes < 1000:
            return f"{size_bytes:.0f} {unit}" if unit == "B" else f"{size_bytes:.1f} {unit}"
        size_bytes /= 1000
    return f"{size_bytes:.1f} GB"


def _print_table(rows: Sequence[Sequence[str]]) -> None:
    """Columns by width on a pipe, so that nothing is cut; rich's table on a terminal."""
    if not sys.stdout.isatty():
        widths = [max(len(row[index]) for row in rows) for index in range(len(rows[0]))]
        for row in rows:
            print_line("  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip())
        return
    from rich.table import Table

    table = Table(box=None, pad_edge=False, header_style="bold")
    for name in rows[0]:
        table.add_column(name, overflow="fold")
    for row in rows[1:]:
        table.add_row(*row)
    console().print(table)


def _shown(project: ProjectConfig) -> str:
    return project.shown(project.repository)
