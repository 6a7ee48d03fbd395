"""Stand-ins for TensorRT's classes, made from the real bindings: every call is held against the bindings' signatures.

The bindings are pybind11's. Each function and property says in its docstring which arguments it takes, of which types,
and what it returns. A stand-in has the names of the real class and no others; it checks arguments as pybind11 would, and
returns what the docstring promises: a stand-in, a value of an enumeration, a number. Enumerations and plain values such
as Dims are the real ones.

Standard Python cannot do this: `unittest.mock.create_autospec` sees no signature in a compiled function.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from types import ModuleType
from typing import Any

# Classes that TensorRT's libraries would make, so that without them none can be had.
_STAND_INS = (
    "Builder", "IBuilderConfig", "INetworkDefinition", "IOptimizationProfile", "ITimingCache", "IHostMemory", "ITensor",
    "ILayer", "OnnxParser", "ParserError", "Runtime", "ICudaEngine", "EngineInspector", "IExecutionContext",
)  # fmt: skip
_SIGNATURE = re.compile(r"^(?:\d+\. )?(?P<name>\w+)?\((?P<arguments>.*)\)(?: -> (?P<returns>.+?))?:?$")
_PLAIN: Mapping[str, tuple[type, ...]] = {
    "int": (int,),
    "typing.SupportsInt": (int,),
    "typing.SupportsIndex": (int,),
    "typing.SupportsFloat": (int, float),
    "float": (int, float),
    "str": (str,),
    "bool": (bool,),
    "buffer": (bytes, bytearray, memoryview),
    "typing_extensions.Buffer": (bytes, bytearray, memoryview),
}


class SignatureError(AssertionError):
    """A call that the real bindings would refuse."""


@dataclass(frozen=True)
class Argument:
    name: str
    types: str  # "int", "tensorrt_bindings.tensorrt.Dims", "str | None"
    optional: bool


@dataclass(frozen=True)
class Signature:
    arguments: tuple[Argument, ...]  # without self
    returns: str


def signatures(doc: str | None) -> list[Signature]:
    """Those that a docstring of pybind11 has: one, or one for each overload."""
    found = []
    for line in (doc or "").splitlines():
        match = _SIGNATURE.match(line.strip())
        if match and "*args" not in match["arguments"] and (": " in match["arguments"] or match["name"]):
            found.append(Signature(_arguments(match["arguments"]), match["returns"] or "None"))
            if not re.match(r"\d+\. ", line.strip()):
                break  # prose follows
    return found


def _arguments(text: str) -> tuple[Argument, ...]:
    parts, depth, start = [], 0, 0
    for at, char in enumerate(text):
        depth += (char in "[(<") - (char in "])>")
        if char == "," and depth == 0:
            parts.append(text[start:at])
            start = at + 1
    parts = [part.strip() for part in (*parts, text[start:]) if part.strip()]
    made = []
    for part in parts:
        name, _, rest = part.partition(": ")
        types, _, default = rest.partition(" = ")
        if name not in ("self", "*", "/"):
            made.append(Argument(name, types.strip(), bool(default)))
    return tuple(made[1:] if parts and parts[0].startswith("arg0:") and len(parts) == len(made) else made)


class Bindings:
    """A module like the real one, with stand-ins in place of the classes that need TensorRT's libraries.

    `values` are what a stand-in answers where the promised type alone is not enough: {"INetworkDefinition.num_inputs":
    1}; a function gets the arguments of the call. `calls` has each that was made: "Builder.create_network".
    """

    def __init__(self, real: ModuleType, values: Mapping[str, Any]) -> None:
        self.real = real
        self.values = values
        self.calls: list[str] = []
        self.module = ModuleType("tensorrt")
        vars(self.module).update(
            {name: value for name, value in vars(real).items() if not name.startswith("__") or name == "__version__"}
        )
        self.classes = {name: self._stand_in(getattr(real, name)) for name in _STAND_INS if hasattr(real, name)}
        vars(self.module).update(self.classes)
        self.module.init_libnvinfer_plugins = self._function(  # type: ignore[attr-defined]
            "init_libnvinfer_plugins", real.init_libnvinfer_plugins.__doc__
        )

    def _stand_in(self, real: type) -> type:
        members: dict[str, Any] = {"__slots__": (), "__doc__": real.__doc__}
        for name in dir(real):
            value = getattr(real, name)
            if isinstance(value, property):
                members[name] = self._property(f"{real.__name__}.{name}", value)
            elif callable(value) and not isinstance(value, type) and not name.startswith("__"):
                members[name] = self._method(f"{real.__name__}.{name}", value.__doc__)
            elif not name.startswith("__"):
                members[name] = value  # an enumeration inside the class
        constructor = getattr(real, "__init__", None)
        known = signatures(constructor.__doc__ if constructor else None)
        members["__init__"] = self._constructor(real.__name__, known)
        for name in ("__len__", "__iter__", "__getitem__"):
            if f"{real.__name__}.{name}" in self.values:
                members[name] = self._special(f"{real.__name__}.{name}")
        return type(real.__name__, (), members)

    def _constructor(self, name: str, known: list[Signature]) -> Callable[..., None]:
        def construct(instance: Any, *given: Any, **named: Any) -> None:
            if _made_inside(given, named):
                return
            self._checked(f"{name}.__init__", known, given, named)

        return construct

    def _method(self, path: str, doc: str | None) -> Callable[..., Any]:
        known = signatures(doc)

        def call(instance: Any, *given: Any, **named: Any) -> Any:
            return self._checked(path, known, given, named)

        return call

    def _function(self, path: str, doc: str | None) -> Callable[..., Any]:
        known = signatures(doc)

        def call(*given: Any, **named: Any) -> Any:
            return self._checked(path, known, given, named)

        return call

    def _special(self, path: str) -> Callable[..., Any]:
        def call(instance: Any, *given: Any) -> Any:
            value = self.values[path]
            return value(instance, *given) if callable(value) else value

        return call

    def _property(self, path: str, real: property) -> property:
        read = signatures(real.fget.__doc__ if real.fget else None)
        written = signatures(real.fset.__doc__ if real.fset else None)

        def get(instance: Any) -> Any:
            return self._checked(path, read, (), {})

        def put(instance: Any, value: Any) -> None:
            self._checked(f"{path} =", written, (value,), {})

        return property(get, put if real.fset else None)

    def _checked(self, path: str, known: list[Signature], given: tuple[Any, ...], named: Mapping[str, Any]) -> Any:
        self.calls.append(path)
        reasons = []
        for signature in known:
            reason = self._refused(signature, given, named)
            if not reason:
                return self._value(path, signature.returns, given)
            reasons.append(reason)
        raise SignatureError(f"{path}{given}{dict(named) or ''}: {'; '.join(reasons) or 'no signature is known'}")

    def _refused(self, signature: Signature, given: tuple[Any, ...], named: Mapping[str, Any]) -> str:
        if len(given) > len(signature.arguments):
            return f"{len(given)} arguments, it takes {len(signature.arguments)}"
        bound = dict(zip((item.name for item in signature.arguments), given, strict=False))
        for name in named:
            if name in bound or name not in {item.name for item in signature.arguments}:
                return f"no argument '{name}'"
        bound |= named
        for item in signature.arguments:
            if item.name not in bound:
                if item.optional:
                    continue
                return f"'{item.name}' is missing"
            if not self._fits(bound[item.name], item.types):
                return f"'{item.name}' is {bound[item.name]!r}, not {item.types}"
        return ""

    def _fits(self, value: Any, types: str) -> bool:
        for one in types.split(" | "):
            short = _short(one)
            if one in _PLAIN:
                if isinstance(value, _PLAIN[one]) and (
                    one == "bool" or not isinstance(value, bool) or "int" in one.lower()
                ):
                    return True
            elif one == "None":
                if value is None:
                    return True
            elif one in ("capsule", "typing_extensions.CapsuleType"):  # the bindings pass a logger on as one
                if isinstance(value, self.real.ILogger):
                    return True
            elif one.startswith(("List", "list", "collections.abc.Sequence")):
                if isinstance(value, list | tuple):
                    return True
            elif short == "Dims":
                if isinstance(value, list | tuple | self.real.Dims):
                    return True
            else:
                wanted = self.classes.get(short) or getattr(self.real, short, None)
                if isinstance(wanted, type) and isinstance(value, wanted):
                    return True
        return False

    def _value(self, path: str, returns: str, given: tuple[Any, ...]) -> Any:
        if path in self.values:
            value = self.values[path]
            return value(*given) if callable(value) else value
        short = _short(returns)
        if short in self.classes:
            return self.classes[short](_INSIDE)
        promised = getattr(self.real, short, None)
        members = getattr(promised, "__members__", None)
        if members:
            return next(iter(members.values()))
        return {"int": 0, "str": "", "bool": True, "float": 0.0, "bytes": b"", "None": None}.get(returns)


def _short(type_name: str) -> str:
    """The name in the module of "tensorrt_bindings.tensorrt.Dims" and of C++'s "nvinfer1::Dims"."""
    short = type_name.replace("::", ".").rpartition(".")[2]
    return {"IParserError": "ParserError"}.get(short, short)


_INSIDE = object()  # what a stand-in is made with that a call returned


def _made_inside(given: tuple[Any, ...], named: Mapping[str, Any]) -> bool:
    return given == (_INSIDE,) and not named
