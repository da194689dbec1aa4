"""Files on disk: written whole or not at all, and hashed.

Every file that irtool writes goes through `atomic_write` or `atomic_open`. The bytes go to a hidden file beside the
target, are flushed to the disk, and only then get the target's name, so that neither an error, nor a kill, nor a power
cut leaves half a file under a name that people or a later run take for a result.
"""

from __future__ import annotations

import contextlib
import hashlib
import os
import re
import secrets
import stat
from collections.abc import Iterator
from pathlib import Path
from typing import BinaryIO, cast

from .errors import FileError, reason

try:
    import fcntl
except ImportError:  # Windows, where a file that is open cannot be removed anyway
    fcntl = None  # type: ignore[assignment]

# Hidden, so that the unfinished file of a killed process is never taken for a picture; random, so that nobody can
# plant a link under the name; and short, so that a target with the longest name a file system allows can be written.
_OURS = re.compile(r"\.irtool-(?:\d{1,9}-)?[0-9a-f]{16}\.tmp")
_swept: set[str] = set()


def atomic_write(
    path: str | Path, data: bytes | bytearray | memoryview | str, *, replace: bool = True, like: Path | None = None
) -> Path:
    """Write a file whole or not at all; a string is written as UTF-8. The arguments are those of `atomic_open`.

    Returns:
        the path written.

    Raises:
        FileError: see `atomic_open`.
    """
    with atomic_open(path, replace=replace, like=like) as file:
        file.write(data.encode(errors="surrogateescape") if isinstance(data, str) else data)
    return Path(path)


@contextlib.contextmanager
def atomic_open(path: str | Path, *, replace: bool = True, like: Path | None = None) -> Iterator[BinaryIO]:
    """A binary file to write; it appears under its name, flushed to the disk, when the block ends without an error.

    Args:
        path: the target; its folder must exist. A symbolic link is replaced, not followed.
        replace: whether a file of that name may be replaced; checked at the moment of writing, so that one that has
            appeared since the caller looked is safe.
        like: a file whose permissions a new file gets, as far as the umask lets it: the result of a private picture
            is private. A file that is replaced hands on its own permissions.

    Raises:
        FileError: the target cannot be written: no such folder, no room, no permission, a name that is too long; it is
            a folder, a device, a named pipe or a socket, which are never replaced; or it exists and is to be kept.
    """
    path = Path(path)
    try:
        before = _status(path)
        if before is not None and stat.S_ISDIR(before.st_mode):
            raise FileError(f"{path} is a folder, not a file to write", "Add a file name.")
        if before is not None and not stat.S_ISREG(before.st_mode):
            raise FileError(
                f"{path} is a device or a pipe, which is not replaced", "Use -o - and let the shell write there."
            )
        _sweep(path.parent)
        file, temporary = _create(path.parent)
    except (OSError, ValueError) as error:  # ValueError: a NUL in the name
        raise _unwritten(path, error) from error
    try:
        with file:
            _permit(temporary, before, like)
            yield file
            file.flush()
            os.fsync(file.fileno())
            if fcntl is not None:  # renamed before it is closed, since what is closed looks abandoned
                _rename(temporary, path, replace)
        if fcntl is None:
            _rename(temporary, path, replace)
        _sync_folder(path.parent)
    except BaseException as error:
        with contextlib.suppress(OSError):
            temporary.unlink(missing_ok=True)
        if isinstance(error, OSError):
            raise _unwritten(path, error) from error
        raise


def sha256(path: str | Path) -> str:
    """sha256 of a file in lower-case hexadecimal, read in pieces; raises OSError."""
    digest = hashlib.sha256()
    with Path(path).open("rb") as file:
        while piece := file.read(1 << 20):
            digest.update(piece)
    return digest.hexdigest()


def open_regular(path: str | Path) -> BinaryIO:
    """Open a regular file for reading. A named pipe, which might never be written to, or a device is refused at once.

    Raises:
        FileError: it is not there, cannot be read, or is no regular file.
    """
    try:
        # Without O_NONBLOCK a pipe would hold the open itself.
        descriptor = os.open(path, os.O_RDONLY | getattr(os, "O_NONBLOCK", 0) | getattr(os, "O_BINARY", 0))
        file = cast(BinaryIO, os.fdopen(descriptor, "rb"))
    except (OSError, ValueError) as error:
        raise FileError(f"{path} cannot be read: {reason(error)}", "Check its name and permissions.") from error
    if not stat.S_ISREG(os.fstat(file.fileno()).st_mode):
        file.close()
        raise FileError(f"{path} is no regular file", "Give a regular file; - reads a picture from stdin.")
    return file


def read_bytes(path: str | Path, limit: int | None = None) -> bytes:
    """The bytes of a regular file.

    Args:
        path: the file.
        limit: bytes above which it is refused, before any of it is read.

    Raises:
        FileError: see `open_regular`; or it is larger than `limit`.
    """
    with open_regular(path) as file:
        size = os.fstat(file.fileno()).st_size
        if limit is not None and size > limit:
            raise FileError(f"{path} has {size:,} bytes; at most {limit:,} are read", "It is probably another file.")
        try:
            return file.read()
        except OSError as error:
            raise FileError(f"{path} cannot be read: {reason(error)}") from error


def read_text(path: str | Path, limit: int | None = None) -> str:
    """The text of a regular file in UTF-8; a byte order mark is left out. The arguments are those of `read_bytes`.

    Raises:
        FileError: see `read_bytes`; or it is no UTF-8.
    """
    try:
        return read_bytes(path, limit).decode("utf-8-sig")
    except UnicodeDecodeError as error:
        raise FileError(f"{path} is no text in UTF-8 (byte {error.start})", "Save it as UTF-8.") from error


def exists(path: str | Path) -> bool:
    """Whether something is there, a dangling link included; a name that no file can have is not there."""
    try:
        return os.path.lexists(path)
    except ValueError:
        return False


def is_regular(path: str | Path) -> bool:
    """Whether a regular file is there. False also where a folder above it may not be entered: never an exception."""
    status = None
    with contextlib.suppress(OSError, ValueError):
        status = Path(path).stat()
    return status is not None and stat.S_ISREG(status.st_mode)


def is_folder(path: str | Path) -> bool:
    """Whether a folder is there. False also where a folder above it may not be entered: never an exception."""
    status = None
    with contextlib.suppress(OSError, ValueError):
        status = Path(path).stat()
    return status is not None and stat.S_ISDIR(status.st_mode)


def resolved(path: str | Path) -> Path:
    """The path without links, as far as they can be followed: `Path.resolve` raises where they lead in a circle."""
    return Path(os.path.realpath(path))


def identity(path: str | Path) -> tuple[int, int] | None:
    """Device and number of a file, the same under all its names; None where there is none."""
    with contextlib.suppress(OSError, ValueError):
        status = Path(path).stat()
        return status.st_dev, status.st_ino
    return None


def _status(path: Path) -> os.stat_result | None:
    """What the path leads to; None where there is nothing, a dangling link included."""
    try:
        return path.stat()
    except FileNotFoundError:
        return None


def _unwritten(path: Path, error: Exception) -> FileError:
    if isinstance(error, FileExistsError):
        return FileError(
            f"{path} exists already, and is not replaced", "Choose another name, or allow it to be replaced."
        )
    hint = "Check that its folder exists, is writable and has room."
    return FileError(f"{path}: cannot be written ({reason(error)})", hint)


def _permit(temporary: Path, before: os.stat_result | None, like: Path | None) -> None:
    """Set the permissions before there is anything to read."""
    with contextlib.suppress(PermissionError, NotImplementedError, FileNotFoundError):
        if before is not None:
            temporary.chmod(stat.S_IMODE(before.st_mode))
        elif like is not None:
            mode = stat.S_IMODE(like.stat().st_mode) & stat.S_IMODE(temporary.stat().st_mode)
            temporary.chmod(mode | stat.S_IWUSR)


def _create(folder: Path) -> tuple[BinaryIO, Path]:
    """A new hidden file, locked so that no other process takes it for one that was left behind."""
    while True:
        path = folder / f".irtool-{secrets.token_hex(8)}.tmp"
        try:
            file = cast(BinaryIO, path.open("xb"))
        except BaseException as error:
            if not isinstance(error, FileExistsError):
                path.unlink(missing_ok=True)  # interrupted between making it and returning
            raise
        if fcntl is None:
            return file, path
        with contextlib.suppress(OSError):  # a file system without locks
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        if os.fstat(file.fileno()).st_nlink:
            return file, path
        file.close()  # swept by another process before it was locked


def _sweep(folder: Path) -> None:
    """Remove what killed processes have left in a folder; once per process and folder."""
    key = os.fspath(folder.absolute())
    if key in _swept:
        return
    _swept.add(key)
    try:
        with os.scandir(folder) as entries:
            left = [e.path for e in entries if _OURS.fullmatch(e.name) and e.is_file(follow_symlinks=False)]
    except OSError:  # a folder may be writable and not readable
        return
    for path in left:
        with contextlib.suppress(OSError):
            if fcntl is not None:
                descriptor = os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_NOFOLLOW)
                try:
                    fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)  # fails where its writer lives
                    os.unlink(path)  # noqa: PTH108
                finally:
                    os.close(descriptor)
            else:
                os.unlink(path)  # noqa: PTH108


def _rename(temporary: Path, path: Path, replace: bool) -> None:
    if replace:
        temporary.replace(path)
        return
    try:
        os.link(temporary, path)  # unlike a rename, it fails where the name is taken
    except FileExistsError:
        raise
    except OSError:  # a file system without links
        if os.path.lexists(path):
            raise FileExistsError(path) from None
        temporary.replace(path)
        return
    temporary.unlink()


def _sync_folder(folder: Path) -> None:
    """Flush the new name itself; where folders cannot be flushed, it is done in the system's own time."""
    with contextlib.suppress(OSError):
        descriptor = os.open(folder, os.O_RDONLY)
        try:
            os.fsync(descriptor)
        finally:
            os.close(descriptor)
