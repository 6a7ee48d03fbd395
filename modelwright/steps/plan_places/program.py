"""The plan builder's program: `python -m modelwright.steps.plan_places.program REQUEST RESULT`.

It runs where TensorRT and the GPU are. A result is complete once its list of files is there: a plan (exit code 0), or
why it could not be built (1). A request that did not arrive as it was sent is exit code 2, and nothing is built.
"""

from __future__ import annotations

import sys
from collections.abc import Callable
from pathlib import Path

from modelwright.errors import ModelwrightError
from modelwright.steps.plan_places.parcel import check, seal

Serve = Callable[[Path, Path], int]
_NOT_AS_SENT = 2


def main(inside: Path, out: Path, serve: Serve) -> int:
    """Check the request, let `serve` build its plan, and list what came of it."""
    try:
        request = check(inside, "the request")
    except ModelwrightError as error:
        print(f"Error: {error}", flush=True)
        return _NOT_AS_SENT
    out.mkdir(parents=True, exist_ok=True)
    code = serve(inside, out)
    seal(out, request.digest)
    return code


if __name__ == "__main__":
    from modelwright.steps.plan_folders import serve

    sys.exit(main(Path(sys.argv[1]), Path(sys.argv[2]), serve))
