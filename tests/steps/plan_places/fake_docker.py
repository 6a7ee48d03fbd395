"""docker, for tests: `compose version`, `compose run` of the service plan-builder, and `rm`. See places.py."""

import json
import os
import subprocess
import sys
from pathlib import Path


def main(arguments: list[str]) -> int:
    record = Path(os.environ["FAKE_DOCKER"])
    with record.open("a") as file:
        file.write(json.dumps(arguments) + "\n")
    if arguments[:2] == ["compose", "version"]:
        return 0
    if arguments[:1] == ["info"]:
        print(os.environ.get("FAKE_DOCKER_INFO", ""))
        return 0
    if arguments[:1] == ["rm"]:
        return 0
    said = os.environ.get("FAKE_DOCKER_SAYS")
    if said:
        print(said, file=sys.stderr)
        return 125
    folders = {f"/plan/{role}": os.environ[f"PLAN_{role.upper()}"] for role in ("request", "result")}
    command = json.loads(os.environ["FAKE_COMPOSE_COMMAND"])
    for inside, outside in folders.items():
        command = [part.replace(inside, outside) for part in command]
    return subprocess.run(command, check=False).returncode


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
