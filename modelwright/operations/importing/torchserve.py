"""Archives of TorchServe: a builder of kind torchserve, with the class names as labels."""

from __future__ import annotations

import tarfile
import tempfile
from pathlib import Path

from modelwright.archives import unpack
from modelwright.errors import located
from modelwright.kinds.mar import MANIFEST, Mar, own_handler, read_mar
from modelwright.operations.importing.pytorch import write_script
from modelwright.operations.importing.recogniser import NewBuilder, Recogniser, Seen, Written
from modelwright.project.writer import as_yaml
from modelwright.text import printable
from modelwright.triton.file_types import TORCHSCRIPT, TORCHSERVE, file_type
from modelwright.triton.torch_archives import ScriptHeader, script_header

_LABELS = "labels.txt"


def recognise(path: Path) -> Seen | None:
    """A .mar, a .tar.gz or a folder with MAR-INF/MANIFEST.json."""
    if path.is_dir():
        known = (path / MANIFEST).is_file()
    else:
        known = file_type(path) is TORCHSERVE or (path.name.endswith((".tar.gz", ".tgz")) and _in_tar(path))
    return Seen("torchserve", "an archive of TorchServe", path) if known else None


def _in_tar(path: Path) -> bool:
    try:
        with tarfile.open(path) as archive:
            return any(member.name.endswith(f"/{MANIFEST}") for member in archive)
    except (tarfile.TarError, EOFError, OSError):
        return False


def _write(seen: Seen, new: NewBuilder) -> Written:
    suffix = "" if seen.path.is_dir() else ".tar.gz" if seen.path.name.endswith((".tar.gz", ".tgz")) else ".mar"
    path = new.take(seen.path, f"model{suffix}")
    with located(new.where), tempfile.TemporaryDirectory(dir=new.folder.parent, prefix=".archive-") as scratch:
        folder = seen.path
        if not seen.path.is_dir():
            folder = Path(scratch)
            unpack(seen.path, folder)
        return _write_mar(read_mar(folder, seen.path.name), path, new)


def _write_mar(mar: Mar, path: str, new: NewBuilder) -> Written:
    source, left = ["  kind: torchserve", f"  path: {as_yaml(path)}"], []
    if mar.has_own_handler:
        source.append("  # handler: ignore # clients send and get the model's tensors")
        left.append(printable(f"source.handler: ignore, if Triton need not run {own_handler(mar)}"))
    header = _header(mar)
    if header is None:
        source.append(f"  # trusted: true # runs {printable(mar.model.code)}, code of the archive")
        left.append(printable(f"source.trusted: true, if you trust whoever made {mar.model.code}: it is run"))
    labels = ""
    if mar.labels:
        new.write(_LABELS, "".join(f"{label}\n" for label in mar.labels))
        labels = _LABELS
    written = write_script(
        mar.serialized, header or ScriptHeader((), ""), new, source, labels, len(mar.labels), image=True
    )
    named = (f"{_LABELS} has the {len(mar.labels)} names of index_to_name.json",) if mar.labels else ()
    notes = (*written.notes, *named, *map(printable, mar.not_carried()))
    builds = written.builds and not left
    return Written(notes, (*left, *written.left), builds, "data.py" if builds else "model.yaml")


def _header(mar: Mar) -> ScriptHeader | None:
    """Of a TorchScript model; None for weights with a class."""
    if file_type(mar.serialized) is not TORCHSCRIPT:
        return None
    try:
        return script_header(mar.serialized)
    except ValueError:
        return ScriptHeader((), "")


RECOGNISER = Recogniser("archives of TorchServe", recognise, _write)
