"""verdicts.json: what the real server made of every hand-made case, so that the linter can be tested without a server."""

from __future__ import annotations

import json
from collections.abc import Collection, Mapping
from dataclasses import asdict, dataclass, field
from functools import cache
from pathlib import Path

from tests.lint.harness import Kind, Verdicts

FILE = Path(__file__).with_name("verdicts.json")
MODES = {"off": False, "on": True}  # → auto_complete
_REASON_LENGTH = 240


@dataclass
class Recorded:
    """One case. `reason` is that of its first model that did not load, auto-completion off before on."""

    off: dict[str, Kind] = field(default_factory=dict)  # by model
    on: dict[str, Kind] = field(default_factory=dict)
    reason: str = ""

    def verdicts(self, mode: str) -> dict[str, Kind]:
        return self.on if mode == "on" else self.off


@cache
def recorded() -> dict[str, Recorded]:
    return {case: Recorded(**entry) for case, entry in json.loads(FILE.read_text()).items()}


def write_record(seen: Mapping[str, Mapping[str, Verdicts]], kept: Collection[str] = ()) -> None:
    """Write {mode: {case: its verdicts}}, one line a case, so that a change of one shows as one.

    A case on which the server has not changed its mind keeps its entry: some faults are refused or end the server by
    turns, since it frees what a model process still uses. So do the cases in `kept`, which were not asked again.
    """
    old = recorded() if FILE.exists() else {}
    entries = {case: _entry(seen, case) for case in seen["off"]} | {case: old[case] for case in kept if case in old}
    entries = dict(sorted(entries.items()))
    for case, entry in entries.items():
        if case in old and _faults(old[case]) == _faults(entry):
            entries[case] = old[case]
    lines = [f"{json.dumps(case)}: {json.dumps(asdict(entry))}" for case, entry in entries.items()]
    FILE.write_text("{\n" + ",\n".join(lines) + "\n}\n")


def _faults(entry: Recorded) -> list[tuple[str, str, bool]]:
    return [(mode, model, kind != "loads") for mode in MODES for model, kind in entry.verdicts(mode).items()]


def _entry(seen: Mapping[str, Mapping[str, Verdicts]], case: str) -> Recorded:
    entry = Recorded()
    for mode in MODES:
        entry.verdicts(mode).update({model: verdict.kind for model, verdict in seen[mode][case].items()})
        reasons = [verdict.reason for verdict in seen[mode][case].values() if verdict.is_fault]
        entry.reason = entry.reason or (reasons[0][:_REASON_LENGTH] if reasons else "")
    return entry
