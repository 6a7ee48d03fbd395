"""kubectl, for tests: a cluster with one pod, whose container is a process of this machine. See places.py."""

import json
import os
import signal
import subprocess
import sys
from contextlib import suppress
from pathlib import Path
from typing import Any

FOLDER = Path(os.environ["FAKE_CLUSTER"])
VOLUME = FOLDER / "plan"


def main(arguments: list[str]) -> int:
    with (FOLDER / "calls").open("a") as file:
        file.write(json.dumps(arguments) + "\n")
    answers = json.loads((FOLDER / "answers.json").read_text()) if (FOLDER / "answers.json").exists() else {}
    own = arguments[: arguments.index("--")] if "--" in arguments else arguments
    verb, *rest = [part for part in own if not part.startswith("-")]
    error = answers.get("errors", {}).get(verb)
    if error and not past(FOLDER / f"failed {verb}", answers.get("failures", 10**6)):
        print(error, file=sys.stderr)
        return 1
    if verb == "config":
        print("lab")
        return 0
    if verb == "create":
        return create()
    if verb == "delete":
        return delete()
    if verb == "get":
        print(json.dumps(get(rest[0], answers)))
        return 0
    return execute(arguments[arguments.index("--") + 1 :], answers)


def past(file: Path, times: int) -> bool:
    """Whether this was asked so many times before."""
    count = len(file.read_text()) if file.exists() else 0
    file.write_text("x" * (count + 1))
    return count >= times


def create() -> int:
    job = json.load(sys.stdin)
    (FOLDER / "job.json").write_text(json.dumps(job))
    VOLUME.mkdir()
    args = job["spec"]["template"]["spec"]["containers"][0]["args"]
    process = subprocess.Popen(
        [part.replace("/plan", str(VOLUME)).replace("sleep 1\n", "sleep 0.05\n") for part in args],
        stdin=subprocess.DEVNULL,
        stdout=(FOLDER / "container.log").open("wb"),
        stderr=subprocess.STDOUT,
        start_new_session=True,
    )
    (FOLDER / "groups").write_text(f"{process.pid}\n")
    print(f"job.batch/{job['metadata']['name']}")
    return 0


def delete() -> int:
    for group in (FOLDER / "groups").read_text().split() if (FOLDER / "groups").exists() else []:
        with suppress(ProcessLookupError):
            os.killpg(int(group), signal.SIGKILL)
    (FOLDER / "is deleted").touch()
    return 0


def get(kind: str, answers: dict[str, Any]) -> object:
    if kind != "pods":
        return answers.get(kind, {"items": []})
    running = {"metadata": {"name": "plan-x7k2p"}, "status": {"phase": "Running", "containerStatuses": [{"name": "builder", "state": {"running": {}}}]}}  # fmt: skip
    states = answers.get("pods", [[running]])
    looked = FOLDER / "looked"
    count = len(looked.read_text()) if looked.exists() else 0
    looked.write_text("x" * (count + 1))
    return {"items": states[min(count, len(states) - 1)]}


def execute(command: list[str], answers: dict[str, Any]) -> int:
    """Becomes the command, unless the transfer is to be cut short."""
    command = [part.replace("/plan", str(VOLUME)) for part in command]
    if "result.tar" in str(command) and not past(FOLDER / "cuts", answers.get("cut", 0)):
        process = subprocess.Popen(command, stdout=subprocess.PIPE, start_new_session=True)
        assert process.stdout is not None
        sys.stdout.buffer.write(process.stdout.read(600))
        os.killpg(process.pid, signal.SIGKILL)
        return 0  # as the real one: nothing says that bytes are missing
    os.setsid()
    with (FOLDER / "groups").open("a") as file:
        file.write(f"{os.getpid()}\n")
    return os.execvp(command[0], command)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
