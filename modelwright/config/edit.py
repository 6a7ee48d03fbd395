"""Edits of a config.pbtxt as text: one field is replaced, and everything else stays as it was written.

    with_versions(text, [4, 5])      version_policy { specific { versions: [ 4, 5 ] } }
    with_parameter(text, "pins", '{"3": {"digits": 4}}')

A build renders a config and then makes the same edits, so both agree byte for byte. Every function raises ConfigError
for a text that is no config.pbtxt.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Sequence
from typing import Any

from modelwright.config.render import inline, parse, quoted
from modelwright.errors import ConfigError
from modelwright.triton.layout import CONFIG
from modelwright.triton.pbtext import FieldPlace, PbtxtError, places
from modelwright.triton.policy import selected

POLICY = "version_policy"
_PARAMETERS = "parameters"
_COMMENT = "#"
_OWN = "# model.yaml: "  # what the field is there
_NO_POLICY = f"no {POLICY}"


def written_field(text: str, name: str) -> str | None:
    """A top-level field as it is written, without the line's comment; None where there is none."""
    found = [text[place.start : place.end] for place in _places(text) if place.field.name == name]
    return "\n".join(found) if found else None


def with_field(text: str, name: str, written: str | None) -> str:
    """The text with one top-level field replaced, added or (None) removed.

    It is put where its first occurrence stands, or at the end, in front of the closing lines of comments.
    """
    return _replaced(text, [place for place in _places(text) if place.field.name == name], written)


def own_policy(text: str) -> str | None:
    """The version_policy that the model's own configuration has, on one line; None where it has none.

    Where `with_versions` put another one in its place, the line's comment has it.
    """
    found = [place for place in _places(text) if place.field.name == POLICY]
    if not found:
        return None
    comment = text[found[-1].end : text.find("\n", found[-1].end)].strip() if "\n" in text[found[-1].end :] else ""
    if comment.startswith(_OWN):
        own = comment.removeprefix(_OWN)
        return None if own == _NO_POLICY else own
    return "\n".join(text[place.start : place.end] for place in found)


def with_versions(text: str, versions: Collection[int]) -> str:
    """The text with a version_policy that serves exactly these versions. What it replaces stands in a comment."""
    own = own_policy(text)
    if own is not None and "\n" in own:
        own = f"{POLICY} {inline(parse(own, POLICY).version_policy)}"
    numbers = ", ".join(map(str, sorted(versions)))
    written = f"{POLICY} {{ specific {{ versions: [ {numbers} ] }} }}  {_OWN}{own or _NO_POLICY}"
    return _with_line(text, POLICY, written)


def with_own_policy(text: str) -> str:
    """The text with the version_policy of the model's own configuration."""
    own = own_policy(text)
    return text if own == written_field(text, POLICY) else _with_line(text, POLICY, own)


def _with_line(text: str, name: str, written: str | None) -> str:
    """A field replaced with the comment on its line."""
    old = [place for place in _places(text) if place.field.name == name]
    if not old:
        return with_field(text, name, written)
    start, end = old[0].start, old[0].end
    rest = text[end : text.find("\n", end)] if "\n" in text[end:] else text[end:]
    if rest.lstrip().startswith(_COMMENT):
        text = text[:end] + text[end + len(rest) :]
    return with_field(text, name, written) if written is None or len(old) > 1 else text[:start] + written + text[end:]


def with_parameter(text: str, key: str, value: str | None) -> str:
    """The text with one entry of `parameters` replaced, added or (None) removed."""
    own: list[FieldPlace] = []
    for place in _places(text):
        if place.field.name == _PARAMETERS and place.field.key == key:
            if place.field.form != "plain":
                raise ConfigError(f"parameters: '{key}' stands in a list", "write each parameter as a field of its own")
            own.append(place)
    entry = None
    if value is not None:
        entry = f"{_PARAMETERS} {{ key: {quoted(key)}, value: {{ string_value: {quoted(value)} }} }}"
    return _replaced(text, own, entry)


def parameter(config: Any, key: str) -> str | None:
    """The value of a ModelConfig's parameter; None where it has none."""
    return str(config.parameters[key].string_value) if key in config.parameters else None


def served_by(text: str, model: str, versions: Iterable[int]) -> list[int]:
    """The versions of these that the config of a model serves, highest first."""
    return selected(parse(text, f"{model}/{CONFIG}").version_policy, versions)


def _places(text: str) -> list[FieldPlace]:
    try:
        return places(text)
    except PbtxtError as error:
        raise ConfigError(f"not a config.pbtxt: {error}") from None


def _replaced(text: str, old: Sequence[FieldPlace], written: str | None) -> str:
    if not old:
        return text if written is None else _appended(text, written)
    pieces, at = [], 0
    for index, place in enumerate(old):
        start, end = place.start, place.end
        new = written if index == 0 and written is not None else ""
        if not new:
            start, end = _whole_lines(text, start, end)
        pieces += [text[at:start], new]
        at = end
    return "".join([*pieces, text[at:]])


def _whole_lines(text: str, start: int, end: int) -> tuple[int, int]:
    """A place with the rest of its lines, its comment and the empty line before it, where nothing else is on them."""
    line, stop = text.rfind("\n", 0, start) + 1, text.find("\n", end)
    stop = len(text) if stop < 0 else stop + 1
    rest = text[end:stop].strip()
    if text[line:start].strip() or (rest and not rest.startswith(_COMMENT)):
        return start, end
    if text[:line].endswith("\n\n"):
        line -= 1
    return line, stop


def _appended(text: str, written: str) -> str:
    """A new section at the end; what is recorded in the last comments stays last."""
    found = _places(text)
    at = text.find("\n", found[-1].end) + 1 if found else len(text)
    if found and at == 0:  # the last line has no end
        return f"{text}\n\n{written}\n"
    return f"{text[:at]}\n{written}\n{text[at:]}"
