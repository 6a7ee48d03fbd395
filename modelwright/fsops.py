"""File operations that survive `kill -9` and power loss: files are on disk before they are renamed into place."""

from __future__ import annotations

import contextlib
import errno
import fcntl
import io
import os
import shutil
import stat
from collections.abc import Iterator
from pathlib import Path
from typing import Any, BinaryIO

from modelwright.errors import DiskFullError, LockedError, RepositoryError, StoreError

_RENAME_EXCHANGE = 2  # linux/fs.h
_AT_FDCWD = -100
_CHUNK = 1 << 16
_LEAST_ROOM = 4096  # bytes: a page
_LARGEST_CHUNK = 1 << 26
MOST_TEXT_BYTES = 50_000_000


_DISK_HINTS = {
    errno.EIO: "the disk, or its connection, fails: see to it",
    errno.EFBIG: "files may not become that large here: see `ulimit -f`, and what the filesystem takes",
    errno.EMFILE: "raise how many files a process may open: ulimit -n 4096",
    errno.ENFILE: "this machine has too many files open",
    errno.ENAMETOOLONG: "put the project into a folder with a shorter path, or shorten the name",
    errno.ESTALE: "the network filesystem lost the file: mount it again",
}


class TooLargeError(OSError):
    """A file with more bytes than are read of its kind."""


def fsync_path(path: Path) -> None:
    """Flush a file, or the entries of a folder."""
    handle = os.open(path, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


def fsync_tree(folder: Path) -> None:
    """Flush every file and folder below, the folder itself last. Links are not followed."""
    for parent, _, names in os.walk(folder, topdown=False):
        for path in (Path(parent, name) for name in names):
            if not path.is_symlink():
                fsync_path(path)
        fsync_path(Path(parent))


def rename_durably(source: Path, target: Path) -> None:
    """Move a finished, flushed file or folder into place. Both must be on one filesystem."""
    try:
        source.rename(target)
    except OSError as error:
        if error.errno == errno.EXDEV:
            raise RepositoryError(
                f"{target.parent} is on another filesystem than {source.parent}: a rename between them is impossible",
                "put the repository and its parent folder on one filesystem (paths.repository in modelwright.toml)",
            ) from None
        raise
    fsync_path(target.parent)


def replace_file(file: Path, content: bytes) -> None:
    """Give a file another content, or leave it as it is. Its mode stays. Raises StoreError for a full disk."""
    target = file.resolve()
    part = target.with_name(f".{target.name}.{os.getpid()}")
    with disk_errors(file):
        try:
            part.write_bytes(content)
            shutil.copymode(target, part)
            fsync_path(part)
            part.replace(target)
        except OSError:
            part.unlink(missing_ok=True)
            raise


def write_cache(file: Path, text: str) -> None:
    """Write a file whose loss only costs time: not flushed to disk, and left out where it cannot be written."""
    part = file.with_suffix(f".{os.getpid()}")
    with contextlib.suppress(OSError):
        file.parent.mkdir(parents=True, exist_ok=True)
        try:
            part.write_text(text)
            part.replace(file)
        except OSError:
            part.unlink(missing_ok=True)


def exchange(first: Path, second: Path) -> bool:
    """Swap two folders in one step (renameat2 RENAME_EXCHANGE). False if the system or filesystem cannot do that."""
    import ctypes

    libc = ctypes.CDLL(None, use_errno=True)
    if not hasattr(libc, "renameat2"):
        return False
    if libc.renameat2(_AT_FDCWD, os.fsencode(first), _AT_FDCWD, os.fsencode(second), _RENAME_EXCHANGE) == 0:
        fsync_path(first.parent)
        fsync_path(second.parent)
        return True
    code = ctypes.get_errno()
    if code in (errno.ENOSYS, errno.EINVAL, errno.ENOTSUP, errno.EXDEV):
        return False
    raise OSError(code, os.strerror(code), str(second))


def not_a_file(path: Path) -> str:
    """What is where a file should be: `is a folder`, `is a link to nothing`, `is no regular file`. '' for a file.

    What is no regular file (a pipe, a socket, a device) is not opened anywhere: reading it may never end.
    """
    if path.is_file():
        return ""
    if path.is_dir():
        return "is a folder"
    if path.exists():
        return "is no regular file, but a pipe, a socket or a device"
    return "is a link to nothing" if path.is_symlink() else "is not there"


def open_file(path: Path) -> BinaryIO:
    """Open a regular file to read it. Raises OSError, also for a folder, and for a pipe, a socket or a device.

    Reading these may never end, and opening a device can do things. Some files of the kernel (/proc/kmsg) look regular
    and wait, too: reading one raises OSError instead.
    """
    handle, size = _opened(path)
    if size:
        return os.fdopen(handle, "rb")
    return io.BufferedReader(_NeverWaits(handle, "rb"))


def read_file(path: Path, most_bytes: int = MOST_TEXT_BYTES) -> bytes:
    """The content of a regular file. Raises OSError as `open_file` does, and for more than `most_bytes`.

    Bytes are counted as they come: a file can grow while it is read, and what is under /proc says that it has none.
    """
    handle, size = _opened(path)
    try:
        chunks, left = [], most_bytes + 1
        while left > 0 and (chunk := os.read(handle, min(left, max(size + 1, _CHUNK), _LARGEST_CHUNK))):
            chunks.append(chunk)
            left -= len(chunk)
    finally:
        os.close(handle)
    if left <= 0:
        raise TooLargeError(errno.EFBIG, f"more than {most_bytes:,} bytes", str(path))
    return chunks[0] if len(chunks) == 1 else b"".join(chunks)


def read_text(path: Path, most_bytes: int = MOST_TEXT_BYTES, *, errors: str = "strict") -> str:
    """A text in UTF-8, read as `read_file` does; line ends become `\\n`. Raises OSError, and UnicodeDecodeError."""
    text = read_file(path, most_bytes).decode(errors=errors)
    return text.replace("\r\n", "\n").replace("\r", "\n") if "\r" in text else text


def _opened(path: Path) -> tuple[int, int]:
    """(descriptor, size) of a regular file. What is there is looked at again once it is open: it may be another one."""
    _check_regular(path.stat().st_mode, path)
    handle = os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC)
    try:
        status = os.fstat(handle)
        _check_regular(status.st_mode, path)
    except OSError:
        os.close(handle)
        raise
    return handle, status.st_size


def _check_regular(mode: int, path: Path) -> None:
    if stat.S_ISDIR(mode):
        raise IsADirectoryError(errno.EISDIR, os.strerror(errno.EISDIR), str(path))
    if not stat.S_ISREG(mode):
        raise OSError(errno.EINVAL, "not a regular file", str(path))


class _NeverWaits(io.FileIO):
    """A file that says that it is empty. One that has nothing yet raises OSError, and does not look empty."""

    def readinto(self, buffer: Any) -> int:
        count = super().readinto(buffer)
        if count is None:
            raise BlockingIOError(errno.EAGAIN, "reading it would wait")
        return count


def remove_tree(folder: Path) -> None:
    """Remove a folder, complete or not."""
    shutil.rmtree(folder, ignore_errors=True)


def disk_error(error: OSError, where: Path) -> StoreError | None:
    """The error for a disk that takes or gives nothing: full, read-only, damaged, not allowed. None otherwise."""
    if error.errno in (errno.ENOSPC, errno.EDQUOT):
        hint = "free some space and run the same command again; nothing is lost"
        return DiskFullError(f"{where}: {error.strerror}", hint)
    if isinstance(error, PermissionError) or error.errno == errno.EROFS:
        return StoreError(f"{error.filename or where}: {error.strerror}", "make it writable for this user")
    if error.errno in _DISK_HINTS:
        return StoreError(f"{error.filename or where}: {error.strerror}", _DISK_HINTS[error.errno])
    return None


def is_full(place: Path) -> bool:
    """Whether the disk of a file or folder (where it is, or would be) has no room, or takes no more files."""
    while not place.exists() and place != place.parent:
        place = place.parent
    with contextlib.suppress(OSError):
        status = os.statvfs(place)
        return status.f_bavail * status.f_frsize < _LEAST_ROOM or (status.f_files > 0 and status.f_favail == 0)
    return False


def log_file(path: Path) -> Path:
    """Where a log is written: `path`, or a file of that name in the temporary folder, where `path` takes nothing.

    What a server or another program prints may be lost; no command fails for want of a place for it.
    """
    with contextlib.suppress(OSError):
        path.parent.mkdir(parents=True, exist_ok=True)
        with path.open("ab"):
            if not is_full(path):
                return path
    import tempfile

    with contextlib.suppress(OSError):
        return Path(tempfile.mkdtemp(prefix="modelwright-")) / path.name
    return Path(os.devnull)


@contextlib.contextmanager
def disk_errors(where: Path) -> Iterator[None]:
    """Raise StoreError in place of an OSError for a full disk, a read-only filesystem or a missing permission."""
    try:
        yield
    except OSError as error:
        known = disk_error(error, where)
        if known is None:
            raise
        raise known from None


@contextlib.contextmanager
def locked(path: Path, what: str, *, wait: bool, say: object = None) -> Iterator[None]:
    """Hold an exclusive lock while the block runs. The kernel releases it when the process ends, even by a kill.

    The file says who holds the lock. If another process does: raises LockedError with its name or, with `wait`, calls
    `say(holder)` and waits.
    """
    with disk_errors(path):
        path.parent.mkdir(parents=True, exist_ok=True)
        handle = os.open(path, os.O_RDWR | os.O_CREAT, 0o644)
    try:
        try:
            fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            holder = os.pread(handle, 4096, 0).decode("utf-8", "replace").strip() or "another process"
            if not wait:
                hint = "wait for it to end, or run with --wait"
                raise LockedError(f"{path.name} is held by {holder}", hint) from None
            if callable(say):
                say(holder)
            fcntl.flock(handle, fcntl.LOCK_EX)
        with contextlib.suppress(OSError):  # a full disk: the lock holds without a name, and `gc` makes room
            os.ftruncate(handle, 0)
            os.pwrite(handle, f"{what} (process {os.getpid()})".encode(), 0)
        yield
    finally:
        os.close(handle)
