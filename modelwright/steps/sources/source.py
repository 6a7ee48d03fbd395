"""What a URI of a source leads to, opened to be read."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterator, Mapping
from contextlib import AbstractContextManager

from modelwright.errors import StepError

CHUNK = 1 << 20


class RemoteSource(ABC):
    """A file with what lies beside it, or a folder. Every method raises ModelwrightError for what goes wrong there."""

    is_folder: bool
    resolved: str  # where the files are: the URI itself, or what an alias in it stands for
    details: Mapping[str, str] = {}  # what else a lock says: {"version": "3"}

    @abstractmethod
    def files(self) -> Mapping[str, int]:
        """{path below the folder: bytes} of its files; of a file, its name alone. -1 where the size is not known."""

    @abstractmethod
    def read(self, name: str, offset: int = 0) -> AbstractContextManager[Iterator[bytes]]:
        """The content of one of its files, from a byte on. Of a file, also of what lies beside it.

        The first piece may be asked for from `offset` on only where the place can do so: `CannotSeekError` otherwise.
        """


class CannotSeekError(StepError):
    """The place gives whole files only, or the file is another one now."""
