"""file:// URIs: a file or folder of this machine, such as one that is mounted."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from urllib.parse import unquote, urlsplit

from modelwright.errors import StepError
from modelwright.fsops import not_a_file, open_file
from modelwright.steps.sources.source import CHUNK, RemoteSource


def open_folder(uri: str) -> RemoteSource:
    """Raises StepError for what is not there."""
    parts = urlsplit(uri)
    if parts.netloc not in ("", "localhost"):
        raise StepError(f"{uri}: '{parts.netloc}' is another machine", f"write file:///{parts.netloc}{parts.path}")
    path = Path(unquote(parts.path))
    if not path.is_dir() and (problem := not_a_file(path)):
        raise StepError(f"{uri}: {problem}", "see to the path, and to what is mounted there")
    return _FolderSource(uri, path)


class _FolderSource(RemoteSource):
    def __init__(self, uri: str, path: Path) -> None:
        self.resolved = uri
        self.is_folder = path.is_dir()
        self._root = path if self.is_folder else path.parent
        self._name = path.name

    def files(self) -> dict[str, int]:
        if not self.is_folder:
            return {self._name: (self._root / self._name).stat().st_size}
        found = {}
        for path in sorted(self._root.rglob("*")):
            name = path.relative_to(self._root).as_posix()
            if path.is_symlink():
                raise StepError(f"{self.resolved}: '{name}' is a link, which may lead anywhere", "copy it in")
            if not path.is_dir():
                if problem := not_a_file(path):
                    raise StepError(f"{self.resolved}: '{name}' {problem}", "leave it out")
                found[name] = path.stat().st_size
        return found

    @contextmanager
    def read(self, name: str, offset: int = 0) -> Iterator[Iterator[bytes]]:
        path = self._root / name
        try:
            with open_file(path) as file:
                file.seek(offset)
                yield iter(lambda: file.read(CHUNK), b"")
        except FileNotFoundError:
            raise StepError(f"{self.resolved}: there is no file '{name}' beside it", "copy it there") from None
