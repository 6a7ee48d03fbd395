"""`serving.environments`: more configs of the same model, for servers of another kind.

    serving:
      max_batch_size: 64
      instance_group: [{count: 2}]
      environments:
        gpu: {instance_group: [{kind: KIND_GPU}]}      # → <model>/configs/gpu.pbtxt

A server started with `--model-config-name=gpu` reads this file in place of config.pbtxt, for every model that has one.
A model is verified once, so an environment may change how it runs, but not its requests and responses.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any

from modelwright.config.model_config import ENVIRONMENTS, SERVING, parse_serving
from modelwright.errors import ConfigError
from modelwright.project.merge import merge
from modelwright.project.spec import Builder
from modelwright.triton import messages as fields
from modelwright.triton.releases import Release

_FIRST_RELEASE = (24, 6)  # whose server has --model-config-name
_NAME = re.compile(r"[A-Za-z0-9_][A-Za-z0-9_.-]{0,127}")
# The form of requests and responses, which must be the same everywhere: one verification counts for all environments.
_SAME = ("max_batch_size", "input", "output", "batch_input", "batch_output", "model_transaction_policy")


def environments_of(builder: Builder) -> dict[str, dict[str, Any]]:
    """{environment: its whole `serving`}: the base, overridden by the environment's fields. Raises ConfigError."""
    given = builder.spec.serving.get(ENVIRONMENTS)
    if given is None:
        return {}
    place = f"{builder.file}: {SERVING}.{ENVIRONMENTS}"
    if not isinstance(given, Mapping):
        raise ConfigError(f"{place}: expected a mapping, got {given!r}", "write it as NAME: {field: value, …}")
    base = {name: value for name, value in builder.spec.serving.items() if name != ENVIRONMENTS}
    merged = {}
    for name, patch in given.items():
        if not _NAME.fullmatch(name):
            hint = "use letters, digits, '_', '-' and '.': it becomes a file name"
            raise ConfigError(f"{place}: {name!r} cannot be the name of an environment", hint)
        if patch is not None and not isinstance(patch, Mapping):
            raise ConfigError(f"{place}.{name}: expected fields, got {patch!r}", "write it as field: value")
        if ENVIRONMENTS in (patch or {}):
            raise ConfigError(f"{place}.{name}: an environment cannot have environments", "move them one level up")
        merged[name] = merge(base, patch or {})
    return merged


def check_serving(builder: Builder, target: Release) -> None:
    """Check `serving` and its environments, as far as possible before anything is built. Raises ConfigError."""
    base = parse_serving(builder, builder.spec.serving)
    environments = environments_of(builder)
    if environments and _number(target) < _FIRST_RELEASE:
        where = f"{builder.file}: {SERVING}.{ENVIRONMENTS}: Triton {target.name} only reads config.pbtxt"
        raise ConfigError(where, "environments need 24.06 or later: raise triton in modelwright.toml")
    for name, serving in environments.items():
        _check_same(builder, where_of(name), base, serving)


def where_of(name: str) -> str:
    """The name of an environment's `serving` in messages."""
    return f"{SERVING}.{ENVIRONMENTS}.{name}"


def _check_same(builder: Builder, where: str, base: Any, serving: Mapping[str, Any]) -> None:
    wanted = base.max_batch_size
    given = serving.get("max_batch_size", 0)
    if given != wanted:
        raise ConfigError(
            f"{builder.file}: {where}.max_batch_size: {given!r} here, {wanted} in {SERVING}", "it must be the same"
        )
    other = parse_serving(builder, serving, where)
    for difference in fields.differences(base, other):
        if re.split(r"[.:\[]", difference, maxsplit=1)[0] in _SAME:
            hint = f"{', '.join(_SAME)} must be the same everywhere: a model is verified once"
            raise ConfigError(f"{builder.file}: {where}.{difference}", hint)


def _number(target: Release) -> tuple[int, ...]:
    return tuple(int(part) for part in target.name.split("."))
