"""What the result of a step depends on."""

from __future__ import annotations

from modelwright.facts.part import Integer, JsonObject, Part


class KeyContent(Part):
    """What a step key is the digest of. The names of the fields are part of every key."""

    step: str  # the name of the function that ran
    revision: Integer  # of that function
    config: JsonObject
    code: dict[str, str]  # files of the builder's folder → SHA-256
    data: dict[str, str]  # other content → SHA-256
    tools: dict[str, str | None]  # name → version
    inputs: dict[str, str]  # role → digest of what that step made
