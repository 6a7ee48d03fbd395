"""The base of all facts, and how damaged ones are named."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Annotated, Any, TypeAlias, TypeVar

from pydantic import (
    BaseModel,
    ConfigDict,
    Field,
    JsonValue,
    SerializerFunctionWrapHandler,
    SkipValidation,
    ValidationError,
    model_serializer,
)

SCHEMA = 2  # of facts and manifests. Raised when a reader of the last one would misread what is written now

# Records are read from JSON: to check again that a value is one would cost more than the rest of a manifest.
JsonObject: TypeAlias = dict[str, Annotated[JsonValue, SkipValidation]]

# Numbers and booleans as they are in JSON: "12" is not an integer, and 1 is not true.
Integer = Annotated[int, Field(strict=True)]
Number = Annotated[float, Field(strict=True)]
Boolean = Annotated[bool, Field(strict=True)]


class Part(BaseModel):
    """A part of a record. Fields that a later Modelwright added under the same schema are passed over."""

    model_config = ConfigDict(frozen=True, extra="ignore", populate_by_name=True)

    @model_serializer(mode="wrap")
    def _written(self, default: SerializerFunctionWrapHandler) -> dict[str, Any]:
        """Optional fields that say nothing are left out."""
        data: dict[str, Any] = default(self)
        for name, field in type(self).model_fields.items():
            if not field.is_required() and getattr(self, name) == field.get_default(call_default_factory=True):
                data.pop(name, None)
        return data

    def as_json(self) -> JsonObject:
        return self.model_dump(mode="json", by_alias=True)


class Facts(Part):
    """What one step learnt. A step returns an instance of a subclass."""

    @classmethod
    def from_schema_1(cls, data: JsonValue) -> JsonValue:
        """Facts as they were written before there was a schema 2, in today's form."""
        return data


FactsT = TypeVar("FactsT", bound=Facts)

_UNION_BRANCHES = ("int", "str")  # pydantic names the branch of a union as if it were a field


class DamagedError(ValueError):
    """A record is not of its type. The message names the field: `lineage[2].output: missing`."""


PartT = TypeVar("PartT", bound=Part)


def validated(kind: type[PartT], data: object, ignored: Sequence[str] = ()) -> PartT:
    """A record of this type. Raises DamagedError."""
    try:
        return kind.model_validate(data)
    except ValidationError as error:
        first = error.errors(include_url=False, include_context=False)[0]
        field = _dotted(first["loc"])
        given = "" if isinstance(first["input"], dict | list) else f", got {first['input']!r}"
        problem = "missing" if first["type"] == "missing" else first["msg"][0].lower() + first["msg"][1:] + given
        raise DamagedError(f"{field}: {problem}" if field else problem) from None


def _dotted(location: Sequence[int | str]) -> str:
    text = ""
    for part in location:
        if part not in _UNION_BRANCHES:
            text += f"[{part}]" if isinstance(part, int) else f".{part}" if text else str(part)
    return text
