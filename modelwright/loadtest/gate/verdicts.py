"""What the performance gate said of versions before: from the results that `load ab` wrote."""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import Any, get_args

from modelwright.digest import parse_json
from modelwright.fsops import read_file
from modelwright.loadtest.document import Verdict
from modelwright.loadtest.report.output import RESULT

_VERSION = re.compile(r"version (\d+)")  # one of the project's repository; others have the repository's name behind it


@dataclass(frozen=True)
class PastVerdict:
    """The gate's verdict on one version, against another one."""

    verdict: Verdict
    baseline: int
    created: datetime
    result: Path  # the document


def past_verdicts(results: Path, model: str) -> dict[int, PastVerdict]:
    """{version: its latest verdict}, of the results below a folder. What cannot be read there is passed over."""
    found: dict[int, PastVerdict] = {}
    for path in results.glob(f"*-ab-*/{RESULT}"):
        for version, verdict in _verdicts(path, model):
            if version not in found or found[version].created < verdict.created:
                found[version] = verdict
    return found


def _verdicts(path: Path, model: str) -> Iterator[tuple[int, PastVerdict]]:
    """Read as plain JSON: to check a document of sixty measurements takes longer than all else that `versions` does."""
    try:
        data: Any = parse_json(read_file(path))
        created = datetime.fromisoformat(data["created"])
        for gate in data["gates"]:
            candidate, baseline = _VERSION.fullmatch(gate["candidate"]), _VERSION.fullmatch(gate["baseline"])
            if gate["model"] == model and candidate and baseline and gate["verdict"] in get_args(Verdict):
                yield int(candidate[1]), PastVerdict(gate["verdict"], int(baseline[1]), created, path)
    except (OSError, ValueError, KeyError, TypeError):
        return
