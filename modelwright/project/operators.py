"""Libraries of custom operators: `serving.model_operations.op_library_filename`.

A server opens each path as it is written. The library of a builder's folder is published beside config.pbtxt, and its
path is the one that the server sees, /models/NAME/FILE where docker-compose.yml mounts the repository. So everything
after the model's own name is the file of the builder's folder. Any other path is a file of the serving machine, which
must be here too, because the model is verified here.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from modelwright.errors import SpecError
from modelwright.project.files import local_file
from modelwright.project.spec import Builder
from modelwright.triton.layout import own_file

FIELD = "serving.model_operations.op_library_filename"


def library_paths(serving: Mapping[str, Any]) -> Iterator[str]:
    """The paths in `serving`; what has another form is for the check of `serving` to refuse."""
    operations = serving.get("model_operations")
    paths = operations.get("op_library_filename") if isinstance(operations, Mapping) else None
    yield from (path for path in paths if isinstance(path, str)) if isinstance(paths, list) else ()


def operator_libraries(builder: Builder) -> dict[str, Path]:
    """{path as the server opens it: the file here}. Raises SpecError for a file that is not here."""
    return {path: _located(builder, path) for path in library_paths(builder.spec.serving)}


def _located(builder: Builder, path: str) -> Path:
    own = own_file(path, builder.name)
    if own:
        return local_file(builder, FIELD, own)
    if path.startswith("/") and Path(path).is_file():
        return Path(path)
    where = f"{builder.file}: {FIELD}: '{path}'"
    here = builder.folder / path
    name = path if not path.startswith("/") and here.is_file() else Path(path).name
    fix = f"put the library into the builder's folder, and write the server's path: /models/{builder.name}/{name}"
    if path.startswith("/"):
        raise SpecError(f"{where} is not on this machine, where the model is verified", fix)
    raise SpecError(f"{where} is relative, and a server looks for it in its own working directory", fix)
