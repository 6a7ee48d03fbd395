"""What the commands print: tables for people, plain data for machines."""

from __future__ import annotations

import sys
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from importlib.util import find_spec
from typing import TYPE_CHECKING, Any

from modelwright import text
from modelwright.cli.hints import error_text, program, typed
from modelwright.cli.terminal import console, say, say_lines
from modelwright.errors import ModelwrightError
from modelwright.facts.compared_with import ComparedWith
from modelwright.project.project import ProjectConfig

if TYPE_CHECKING:
    from modelwright.build.outcome import Outcome
    from modelwright.build.plan import BuildPlan
    from modelwright.operations.replay import Replayed
    from modelwright.operations.status import ModelStatus

_WORST_FIRST = ("failed", "differs here", "not served here", "loads", "ok")
_NOT_COMPARED = "not compared"  # there was nothing to compare a prebuilt version with
_COMPARED_WITH = {
    ComparedWith.SOURCE: "its source",
    ComparedWith.GOLDEN_SAMPLES: "its golden samples",
    ComparedWith.ITSELF: "itself",
    ComparedWith.NOTHING: "nothing",
}
_WORDS = {
    "new": "new",
    "config": "config changed",
    "unchanged": "unchanged",
    "skipped": "skipped",
    "failed": "FAILED",
    "held": "held back",
}


# --- build ------------------------------------------------------------------------------------------------------------


def print_outcomes(
    project: ProjectConfig,
    outcomes: Sequence[Outcome],
    results: Sequence[Replayed] | None,
    problem: ModelwrightError | None = None,
) -> None:
    """The table of a build, its errors, and what to type next. `problem`: why nothing could be replayed."""
    if not outcomes:
        say(f"{project.shown(project.builders)} holds no model.yaml yet. Make one: {program()} new NAME")
        return
    on_request = [outcome.model for outcome in outcomes if outcome.status == "on request"]
    outcomes = [outcome for outcome in outcomes if outcome.status != "on request"]
    idle = not any(outcome.ran or outcome.status != "unchanged" for outcome in outcomes)
    if idle and not results and not problem:
        print_nothing_to_do(project, len(outcomes))
        _print_on_request(on_request)
        _print_notes(outcomes)
        _print_warnings(outcomes)
        return
    print_table(_outcome_table(outcomes, results))
    _print_on_request(on_request)
    _print_notes(outcomes)
    told: set[str] = set()  # the models of one file have one error
    for outcome in outcomes:
        if outcome.error and str(outcome.error) not in told:
            told.add(str(outcome.error))
            say(err=True)
            say_lines(f"Error: {error_text(outcome.error)}", err=True)
            if outcome.log and outcome.log.exists():
                say(f"  log: {project.shown(outcome.log)}", err=True)
    _print_skipped({outcome.model: outcome.reason for outcome in outcomes if outcome.status == "skipped"}, err=True)
    for outcome in outcomes:
        if outcome.reason and outcome.status != "skipped":
            say(f"Held back: {outcome.model}: {outcome.reason}", err=True)
    _print_warnings(outcomes)
    failures = [result for result in results or () if result.verdict == "failed"]
    for failure in failures:
        where = f"{failure.model} version {failure.version}" + (f", {failure.url}" if failure.url else "")
        say(f"Error: {where}: {failure.detail}", err=True)
    if problem:
        say_lines(f"Error: replay: {error_text(problem)}", err=True)
    if not problem and not failures and not any(outcome.status in ("failed", "held") for outcome in outcomes):
        say()
        print_next(_hints([outcome.model for outcome in outcomes]))


def _print_skipped(reasons: Mapping[str, str], *, err: bool = False) -> None:
    """Models that cannot be made here, a line for each reason."""
    for reason in dict.fromkeys(reasons.values()):
        models = [model for model, why in reasons.items() if why == reason]
        say(f"Skipped: {', '.join(models)}: {reason}", err=err)


def _print_notes(outcomes: Sequence[Outcome]) -> None:
    """Models of which an operator decided that something else is served than what was built."""
    for outcome in outcomes:
        if outcome.note:
            stays = "" if outcome.status == "config" else "; its config.pbtxt stays as it is"  # a lost one comes back
            say(f"Not served: {outcome.model}: {typed(outcome.note)}{stays}", err=True)


def _print_warnings(outcomes: Sequence[Outcome]) -> None:
    for outcome in outcomes:
        for warning in outcome.warnings:
            say(f"Warning: {typed(warning)}", err=True)


def _print_on_request(models: Sequence[str]) -> None:
    if models:
        say(f"Built on request only: {', '.join(models)}. Build them: {program()} build --all")


def print_nothing_to_do(project: ProjectConfig, models: int) -> None:
    """The answer of a build of this many models that changed nothing."""
    say(f"Nothing to do: {models} model{'s' if models != 1 else ''} up to date in {shown(project)}.")
    command = program()
    say(f"Serve them: {command} serve    Look closer: {command} status")


def _outcome_table(outcomes: Sequence[Outcome], results: Sequence[Replayed] | None) -> list[list[str]]:
    header = ["model", "version", "", "size", "max error", "accuracy", "build"]
    rows = [header + (["replay"] if results else [])]
    for outcome in outcomes:
        row = [
            outcome.model,
            ", ".join(map(str, outcome.published)) or str(outcome.version or "-"),
            _WORDS[outcome.status],
            text.size(outcome.size_bytes) if outcome.version else "-",
            _error_text(outcome),
            text.metrics(outcome.metrics),
            f"{outcome.build_s:.1f} s",
        ]
        rows.append(row + ([_replay_text(outcome, results)] if results else []))
    return rows


def _error_text(outcome: Outcome) -> str:
    if outcome.max_abs_error is not None:
        return f"{outcome.max_abs_error:.1e}"
    return _NOT_COMPARED if outcome.compared_with is ComparedWith.NOTHING else "-"


def _replay_text(outcome: Outcome, results: Sequence[Replayed] | None) -> str:
    own = [result for result in results or () if result.model == outcome.model]
    parts = []
    for prefix, protocol in (("http", "HTTP"), ("grpc", "gRPC")):
        mine = [result for result in own if result.url.startswith(prefix) or not result.url]
        # The worst of its versions; one that cannot be checked any more says nothing of the others.
        verdict = next((word for word in _WORST_FIRST if any(result.verdict == word for result in mine)), "ok")
        if mine:
            parts.append(f"{protocol} {verdict}")
    return ", ".join(parts) or ("passed before" if outcome.version else "-")


def _hints(names: Sequence[str]) -> dict[str, str]:
    """Commands that one may want after a build, and what each is for."""
    example = "digits" if "digits" in names else names[0] if names else "NAME"
    command = program()
    return {
        f"{command} serve": "keep a server up (HTTP 8000, gRPC 8001, metrics 8002)",
        f"{command} infer {example}": "send it a sample",
        f"{command} status": "what is published",
    }


def print_next(steps: Mapping[str, str]) -> None:
    say("Next:")
    width = max(map(len, steps))
    for step, purpose in steps.items():
        say(f"  {step:<{width}}  {purpose}".rstrip())


def outcomes_as_data(
    outcomes: Sequence[Outcome], results: Sequence[Replayed] | None, problem: ModelwrightError | None = None
) -> dict[str, Any]:
    models = []
    for outcome in outcomes:
        data = asdict(outcome)
        data["compared_with"] = _COMPARED_WITH[outcome.compared_with] if outcome.compared_with else ""
        data["error"] = _error_as_data(outcome.error)
        data["log"] = str(outcome.log) if outcome.log else None
        models.append(data)
    replay = None if results is None else replays_as_data(results)
    return {"models": models, "replay": replay, "replay_error": _error_as_data(problem)}


def _error_as_data(error: ModelwrightError | None) -> dict[str, str] | None:
    return {"message": error.message, "hint": error.hint} if error else None


# --- replay -----------------------------------------------------------------------------------------------------------


def print_replays(results: Sequence[Replayed]) -> None:
    rows = [["model", "version", "server", "replay", "max error", ""]]
    for result in results:
        error = "-" if result.max_abs_error is None else f"{result.max_abs_error:.1e}"
        rows.append([result.model, str(result.version), result.url or "-", result.verdict, error, result.detail])
    print_table(rows)


def replays_as_data(results: Sequence[Replayed]) -> list[dict[str, Any]]:
    return [asdict(result) for result in results]


# --- plan and status --------------------------------------------------------------------------------------------------


_VERBS = {"run": "run", "after": "maybe", "shared": "same"}


def print_plan(plan: BuildPlan) -> None:
    """A line for each step that would run, how many would not, and what is wrong with models that cannot be built."""
    todo = [entry for entry in plan if entry.status != "cached"]
    for entry in todo:
        where = f"; {entry.step.where}" if entry.step.where else ""
        say(f"{_VERBS[entry.status]:<6}{entry.step.model} {entry.step.name}: {entry.reason}{where}")
    for model, reason in plan.waiting.items():
        say(f"wait  {model}: {reason}")
    _print_skipped(plan.skipped)
    _print_on_request(plan.left_out)
    once = [entry for entry in todo if entry.status != "shared"]
    shared = f", {len(todo) - len(once)} shared" if len(todo) > len(once) else ""
    say(f"{len(plan)} steps: {len(once)} to run{shared}, {len(plan) - len(todo)} up to date")
    for text_of_error in dict.fromkeys(map(error_text, plan.errors.values())):
        say_lines(f"Error: {text_of_error}", err=True)


def plan_as_data(plan: BuildPlan) -> list[dict[str, Any]]:
    steps = [
        {
            "model": entry.step.model,
            "step": entry.step.name,
            "status": entry.status,
            "reason": entry.reason,
            "key": entry.key,
            **({"where": entry.step.where} if entry.step.where else {}),
        }
        for entry in plan
    ]
    failed = {model: ("failed", str(error)) for model, error in plan.errors.items()}
    held = {model: ("held", reason) for model, reason in plan.waiting.items()}
    skipped = {model: ("skipped", reason) for model, reason in plan.skipped.items()}
    on_request = dict.fromkeys(plan.left_out, ("on request", ""))
    others = [
        {"model": model, "step": None, "status": status, "reason": reason, "key": None}
        for model, (status, reason) in (failed | held | skipped | on_request).items()
    ]
    return steps + others


def print_status(project: ProjectConfig, models: Sequence[ModelStatus]) -> None:
    rows = [["model", "versions", "size", "accuracy", "built", "state"]]
    for item in models:
        versions = ", ".join(map(str, item.versions)) or "-"
        size = text.size(item.size_bytes) if item.size_bytes else "-"
        created = item.created.isoformat()[:16] if item.created else "-"
        rows.append([item.model, versions, size, text.metrics(item.metrics), created, _state(item)])
    print_table(rows)
    _print_skipped({item.model: item.reason for item in models if item.state == "skipped"})
    say(f"Target: Triton {project.target.name}, onnxruntime {project.target.onnxruntime}")


def _state(item: ModelStatus) -> str:
    if item.state in ("to rebuild", "faulty", "waits"):
        return f"{item.state}: {item.reason}"
    return "no builder makes it" if item.state == "no builder" else item.state


def status_as_data(models: Sequence[ModelStatus]) -> list[dict[str, Any]]:
    return [
        {
            "model": item.model,
            "versions": item.versions,
            "state": f"skipped: {item.reason}" if item.state == "skipped" else _state(item),
            "created": item.created.isoformat() if item.created else None,
            "commit": item.commit,
            "size_bytes": item.size_bytes,
            "metrics": item.metrics,
        }
        for item in models
    ]


# --- printing ---------------------------------------------------------------------------------------------------------


def print_table(rows: Sequence[Sequence[str]]) -> None:
    """Columns by width on a pipe, so that nothing is cut; rich's table on a terminal, where rich is installed."""
    rows = [[text.printable(cell) for cell in row] for row in rows]
    if not sys.stdout.isatty() or find_spec("rich") is None:
        widths = [max(len(row[index]) for row in rows) for index in range(len(rows[0]))]
        for row in rows:
            say("  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip())
        return
    from rich.table import Table

    table = Table(box=None, pad_edge=False, header_style="bold")
    for name in rows[0]:
        table.add_column(name, overflow="fold")
    for row in rows[1:]:
        table.add_row(*row)
    console().print(table)


def shown(project: ProjectConfig) -> str:
    return project.shown(project.repository)
