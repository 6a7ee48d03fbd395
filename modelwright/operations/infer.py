"""`serve` and `infer`: the local server for people, and one request to any server."""

from __future__ import annotations

import contextlib
import json
import signal
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

from modelwright.errors import ModelwrightError, ServerError
from modelwright.operations.replay import serving_all
from modelwright.project.project import ProjectConfig
from modelwright.repository.repository import Repository
from modelwright.repository.versions import needs_completion, published
from modelwright.suggest import did_you_mean
from modelwright.triton.client import Client, connect
from modelwright.triton.dtypes import BY_NAME
from modelwright.triton.layout import GOLDEN
from modelwright.triton.tensors import Tensors
from modelwright.verification.golden import load_golden

Say = Callable[[str], Any]
DEFAULT_URL = "http://127.0.0.1:8000"


def serve(
    project: ProjectConfig, ports: tuple[int, int, int], poll: bool, say: Say, environment_name: str | None = None
) -> None:
    """Serve until Ctrl-C or SIGTERM, or until the server ends. Raises ServerError when it does not start.

    With `environment_name`, models that have a config of that name run with it, the others with config.pbtxt.
    """
    from modelwright.server import environment
    from modelwright.server.local import Ports, running

    configured = _configured(project, environment_name) if environment_name else []
    extra = [f"--model-config-name={environment_name}"] if environment_name else []
    signal.signal(signal.SIGTERM, signal.default_int_handler)  # service managers ask so; requests in flight may finish
    made = environment.ensure(project.server, project.target, say)
    log = project.logs / "serve.log"
    repository = Repository(project.repository, project.staging)
    mode, models = ("poll", []) if poll else ("explicit", ["*"])
    with running(
        made,
        project.repository,
        log=log,
        mode=mode,  # type: ignore[arg-type]
        models=models,
        ports=Ports(*ports),
        auto_complete=needs_completion(repository, repository.models()),
        extra_arguments=extra,
    ) as server:
        say(f"tritonserver {environment.SERVER_VERSION} serves {project.shown(project.repository)}")
        say(f"  HTTP http://{server.http}  gRPC grpc://{server.grpc}  metrics http://{server.metrics}/metrics")
        if environment_name:
            say(f"  environment {environment_name}: {', '.join(configured)}; any other model: its config.pbtxt")
        for name, reason in server.failures().items():
            say(f"  {name} does not load: {reason}")
        with connect(f"http://{server.http}") as client:
            for entry in client.index():
                if entry.state == "READY":
                    say(f"  {entry.name} version {entry.version}")
        say(f"  log: {project.shown(log)}; Ctrl-C stops it")
        with contextlib.suppress(KeyboardInterrupt):
            server.wait()
            raise ServerError(f"tritonserver ended by itself; see {project.shown(log)}")


def _configured(project: ProjectConfig, environment: str) -> list[str]:
    """The models that have a config for an environment. Raises ServerError when none has."""
    repository = Repository(project.repository, project.staging)
    known = {model: repository.environments(model) for model in repository.models()}
    found = [model for model, names in known.items() if environment in names]
    if not found:
        names = sorted({name for names in known.values() for name in names})
        hint = did_you_mean(environment, names) or "write one under serving.environments in a model.yaml, and build"
        raise ServerError(f"--environment {environment}: no model in {project.shown(project.repository)} has it", hint)
    return found


@dataclass(frozen=True)
class Request:
    """What to send: a golden sample of the model, or inputs given as NAME=JSON."""

    model: str
    version: str = ""
    sample: int = 0
    given: Sequence[str] = ()
    top: int = 3


def infer(
    project: ProjectConfig, url: str | None, request: Request, say: Say, usual_url: str = DEFAULT_URL
) -> dict[str, Any]:
    """Send one request. Outputs with labels come back as the top classes, others as values.

    Without `url` the server at `usual_url` is asked, and where none has the model, one that is started for this call.
    """
    with _server(project, url, usual_url, request.model, say) as client:
        config = client.config(request.model)
        inputs = _given(config, request.given) if request.given else _sample(project, config, request)
        labelled = [entry["name"] for entry in config.get("output", []) if entry.get("label_filename")]
        plain = [entry["name"] for entry in config.get("output", []) if entry["name"] not in labelled]
        answer: dict[str, Any] = {"model": request.model, "classes": {}, "outputs": {}}
        if labelled:
            classes = client.infer(request.model, inputs, request.version, labelled, class_count=request.top)
            answer["classes"] = {name: [_class(item) for item in array.ravel()] for name, array in classes.items()}
        if plain:
            outputs = client.infer(request.model, inputs, request.version, plain)
            answer["outputs"] = {name: _described(array) for name, array in outputs.items()}
        return answer


def answer_text(answer: dict[str, Any]) -> str:
    lines = []
    for name, classes in answer["classes"].items():
        lines.append(f"{answer['model']} {name}:")
        lines += [f"  {item['label'] or item['index']:<12} {item['score']:>10.4f}" for item in classes]
    for name, output in answer["outputs"].items():
        values = ", ".join(_shown(value) for value in output["values"])
        rest = ", …" if output["more"] else ""
        lines.append(f"{answer['model']} {name}: {output['dtype']} {output['shape']} [{values}{rest}]")
    return "\n".join(lines)


@contextlib.contextmanager
def _server(project: ProjectConfig, url: str | None, usual_url: str, model: str, say: Say) -> Iterator[Client]:
    """The server that was asked for; else the one of `serve`, if it is up; else one for this call."""
    if url:
        with connect(url) as client:
            yield client
        return
    with connect(usual_url) as client:
        if _has_model(client, model):
            yield client
            return
    say(f"no server with {model} at {usual_url}: starting one for this call (modelwright serve keeps one up)")
    versions = published(Repository(project.repository, project.staging), _with_members(project, model))
    with serving_all(project, versions, project.logs / "infer.log", say) as local, connect(local.urls[0]) as client:
        yield client


def _has_model(client: Client, model: str) -> bool:
    try:
        return client.model_ready(model)
    except ServerError:  # most likely there is no server, and then one is started
        return False


def _with_members(project: ProjectConfig, model: str) -> list[str]:
    latest = Repository(project.repository, project.staging).latest(model)
    members = latest[1]["made"].get("members", {}) if latest else {}
    return [*(name for member in members for name in _with_members(project, member)), model]


def _sample(project: ProjectConfig, config: dict[str, Any], request: Request) -> Tensors:
    """One golden sample of the newest version here, with the batch dimension if the model has one."""
    repository = Repository(project.repository, project.staging)
    latest = repository.latest(request.model)
    golden = repository.folder(request.model, latest[0]) / GOLDEN if latest else None
    if golden is None or not golden.is_file():
        raise ServerError(f"{request.model}: no golden samples here", "give the inputs: --input NAME=JSON")
    inputs, _ = load_golden(golden)
    count = len(next(iter(inputs.values())))
    if not 0 <= request.sample < count:
        raise ServerError(f"--sample {request.sample}: {request.model} has samples 0 to {count - 1}")
    rows = {name: array[request.sample : request.sample + 1] for name, array in inputs.items()}
    return rows if config.get("max_batch_size") else {name: array[0] for name, array in rows.items()}


def _given(config: dict[str, Any], given: Sequence[str]) -> Tensors:
    import numpy as np

    known = {entry["name"]: entry for entry in config.get("input", [])}
    inputs: Tensors = {}
    for item in given:
        name, equals, text = item.partition("=")
        if not equals or name not in known:
            raise ModelwrightError(f"--input {item}: NAME=JSON is needed", did_you_mean(name, known))
        dtype = BY_NAME[known[name]["data_type"].removeprefix("TYPE_")]
        try:
            value = json.loads(text)
        except ValueError as error:
            hint = f"a string is written with its quotes: --input '{name}=[\"some text\"]'"
            raise ModelwrightError(f"--input {name}: not JSON: {error}", hint) from None
        try:
            array = np.array(value, dtype=object if dtype.numpy == "object" else dtype.numpy)
        except (TypeError, ValueError) as error:
            raise ModelwrightError(f"--input {name}: not {dtype.name}: {error}") from None
        if dtype.numpy == "object":
            array = np.array([str(part).encode() for part in array.ravel()], dtype=object).reshape(array.shape)
        rank = len(known[name].get("dims", [])) + bool(config.get("max_batch_size"))
        inputs[name] = array if array.ndim >= rank else array.reshape((1,) * (rank - array.ndim) + array.shape)
    return inputs


def _class(item: bytes) -> dict[str, Any]:
    """Triton's classification extension: b"score:index" or b"score:index:label"."""
    score, index, *label = item.decode("utf-8", "replace").split(":", 2)
    return {"label": label[0] if label else "", "index": int(index), "score": float(score)}


def _described(array: Any, most: int = 8) -> dict[str, Any]:
    flat = array.ravel()[:most].tolist()
    values = [value.decode("utf-8", "replace") if isinstance(value, bytes) else value for value in flat]
    return {
        "dtype": "strings" if array.dtype == object else str(array.dtype),
        "shape": list(array.shape),
        "values": values,
        "more": array.size > most,
    }


def _shown(value: Any) -> str:
    return f"{value:.4f}" if isinstance(value, float) else str(value)
