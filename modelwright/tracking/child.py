"""The process that talks to MLflow: brings records to the registry, and sets the alias `live`. A program of its own.

Apart, since MLflow takes seconds to import, waits for minutes where a server hangs, and changes the process it is in.
It reads an `Order` from standard input and answers one JSON object a line; `recorder` reads them, and ends it in time.
"""

from __future__ import annotations

import json
import os
import sys
from collections.abc import Callable, Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any

from modelwright.facts.part import Part, validated
from modelwright.tracking.outbox import Outbox
from modelwright.tracking.record import VERSION_FOLDER, BuildRecord

VERSION_TAG, DIGEST_TAG, RECORD_TAG = "modelwright.version", "modelwright.version_digest", "modelwright.record"
LIVE = "live"  # the alias
_MOST_PLACEHOLDERS = 20  # numbers of MLflow that are used up, so that they are the same as ours
_UPLOAD_TIMEOUT_S = 120
_PARAMS_AT_ONCE, _METRICS_AT_ONCE = 100, 1000
_NO_SUCH = "RESOURCE_DOES_NOT_EXIST"


class Order(Part):
    registry: str  # URI
    experiment: str
    artifacts: str = ""  # where those of an embedded registry lie
    outbox: str
    live: dict[str, int | None]  # model → the version that is served; None: nothing is


class Registry:
    """What is done with one MLflow."""

    def __init__(self, order: Order) -> None:
        from mlflow.tracking import MlflowClient

        if order.artifacts:
            Path(order.artifacts).mkdir(parents=True, exist_ok=True)
        self.client = MlflowClient(order.registry, order.registry)
        self._order = order
        self._experiment = ""
        self._versions: dict[str, list[Any]] = {}  # of models that were asked for

    def record(self, record: BuildRecord, files: Path, version_files: Path) -> int | None:
        """Make a run of it, and register its version: the number that MLflow has for it, or None without a version.

        What an earlier try left is completed.
        """
        known = self._registered(record.model, record.version, record.version_digest)
        if known is not None and record.status == "published":
            return known
        run = self._run(record, files)
        if record.version is None or record.failed:
            return None
        return known if known is not None else self._register(record, run, version_files)

    def _run(self, record: BuildRecord, files: Path) -> Any:
        for run in self.client.search_runs([self.experiment_id()], f"tags.`{RECORD_TAG}` = '{record.uid}'"):
            if run.info.status != "RUNNING":
                return run
            self.client.delete_run(run.info.run_id)
        name = f"{record.model} {record.version}" if record.version else record.model
        tags = {**record.tags, RECORD_TAG: record.uid}
        run = self.client.create_run(self.experiment_id(), record.started_ms, tags=tags, run_name=name)
        self._fill(run.info.run_id, record)
        if any(files.iterdir()):
            self.client.log_artifacts(run.info.run_id, str(files))
        status = "FAILED" if record.failed else "FINISHED"
        self.client.set_terminated(run.info.run_id, status, record.ended_ms)
        return run

    def _fill(self, run_id: str, record: BuildRecord) -> None:
        from mlflow.entities import Metric, Param

        params = [Param(name, value) for name, value in record.params.items()]
        for start in range(0, len(params), _PARAMS_AT_ONCE):
            self.client.log_batch(run_id, params=params[start : start + _PARAMS_AT_ONCE])
        values = [Metric(name, value, record.ended_ms, 0) for name, value in record.metrics.items()]
        for epoch in record.epochs:
            values += [Metric(name, value, record.ended_ms, epoch.step) for name, value in epoch.metrics.items()]
        for start in range(0, len(values), _METRICS_AT_ONCE):
            self.client.log_batch(run_id, metrics=values[start : start + _METRICS_AT_ONCE])

    def experiment_id(self) -> str:
        if not self._experiment:
            name, folder = self._order.experiment, self._order.artifacts
            found = self.client.get_experiment_by_name(name)
            if found is None:
                place = Path(folder).as_uri() if folder else None
                self._experiment = self.client.create_experiment(name, artifact_location=place)
            elif found.lifecycle_stage != "active":
                raise ValueError(f"experiment '{name}' is deleted: restore it in MLflow, or name another one")
            else:
                self._experiment = found.experiment_id
        return self._experiment

    def models(self) -> Iterator[Any]:
        """The registered models."""
        yield from _pages(lambda token: self.client.search_registered_models(page_token=token))

    def versions(self, model: str) -> list[Any]:
        if model not in self._versions:
            quoted = model.replace("'", "''")
            self._versions[model] = [
                *_pages(lambda token: self.client.search_model_versions(f"name='{quoted}'", page_token=token))
            ]
        return self._versions[model]

    def _registered(self, model: str, version: int | None, digest: str) -> int | None:
        """MLflow's number of a version; by its digest, too, where that is given."""
        for item in self.versions(model):
            if item.tags.get(VERSION_TAG) == str(version) and digest in ("", item.tags.get(DIGEST_TAG)):
                return int(item.version)
        return None

    def _register(self, record: BuildRecord, run: Any, files: Path) -> int:
        model, number = record.model, record.version or 0
        with unless("RESOURCE_ALREADY_EXISTS"):
            self.client.create_registered_model(model, description=record.description)
        self._log_version(run.info.run_id, files)
        source = f"{run.info.artifact_uri}/{VERSION_FOLDER}"
        if all(VERSION_TAG in item.tags for item in self.versions(model)):  # no other tool registers here
            self._use_up(model, number, source, run.info.run_id)
        tags = {name: value for name, value in record.tags.items() if name in (VERSION_TAG, DIGEST_TAG)}
        made = self.client.create_model_version(
            model, source, run.info.run_id, tags=tags, description=record.description, await_creation_for=0
        )
        self._versions.pop(model)
        return int(made.version)

    def _log_version(self, run_id: str, files: Path) -> None:
        """A large file is one request: the server answers when it has all of it."""
        if not files.is_dir() or not any(files.iterdir()):
            return
        name, before = "MLFLOW_HTTP_REQUEST_TIMEOUT", os.environ.get("MLFLOW_HTTP_REQUEST_TIMEOUT", "0")
        os.environ[name] = str(max(int(before), _UPLOAD_TIMEOUT_S))
        try:
            self.client.log_artifacts(run_id, str(files), VERSION_FOLDER)
        finally:
            os.environ[name] = before

    def _use_up(self, model: str, number: int, source: str, run_id: str) -> None:
        """Numbers that this model skipped are skipped there: MLflow does not give that of a deleted version again."""
        highest = max((int(item.version) for item in self.versions(model)), default=0)
        for _ in range(number - 1 - highest) if number - 1 - highest <= _MOST_PLACEHOLDERS else ():
            made = self.client.create_model_version(model, source, run_id, await_creation_for=0)
            self.client.delete_model_version(model, made.version)
            if int(made.version) >= number - 1:
                return

    def set_live(self, model: str, version: int | None) -> None:
        """Have the alias point at a version that is registered, or at nothing."""
        if version is None:
            with unless(_NO_SUCH):
                self.client.delete_registered_model_alias(model, LIVE)
            return
        number = self._registered(model, version, "")
        if number is None:
            raise ValueError(f"version {version} is live, and it is not registered")
        self.client.set_registered_model_alias(model, LIVE, str(number))


def _pages(ask: Callable[[str | None], Any]) -> Iterator[Any]:
    token = None
    while True:
        page = ask(token)
        yield from page
        if not (token := page.token):
            return


class unless(suppress):  # noqa: N801 - reads as a statement
    """Pass over an answer of MLflow with this code."""

    def __init__(self, code: str) -> None:
        from mlflow.exceptions import MlflowException

        super().__init__(MlflowException)
        self._code = code

    def __exit__(self, kind: Any, error: Any, trace: Any) -> bool:
        return bool(super().__exit__(kind, error, trace)) and (error is None or error.error_code == self._code)


def _answers(order: Order) -> Iterator[dict[str, Any]]:
    registry, outbox = Registry(order), Outbox(Path(order.outbox))
    for record in outbox.waiting():
        try:
            number = registry.record(record, outbox.files(record), outbox.version(record))
            yield {"recorded": record.uid, "model": record.model, "version": record.version, "number": number}
        except Exception as error:
            yield {"refused": record.uid, "model": record.model, "problem": problem_of(error)}
            if is_down(error):
                return
    for model, version in order.live.items():
        try:
            registry.set_live(model, version)
            yield {"live": model, "version": version}
        except Exception as error:
            yield {"refused": "", "model": model, "problem": problem_of(error)}
            if is_down(error):
                return


def problem_of(error: BaseException) -> str:
    """MLflow's words, or those of the library below it, in one line."""
    text = " ".join(str(error).split()) or type(error).__name__
    if "Timeout" in text or "timed out" in text:
        return "the server takes connections and does not answer in time"
    return text if len(text) <= 300 else f"{text[:300]}…"


def is_down(error: BaseException) -> bool:
    """Whether the next request would fail, too."""
    text = str(error)
    return any(
        sign in text
        for sign in ("Max retries exceeded", "API request to", "Connection", "timed out", "unable to open database")
    )


def main() -> None:
    os.environ.setdefault("GIT_PYTHON_REFRESH", "quiet")
    order = validated(Order, json.loads(sys.stdin.buffer.read()))
    answers = os.fdopen(os.dup(1), "w", encoding="utf-8")
    os.dup2(2, 1)  # what MLflow prints is for the log
    try:
        for answer in _answers(order):
            answers.write(json.dumps(answer) + "\n")
            answers.flush()
    except Exception as error:
        answers.write(json.dumps({"refused": "", "model": "", "problem": problem_of(error)}) + "\n")
        answers.flush()


if __name__ == "__main__":
    main()
