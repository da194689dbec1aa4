"""The one family of errors irtool raises on purpose, with the exit code each stands for."""

from __future__ import annotations

import difflib
import errno
from collections.abc import Iterable

EXIT_OK = 0
EXIT_SOME_FAILED = 1
EXIT_USAGE = 2
EXIT_UNAVAILABLE = 3
EXIT_NOTHING_TO_DO = 4
EXIT_INTERRUPTED = 130


def nearest(word: str, known: Iterable[str]) -> str:
    """The known word nearest to `word`; empty where none is near."""
    close = difflib.get_close_matches(word.lower()[:100], list(known), n=1)
    return close[0] if close else ""


def closest(word: str, known: Iterable[str], otherwise: str = "") -> str:
    """A hint that names the known word nearest to `word`; else `otherwise`, or all of them."""
    names = list(known)
    close = nearest(word, names)
    return f"Did you mean '{close}'?" if close else otherwise or "Known: " + ", ".join(names) + "."


def reason(error: BaseException) -> str:
    """Why an error of the system or of a library was raised: in one line, without the path it repeats."""
    return " ".join(str(getattr(error, "strerror", None) or error).split()).rstrip(".") or type(error).__name__


class IrtoolError(Exception):
    """Something is wrong that the user can act on.

    Args:
        message: what is wrong, naming the file where there is one.
        hint: the next step, a sentence or a command; may be empty.
    """

    exit_code = EXIT_SOME_FAILED

    def __init__(self, message: str, hint: str = "") -> None:
        super().__init__(message)
        self.message = message
        self.hint = hint


class PictureError(IrtoolError):
    """One picture cannot be read, restored or written; the others of a run can."""


class FileError(IrtoolError):
    """A file that is no picture cannot be read or written."""


class UsageError(IrtoolError):
    """The request itself is wrong: an unknown name, a value out of range, a flag that fits nothing."""

    exit_code = EXIT_USAGE


class UnavailableError(IrtoolError):
    """A model, a data set or an optional package is not here."""

    exit_code = EXIT_UNAVAILABLE


class NothingToDoError(IrtoolError):
    """The request is right and there is nothing to do, such as a folder without pictures."""

    exit_code = EXIT_NOTHING_TO_DO


_HINTS = {
    errno.ENOSPC: "Make room on the disk.",
    errno.EDQUOT: "Make room on the disk.",
    errno.EACCES: "Check its permissions and those of the folders above it.",
    errno.EPERM: "Check its permissions and those of the folders above it.",
    errno.EROFS: "Choose a place that can be written to.",
    errno.ENAMETOOLONG: "Choose a shorter name with -o.",
    errno.ENOENT: "Check the spelling and the folder.",
}


def explained(error: BaseException | None) -> IrtoolError | None:
    """What the user can act on in an error of the system: a full disk, a missing right, a name that no file can have.

    Args:
        error: whatever was raised, also an error of irtool's own.

    Returns:
        An error to show; None for what is a mistake in irtool.
    """
    if isinstance(error, IrtoolError):
        return error
    if isinstance(error, OSError):
        if error.errno is None:
            return None
        file = getattr(error, "filename", None)
        if file is None and isinstance(error, FileNotFoundError):
            return FileError("The current folder is no longer there.", "Change to another folder.")
        name = file.decode(errors="surrogateescape") if isinstance(file, bytes) else file
        subject = f"{name}: " if name is not None else "A file or the output: "
        return FileError(f"{subject}{reason(error)}.", _HINTS.get(error.errno, ""))
    # torch says in words alone that a CPU's memory ran out.
    if isinstance(error, MemoryError) or "DefaultCPUAllocator" in str(error) or "CUDA out of memory" in str(error):
        return FileError("The memory did not suffice.", "Close other programs, or work on a smaller picture.")
    if isinstance(error, RecursionError):
        return FileError("Something is nested too deeply to be read.", "Is it the right file or folder?")
    if isinstance(error, UnicodeError):
        return FileError(f"A name or a text is no UTF-8 ({reason(error)}).", "Rename the file, or save it as UTF-8.")
    if isinstance(error, ValueError) and "embedded null" in str(error):
        return FileError("A file name holds a NUL character.", "No file has such a name.")
    return None
