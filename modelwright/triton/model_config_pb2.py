"""The ModelConfig message as tritonclient ships it."""

from __future__ import annotations

import importlib.util
import sys
from functools import cache
from pathlib import Path
from types import ModuleType


@cache
def schema() -> ModuleType:
    """tritonclient's model_config_pb2, loaded without its package, which imports grpc: planning needs no grpc."""
    name = "tritonclient.grpc.model_config_pb2"
    if name in sys.modules:
        return sys.modules[name]
    package = importlib.util.find_spec("tritonclient")
    assert package is not None
    assert package.submodule_search_locations
    path = Path(package.submodule_search_locations[0], "grpc", "model_config_pb2.py")
    spec = importlib.util.spec_from_file_location("modelwright._model_config_pb2", path)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def data_type_name(number: int) -> str:
    """11 → 'TYPE_FP32'; the number itself where DataType has no such value."""
    types = schema().DataType
    return str(types.Name(number)) if number in types.values() else str(number)
