"""Stands in for TensorRT in the plan builder's program. A script: `fake_builder.py REQUEST RESULT`.

It runs the real program with the code that came with the request; only what builds is another. FAKE_BUILDER says how
it goes.
"""

from __future__ import annotations

import os
import sys
import time
from pathlib import Path

from modelwright.facts.plan import ANSWERS, ASKED, FAILED, GRAPH, PLAN, REQUEST, SIDECAR, PlanFailure, PlanRequest
from modelwright.steps.plan_places.program import main

HOW = os.environ.get("FAKE_BUILDER", "builds")


def serve(inside: Path, out: Path) -> int:
    print("a line of TensorRT", flush=True)
    if HOW == "refuses":
        (out / FAILED).write_text(
            PlanFailure(message="TensorRT does not take it", hint="another way").model_dump_json()
        )
        return 1
    if HOW == "answers":
        sys.path.append(str(Path(__file__).resolve().parents[3]))
        from tests.variants.plan_double import PlanBuilder

        PlanBuilder().build(inside, out, PlanRequest.model_validate_json((inside / REQUEST).read_text()))
        return 0
    (out / PLAN).write_bytes(b"ftrt" + (inside / GRAPH).read_bytes())
    if HOW == "dies":
        print("half of a plan is there", flush=True)
        os._exit(9)
    if HOW == "hangs":
        time.sleep(600)
    (out / ANSWERS).mkdir()
    for asked in (inside / ASKED).glob("*.npz"):
        (out / ANSWERS / asked.name).write_bytes(asked.read_bytes())
    (out / SIDECAR).write_text("{}")
    return 0


if __name__ == "__main__":
    code = main(Path(sys.argv[1]), Path(sys.argv[2]), serve)
    plan = Path(sys.argv[2]) / PLAN
    if HOW == "damages":
        plan.write_bytes(b"tftr" + plan.read_bytes()[4:])
    if HOW == "links":
        plan.unlink()
        plan.symlink_to("/etc/hostname")
    if HOW == "answers another":
        listed = Path(sys.argv[2]) / "parcel.json"
        listed.write_text(listed.read_text().replace('"answers":"', '"answers":"0'))
    sys.exit(code)
