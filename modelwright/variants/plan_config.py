"""What config.pbtxt of a model with TensorRT plans says beside its tensors: files, and instances on GPUs."""

from __future__ import annotations

from typing import Any

from modelwright.errors import ConfigError


def complete_plan_config(config: Any, files: dict[str, str], profiles: int, where: str) -> None:
    """Name the plans and give each instance group the profiles, where `serving` did not.

    `files` are {compute capability: file} where there are several, `profiles` is how many each plan has. Raises
    ConfigError for instances that cannot run a plan.
    """
    _name_files(config, files, where)
    if not config.instance_group:
        config.instance_group.add()
    for index, group in enumerate(config.instance_group):
        place = f"{where}.instance_group[{index}]"
        if group.kind in (group.KIND_CPU, group.KIND_MODEL):
            raise ConfigError(
                f"{place}.kind: {group.Kind.Name(group.kind)}, and a plan runs on a GPU", "write KIND_GPU"
            )
        group.kind = group.KIND_GPU
        for profile in group.profile:
            if not profile.strip().isdecimal() or int(profile) >= profiles:
                known = "the plan has one profile, 0" if profiles == 1 else f"the plan has profiles 0 to {profiles - 1}"
                raise ConfigError(f"{place}.profile: there is no profile '{profile}'", known)
        if profiles > 1 and not group.profile:
            # The backend runs a request with the one whose `opt` is nearest.
            group.profile.extend(str(number) for number in range(profiles))


def _name_files(config: Any, files: dict[str, str], where: str) -> None:
    for field, value in (
        ("cc_model_filenames", dict(config.cc_model_filenames)),
        ("default_model_filename", config.default_model_filename),
    ):
        if value:
            raise ConfigError(f"{where}.{field}: it follows from tensorrt.compute_capabilities", "remove it")
    if files:
        config.cc_model_filenames.update(files)
        # The server takes this one on a GPU of another kind, where it fails to load and says why.
        config.default_model_filename = next(iter(files.values()))
