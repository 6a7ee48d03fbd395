"""Files that run code when they are loaded: refused, unless the builder says that it trusts them."""

from __future__ import annotations

from typing import Annotated

from pydantic import Field

from modelwright.errors import StepError

TrustedField = Annotated[
    bool,
    Field(
        description="Load a file that can run any code (a pickle), in the step's own process. Only for files whose "
        "maker you trust as you trust the code of this builder."
    ),
]


def check_trusted(trusted: bool, where: str, what: str, instead: str) -> None:
    """Raise StepError for a file that can run code, unless the builder trusts it.

    `where` is the field of model.yaml with the file, `what` says what kind of file it is ("a pickle"), `instead` what
    could be used in its place.
    """
    if not trusted:
        reason = f"{where}: is {what}, which can run any code when it is loaded"
        raise StepError(reason, f"{instead}; or, if you trust whoever made it: source.trusted: true")
