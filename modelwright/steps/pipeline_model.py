"""Made by modelwright: one version of a pipeline, which is served beside other versions of the same name.

Runs the steps of pipeline.json by calls inside the server, each on the version of its model that this version was
verified with: the config parameter `pins` has their numbers.
"""

from __future__ import annotations

import asyncio
import json
from pathlib import Path
from typing import Any

import triton_python_backend_utils as pb_utils


class TritonPythonModel:
    def initialize(self, args: dict[str, str]) -> None:
        version = args["model_version"]
        folder = Path(args["model_repository"], version)
        self._stages = json.loads((folder / "pipeline.json").read_text(encoding="utf-8"))["stages"]
        config = json.loads(args["model_config"])
        pins = json.loads(config["parameters"]["pins"]["string_value"])
        if version not in pins:
            raise pb_utils.TritonModelException(f"config.pbtxt: the parameter `pins` does not name version {version}")
        self._versions = pins[version]

    async def execute(self, requests: list[Any]) -> list[Any]:
        """Answer requests at the same time, where the server groups them."""
        is_alone = len(requests) == 1
        return await asyncio.gather(*(self._response(request, is_alone) for request in requests))

    async def _response(self, request: Any, is_alone: bool) -> Any:
        try:
            tensors = await self._run(request, is_alone)
        except PipelineError as error:
            return pb_utils.InferenceResponse(error=pb_utils.TritonError(error.message, error.code))
        names = request.requested_output_names()
        return pb_utils.InferenceResponse([_renamed(tensors[name], name) for name in names])

    async def _run(self, request: Any, is_alone: bool) -> dict[str, Any]:
        """All tensors of the pipeline, by name. The steps of a stage need nothing of each other."""
        tensors = {tensor.name(): tensor for tensor in request.inputs()}
        for stage in self._stages:
            if request.is_cancelled():
                raise PipelineError("the request was cancelled", pb_utils.TritonError.CANCELLED)
            calls = [self._call(step, tensors, request) for step in stage]
            if is_alone and len(calls) == 1:
                replies = [calls[0].exec()]  # a thread for the call would only cost time
            else:
                replies = await asyncio.gather(*(call.async_exec() for call in calls))
            for step, reply in zip(stage, replies, strict=True):
                if reply.has_error():
                    raise self._failed(step, reply.error())
                for tensor in reply.output_tensors():
                    tensors[step["output_map"][tensor.name()]] = tensor
        return tensors

    def _call(self, step: dict[str, Any], tensors: dict[str, Any], request: Any) -> Any:
        """The request to one model; an optional input of the pipeline may be missing."""
        given = [(name, tensors[tensor]) for name, tensor in step["input_map"].items() if tensor in tensors]
        return pb_utils.InferenceRequest(
            model_name=step["model_name"],
            model_version=self._versions[step["model_name"]],
            inputs=[_renamed(tensor, name) for name, tensor in given],
            requested_output_names=list(step["output_map"]),
            request_id=request.request_id(),
            correlation_id=request.correlation_id(),
            timeout=request.timeout(),
            trace=request.trace(),
            parameters=json.loads(request.parameters() or "{}"),
        )

    def _failed(self, step: dict[str, Any], error: Any) -> PipelineError:
        model = step["model_name"]
        return PipelineError(f"step {model}, version {self._versions[model]}: {error.message()}", error.code())


class PipelineError(Exception):
    def __init__(self, message: str, code: Any) -> None:
        super().__init__(message)
        self.message, self.code = message, code


def _renamed(tensor: Any, name: str) -> Any:
    """A tensor under another name. Only strings are copied: DLPack does not have them."""
    if tensor.name() == name:
        return tensor
    try:
        return pb_utils.Tensor.from_dlpack(name, tensor.to_dlpack())
    except pb_utils.TritonModelException:
        return pb_utils.Tensor(name, tensor.as_numpy())
