"""Pictures on disk: written whole or not at all, and found in folders."""

from __future__ import annotations

import contextlib
import os
import re
import secrets
import stat
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from ..errors import PictureError
from .encode import encode, encode_page
from .formats import SUFFIXES, format_for, format_named
from .model import Picture

# Hidden, so that an unfinished file left by a killed process is never taken for a picture; and short, so that a target
# with the longest name a file system allows can still be written.
_TEMPORARY, _ENDING = ".irtool-", ".tmp"
_OURS = re.compile(r"\.irtool-(\d{1,9})-[0-9a-f]{16}\.tmp")


def write(
    picture: Picture,
    path: str | Path,
    *,
    format: str | None = None,
    quality: int | None = None,
    strip: bool = False,
    replace: bool = True,
    notes: list[str] | None = None,
) -> Path:
    """Encode and write a picture; the file appears whole or not at all.

    It is written beside its target under a hidden name, to the disk, and then renamed, so that neither an error nor an
    interruption nor a power cut leaves half a file. A file that is replaced hands on its permissions; a new one is no
    more open than the picture's source.

    Args:
        path: the file to write; its folder must exist.
        format: a format name; by default the one the suffix names.
        quality: as in `encode`.
        strip: as in `encode`.
        replace: whether a file that is there already, by the moment of writing, is replaced.
        notes: as in `encode`.

    Returns:
        the path written.

    Raises:
        UsageError: the suffix or the format is unknown.
        PictureError: the target is the picture's own source, is there already or no regular file, or cannot be written;
            or the picture does not fit the format.
        UnavailableError: the format needs an optional package.
    """
    path = Path(path)
    kind = format_named(format) if format is not None else format_for(path)
    if picture.source is not None and same_file(path, picture.source):
        raise PictureError(f"{path} is the input, which is never written to", "Choose another name or folder.")
    data = encode(picture, kind.name, quality=quality, strip=strip, notes=notes)
    return save_bytes(data, path, replace=replace, like=picture.source)


def write_page(page: np.ndarray, path: Path, *, replace: bool = True) -> Path:
    """Write a drawn (H, W, 3) uint8 page as a JPEG; raises as `save_bytes`."""
    return save_bytes(encode_page(page), path, replace=replace)


def save_bytes(data: bytes, path: str | Path, *, replace: bool = True, like: Path | None = None) -> Path:
    """Write a file whole or not at all, as `write` does, for bytes that are encoded already.

    Args:
        replace: whether a file that is there already, by the moment of writing, is replaced.
        like: a file whose permissions a new one does not exceed.

    Raises:
        PictureError: the target is there already, no regular file, or cannot be written.
    """
    path = Path(path)
    try:
        mode = _mode_of(path)
        if mode is not None and not stat.S_ISREG(mode):
            raise PictureError(*_not_regular(path, mode))
        _remove_left_over(path.parent)
        temporary = path.with_name(f"{_TEMPORARY}{os.getpid()}-{secrets.token_hex(8)}{_ENDING}")
        try:
            with temporary.open("xb") as file:
                _lock(file.fileno(), wait=True)
                file.write(data)
                if mode is not None:
                    temporary.chmod(stat.S_IMODE(mode))
                elif like is not None and (other := _mode_of(like)) is not None:
                    temporary.chmod(stat.S_IMODE(os.fstat(file.fileno()).st_mode) & stat.S_IMODE(other) | stat.S_IWUSR)
                file.flush()
                os.fsync(file.fileno())
            _appear(temporary, path, replace)
            _sync_folder(path.parent)
        except BaseException:
            with contextlib.suppress(OSError):
                temporary.unlink(missing_ok=True)
            raise
    except FileExistsError as error:
        raise PictureError(
            f"{path} exists already, and is not replaced", "Choose with --existing overwrite, skip or rename."
        ) from error
    except (OSError, ValueError) as error:
        reason = getattr(error, "strerror", None) or str(error)
        hint = "Check that its folder exists, is writable and has room."
        raise PictureError(f"{path}: cannot be written ({reason})", hint) from error
    return path


def _not_regular(path: Path, mode: int) -> tuple[str, str]:
    if stat.S_ISDIR(mode):
        return f"{path} is a folder, not a file to write", "Add a file name."
    return f"{path} is a device or a pipe, not a file to write", "Use -o - and let the shell write there."


def _mode_of(path: Path) -> int | None:
    """Kind and permissions of what lies at a path, links followed; None if nothing does."""
    try:
        return path.stat().st_mode
    except FileNotFoundError:
        return None


def _appear(temporary: Path, path: Path, replace: bool) -> None:
    """Give a finished file its name. Without `replace` that is a link, which fails where there is a file."""
    if replace:
        temporary.replace(path)
        return
    try:
        os.link(temporary, path)
    except FileExistsError:
        raise
    except OSError:  # a file system without links
        if os.path.lexists(path):
            raise FileExistsError from None
        temporary.replace(path)
    else:
        temporary.unlink()


def _sync_folder(folder: Path) -> None:
    """Bring a new name to the disk; not every system can (Windows), nor every file system."""
    with contextlib.suppress(OSError):
        descriptor = os.open(folder, os.O_RDONLY)
        try:
            os.fsync(descriptor)
        finally:
            os.close(descriptor)


def _lock(descriptor: int, *, wait: bool) -> bool:
    """Lock a file for as long as it is open, or say that somebody else has. True where there are no locks to be had."""
    try:
        import fcntl
    except ImportError:  # Windows
        return True
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | (0 if wait else fcntl.LOCK_NB))
    except BlockingIOError:
        return False
    except OSError:
        return True
    return True


_cleaned: set[Path] = set()


def _remove_left_over(folder: Path) -> None:
    """Remove the temporary files of killed runs from a folder, once in the life of this process.

    A file is one if its name is of our making, the process that the name tells of is gone, and nobody holds its lock.
    """
    if folder in _cleaned or os.name != "posix":
        return
    _cleaned.add(folder)
    with contextlib.suppress(OSError):
        for entry in os.scandir(folder):
            found = _OURS.fullmatch(entry.name)
            if found is None or not entry.is_file(follow_symlinks=False) or _runs(int(found[1])):
                continue
            with contextlib.suppress(OSError):
                descriptor = os.open(entry.path, os.O_RDONLY | os.O_NOFOLLOW)
                try:
                    if _lock(descriptor, wait=False):
                        Path(entry.path).unlink()
                finally:
                    os.close(descriptor)


def _runs(process: int) -> bool:
    """Whether there is a process of this number on this machine."""
    try:
        os.kill(process, 0)
    except ProcessLookupError:
        return False
    except (OSError, OverflowError):
        return True
    return True


def same_file(a: Path, b: Path) -> bool:
    """Whether two paths are of one file; what cannot be looked at is none."""
    try:
        return a.samefile(b)
    except (OSError, ValueError):
        return False


@dataclass(frozen=True)
class Found:
    """A picture to work on.

    Attributes:
        path: the file.
        root: the folder whose tree an output folder mirrors; for a named file, the folder it is in.
    """

    path: Path
    root: Path

    @property
    def relative(self) -> Path:
        """The path below `root`."""
        return self.path.relative_to(self.root)


def find(inputs: Sequence[str | Path], *, recursive: bool = False) -> list[Found]:
    """The pictures that files and folders stand for, each once, in the order given and sorted within a folder.

    A folder gives the files whose suffix names a picture format, without hidden ones; a named file is taken whatever
    its name. What does not exist and what cannot be listed is handed on too: `read` then says what is wrong with it,
    and the rest of a run goes on.
    """
    found: dict[Path, Found] = {}
    for item in map(Path, inputs):
        folder = is_folder(item)
        root = item if folder else item.parent
        for path in _listing(item, recursive) if folder else [item]:
            found.setdefault(path, Found(path, root))
    return list(found.values())


def is_folder(path: Path) -> bool:
    """Whether a path is that of a folder; what cannot be looked at is none."""
    try:
        return path.is_dir()
    except (OSError, ValueError):
        return False


def _listing(folder: Path, recursive: bool) -> Iterator[Path]:
    """The pictures below a folder in the order of their names, a folder's where its name comes."""
    waiting = [folder]
    while waiting:
        path = waiting.pop()
        if path is not folder and not is_folder(path):
            yield path
            continue
        try:
            with os.scandir(path) as entries:
                inside = sorted((entry for entry in entries if not entry.name.startswith(".")), key=lambda e: e.name)
        except OSError:
            yield path
            continue
        waiting += [path / entry.name for entry in reversed(inside) if _is_wanted(entry, recursive)]


def _is_wanted(entry: os.DirEntry[str], recursive: bool) -> bool:
    """Whether what a folder holds is a picture by its name, or a folder to look into. No device, pipe or socket is."""
    try:
        if entry.is_dir():
            # A linked folder could lead back up.
            return recursive and not entry.is_symlink()
        odd = not entry.is_file() and not entry.is_symlink()
    except OSError:
        odd = False
    return not odd and Path(entry.name).suffix.lower() in SUFFIXES
