"""Tensors in system shared memory, for a server on the same machine: requests then carry references only.

The inputs of all payloads are in one region, which all callers share. Outputs of known size go into a region of each
caller; outputs of variable size, and strings, come in the answer.
"""

from __future__ import annotations

import contextlib
import math
import secrets
from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
import tritonclient.utils.shared_memory as memory
from tritonclient.utils import InferenceServerException, serialize_byte_tensor

from modelwright.errors import LoadError
from modelwright.loadtest.payloads.interface import InterfaceTensor as Described
from modelwright.loadtest.payloads.interface import ModelInterface
from modelwright.loadtest.wire.callers import Caller
from modelwright.loadtest.wire.encoding import Region
from modelwright.triton.arrays import numpy_dtype

if TYPE_CHECKING:
    from modelwright.triton.tensors import Tensors

_ALIGNED = 64
Regions = Mapping[str, Region]
MakeCaller = Callable[[Sequence[tuple["Tensors", tuple[Regions, Regions]]]], Caller]


class SharedMemory:
    """The regions of one context. `client` is tritonclient's. Raises LoadError if the server refuses them."""

    def __init__(
        self, client: Any, interface: ModelInterface, payloads: Sequence[Tensors], batch: int, make: MakeCaller
    ):
        self._client = client
        self._payloads = payloads
        self._make = make
        self._regions: dict[str, Any] = {}
        self._outputs = {
            output.name: (tuple(shape), numpy_dtype(output.datatype))
            for output in interface.outputs
            if (shape := _shape(output, interface, batch)) is not None
        }
        self._all_outputs = [output.name for output in interface.outputs]
        raw = [{name: _raw(array) for name, array in tensors.items()} for tensors in payloads]
        sizes = [array.nbytes for tensors in raw for array in tensors.values()]
        name, region = self._region(sum(map(_aligned, sizes)))
        self._inputs = list(_placed(name, region, raw))

    def caller(self) -> Caller:
        sizes = {name: math.prod(shape) * dtype.itemsize for name, (shape, dtype) in self._outputs.items()}
        region_name, region = self._region(sum(map(_aligned, sizes.values())) or 1)
        back, offset = {}, 0
        for name in self._all_outputs:
            size = sizes.get(name, 0)
            back[name] = Region(region_name, offset, size)
            offset += _aligned(size)
        requests = [(tensors, (there, back)) for tensors, there in zip(self._payloads, self._inputs, strict=True)]
        return _Reading(self._make(requests), region, back, self._outputs)

    def _region(self, size: int) -> tuple[str, Any]:
        name = f"modelwright-{secrets.token_hex(6)}"
        try:
            region = memory.create_shared_memory_region(name, f"/{name}", max(size, 1), create_only=True)
            self._regions[name] = region
            self._client.register_system_shared_memory(name, f"/{name}", max(size, 1))
        except (InferenceServerException, memory.SharedMemoryException, OSError) as error:
            self.close()
            hint = "the server must be on this machine and see its /dev/shm (in a container: --ipc=host)"
            raise LoadError(f"--shared-memory: {error}", hint) from None
        return name, region

    def close(self) -> None:
        for name, region in self._regions.items():
            with contextlib.suppress(InferenceServerException, OSError):  # a server that has ended has dropped them
                self._client.unregister_system_shared_memory(name)
            memory.destroy_shared_memory_region(region)
        self._regions.clear()


class _Reading:
    """A caller whose answers are partly in shared memory."""

    def __init__(self, inner: Caller, region: Any, back: Regions, outputs: Mapping[str, tuple[tuple[int, ...], Any]]):
        self._inner, self._region, self._back, self._outputs = inner, region, back, outputs
        self.call = inner.call
        self.close = inner.close

    def parse(self, answer: Any) -> Tensors:
        found = dict(self._inner.parse(answer))
        for name, (shape, dtype) in self._outputs.items():
            found[name] = memory.get_contents_as_numpy(self._region, dtype, list(shape), self._back[name].offset)
        return found


def _shape(output: Described, interface: ModelInterface, batch: int) -> list[int] | None:
    """An output's shape with its batch dimension; None if its size is not known in advance."""
    if output.datatype == "BYTES" or min(output.dims, default=1) < 0:
        return None
    return [batch, *output.dims] if interface.max_batch_size else list(output.dims)


def _raw(array: Any) -> Any:
    """A tensor's bytes in the protocol's encoding."""
    if array.dtype == object:
        array = serialize_byte_tensor(array)
        return np.frombuffer(array.item() if array.size else b"", dtype=np.uint8)
    return np.frombuffer(np.ascontiguousarray(array).tobytes(), dtype=np.uint8)


def _placed(name: str, region: Any, raw: Sequence[Tensors]) -> Any:
    """Write tensors into a region, one after the other; yields where each is."""
    offset = 0
    for tensors in raw:
        places = {}
        for tensor, array in tensors.items():
            memory.set_shared_memory_region(region, [array], offset)
            places[tensor] = Region(name, offset, array.nbytes)
            offset += _aligned(array.nbytes)
        yield places


def _aligned(size: int) -> int:
    return -(-size // _ALIGNED) * _ALIGNED
