"""The ModelConfig message, from a descriptor that this package holds: to lint and to plan takes no tritonclient."""

from __future__ import annotations

from functools import cache
from types import SimpleNamespace
from typing import Any


@cache
def schema() -> Any:
    """The messages and enums of model_config.proto by name, and `DESCRIPTOR`, the file's.

    In a pool of their own, because tritonclient registers its file of the same name, of whatever version it is, in
    protobuf's default one.
    """
    from google.protobuf.descriptor_pool import DescriptorPool
    from google.protobuf.internal.enum_type_wrapper import EnumTypeWrapper
    from google.protobuf.message_factory import GetMessageClass

    from modelwright.triton.model_config_descriptor import SERIALIZED

    pool = DescriptorPool()
    pool.AddSerializedFile(SERIALIZED)
    file = pool.FindFileByName("model_config.proto")
    messages = {name: GetMessageClass(message) for name, message in file.message_types_by_name.items()}
    enums = {name: EnumTypeWrapper(enum) for name, enum in file.enum_types_by_name.items()}
    return SimpleNamespace(DESCRIPTOR=file, **messages, **enums)


def data_type_name(number: int) -> str:
    """11 → 'TYPE_FP32'; the number itself where DataType has no such value."""
    types = schema().DataType
    return str(types.Name(number)) if number in types.values() else str(number)
