"""Builds a plan as a Kubernetes Job on a GPU node. The Job is deleted at the end, however this process ends."""

from __future__ import annotations

import io
import re
import secrets
import shlex
import shutil
import tempfile
import time
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import TypeVar

import yaml

from modelwright.errors import StepError
from modelwright.facts.plan import PlanRequest
from modelwright.project.plan_places import GPUS_HINT, PlanPlaces
from modelwright.steps.context import StepContext
from modelwright.steps.plan_places.archive import unpack
from modelwright.steps.plan_places.arrival import arrived
from modelwright.steps.plan_places.job import CONTAINER, ENDED, FOLDER, LABEL, LOG, RESULT, TAKEN, job_manifest
from modelwright.steps.plan_places.kubectl import Kubectl, KubectlError
from modelwright.steps.plan_places.log import BuildersLog, guarded
from modelwright.steps.plan_places.parcel import LIST, Parcel
from modelwright.steps.plan_places.pods import PodState, state_of
from modelwright.steps.plan_places.request import seal_request
from modelwright.text import size

T = TypeVar("T")

_LONGEST_POLL_S = 5.0  # a small plan is built in seconds, a large one in many minutes: the steps grow
_FIRST_POLL = 10  # the first step is this part of the longest
_PATIENCE = 24  # a cluster that cannot be reached is asked again for as many of the longest steps
_LEAST_TRIES = 3  # of a transfer, however long each takes
_LARGEST_LOG = 100_000_000


def build(inside: Path, out: Path, request: PlanRequest, context: StepContext) -> None:
    """Build the plan of a request. `plan_folders.accept` says what it is."""
    plan_from_job(inside, out, request, context.plan_places, context.say)


def plan_from_job(
    inside: Path,
    out: Path,
    request: PlanRequest,
    settings: PlanPlaces,
    say: Callable[[str], None],
    longest_poll_s: float = _LONGEST_POLL_S,
) -> None:
    """Send the folder of a request to a Job; the folder `out` is its result, checked against its list.

    Raises StepError where the Job does not start or ends without a complete result, and where it takes too long.
    """
    product = settings.kubernetes.gpus.get(request.compute_capability)
    if product is None:
        what = f"no GPU product is named for compute capability {request.compute_capability}"
        raise StepError(f"tensorrt.kubernetes.gpus: {what}", GPUS_HINT)
    sealed = seal_request(inside)
    name = _job_name(request.model)
    run = _Run(settings, name, f"Job {name}", BuildersLog(say), longest_poll_s)
    manifest = job_manifest(name, settings.image_for(request.release), product, settings.kubernetes, settings.timeout_s)
    with guarded(run.kubectl.deletion(name), left=partial(_say_what_is_left, run)):
        run.kubectl.create(manifest)
        run.log.note(f"Job {name}: created, for a node with {product}:\n{yaml.safe_dump(manifest, sort_keys=False)}")
        run.wait_for_pod()
        run.send(inside, sealed)
        code = run.wait_for_end()
        with tempfile.TemporaryDirectory(prefix=".plan-", dir=out.parent) as beside:
            result = run.fetch(Path(beside))
            arrived(result, out, sealed.digest, code=code, log=run.log, where=run.where)


def _say_what_is_left(run: _Run) -> None:
    run.log.note(
        f"{run.where} could not be deleted; it ends by itself, or: {shlex.join(run.kubectl.deletion(run.name))}"
    )


def _job_name(model: str) -> str:
    """A name that no other Job has; names of labels, which pods carry it in, end after 63 characters."""
    readable = re.sub(r"[^a-z0-9]+", "-", model.lower()).strip("-")[:30].strip("-")
    return f"modelwright-plan-{readable or 'model'}-{secrets.token_hex(4)}"


@dataclass
class _Run:
    """One Job, from when it was created."""

    settings: PlanPlaces
    name: str
    where: str
    log: BuildersLog
    longest_poll_s: float
    kubectl: Kubectl = field(init=False)
    pod: str = ""
    _logged: int = 0  # bytes of the builder's log that were passed on
    _pause_s: float = field(init=False)

    def __post_init__(self) -> None:
        self.kubectl = Kubectl(self.settings.kubernetes.context, self.settings.kubernetes.namespace)
        self._pause_s = self.longest_poll_s / _FIRST_POLL

    def wait_for_pod(self) -> None:
        """Until its container runs. Raises StepError where it cannot, or not in time."""
        deadline = time.monotonic() + self.settings.kubernetes.start_timeout_s
        told = ""
        while True:
            state = self._tried(self._state)
            if state.stage == "running":
                self.pod = state.pod
                self.log.note(f"Job {self.name}: its pod {state.pod} runs")
                return
            if state.stage == "over":
                raise StepError(f"{self.where}: {state.why}", state.hint)
            if time.monotonic() > deadline:
                limit = f"{self.settings.kubernetes.start_timeout_s:g} s"
                raise StepError(f"{self.where}: did not start within {limit}: {state.why}", state.hint)
            if state.why != told:
                told = state.why
                self.log.note(f"Job {self.name}: {told}")
            self.log.quiet(f"Job {self.name} waits")
            self._pause()

    def send(self, folder: Path, parcel: Parcel) -> None:
        """The request, at once: its folder appears there when it is complete."""
        files = {name: folder / name for name in (*parcel.files, LIST)}
        self.log.note(f"Job {self.name}: sending {size(sum(path.stat().st_size for path in files.values()))}")
        self._tried(partial(self.kubectl.send, self.pod, CONTAINER, files, f"{FOLDER}/request"))

    def wait_for_end(self) -> int:
        """The exit code of the builder. Raises StepError where its pod ends first, or it takes too long."""
        deadline = time.monotonic() + self.settings.timeout_s
        while True:
            code = self._tried(self._exit_code)
            if code is not None:
                return code
            if time.monotonic() > deadline:
                hint = "raise tensorrt.timeout in modelwright.toml, or lower the variant's builder level"
                raise self.log.died(f"{self.where}: did not end within {self.settings.timeout_s:g} s", hint)
            self.log.quiet(f"Job {self.name} builds")
            self._pause()

    def fetch(self, beside: Path) -> Path:
        """The folder of what the builder made, complete or not; `arrived` says what is wrong with it."""
        archive, result = beside / RESULT, beside / "result"
        self._tried(partial(self._fetch, archive))
        result.mkdir()
        with archive.open("rb") as file:
            unpack(file, result, f"{self.where}: its result")
        archive.unlink()
        self.kubectl.run(self.pod, CONTAINER, f"touch {FOLDER}/{TAKEN}")
        return result

    def _fetch(self, archive: Path) -> None:
        free = shutil.disk_usage(archive.parent).free
        self.log.note(f"Job {self.name}: fetching its result")
        with archive.open("wb") as file:
            # It is unpacked beside itself.
            self.kubectl.fetch(self.pod, CONTAINER, f"{FOLDER}/{RESULT}", file, largest=free // 2)

    def _pause(self) -> None:
        time.sleep(self._pause_s)
        self._pause_s = min(self.longest_poll_s, self._pause_s * 1.5)

    def _exit_code(self) -> int | None:
        """None while the builder runs. What it printed since the last look is passed on."""
        said = io.BytesIO()
        ended = self.kubectl.run(self.pod, CONTAINER, f"cat {FOLDER}/{ENDED} 2>/dev/null || true").strip()
        self.kubectl.fetch(self.pod, CONTAINER, f"{FOLDER}/{LOG}", said, largest=_LARGEST_LOG, start=self._logged)
        text = said.getvalue()
        complete = text if ended else text[: text.rfind(b"\n") + 1]
        self._logged += len(complete)
        for line in complete.decode("utf-8", "replace").splitlines():
            self.log.line(line)
        return int(ended) if ended.isdigit() else None

    def _state(self) -> PodState:
        pods = self.kubectl.get("pods", f"--selector={LABEL}={self.name}").get("items", [])
        if pods:
            return state_of({}, pods)
        job = self.kubectl.get("job", self.name)
        events = self.kubectl.get("events", f"--field-selector=involvedObject.name={self.name}").get("items", [])
        return state_of(job, pods, events)

    def _raise_if_over(self) -> None:
        with suppress(KubectlError):
            state = self._state()
            if state.stage == "over":
                raise self.log.died(f"{self.where}: {state.why}", state.hint)

    def _tried(self, action: Callable[[], T]) -> T:
        """The result of a call that is repeated where it may go better the next time: connections break.

        Gives up after a while, and at once where the pod has ended, which says more than that it cannot be talked to.
        """
        started, tries = time.monotonic(), 0
        while True:
            try:
                return action()
            except KubectlError as error:
                tries += 1
                if self.pod:
                    self._raise_if_over()
                patient = time.monotonic() - started < _PATIENCE * self.longest_poll_s or tries < _LEAST_TRIES
                if error.is_final or not patient:
                    raise
                self.log.note(f"{error.message}; trying again")
                self._pause()
