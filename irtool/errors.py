"""The one family of errors irtool raises on purpose, with the exit code each stands for."""

from __future__ import annotations

import difflib
from collections.abc import Iterable

EXIT_OK = 0
EXIT_SOME_FAILED = 1
EXIT_USAGE = 2
EXIT_UNAVAILABLE = 3
EXIT_NOTHING_TO_DO = 4
EXIT_INTERRUPTED = 130


def closest(word: str, known: Iterable[str]) -> str:
    """A hint that names the known word nearest to `word`, or all of them."""
    names = list(known)
    close = difflib.get_close_matches(word.lower(), names, n=1)
    return f"Did you mean '{close[0]}'?" if close else "Known: " + ", ".join(names) + "."


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


def out_of_memory(error: BaseException) -> PictureError | None:
    """What to say where an error is one of memory that ran out, of Python or of torch; None where it is not."""
    if isinstance(error, MemoryError) or "DefaultCPUAllocator" in str(error) or "CUDA out of memory" in str(error):
        return PictureError("Not enough memory.", "Close other programs, reduce the picture, or set `max_memory`.")
    return None


class UsageError(IrtoolError):
    """The request itself is wrong: an unknown name, a value out of range, a flag that fits nothing."""

    exit_code = EXIT_USAGE


class UnavailableError(IrtoolError):
    """A model, a data set or an optional package is not here."""

    exit_code = EXIT_UNAVAILABLE


class NothingToDoError(IrtoolError):
    """The request is right and there is nothing to do, such as a folder without pictures."""

    exit_code = EXIT_NOTHING_TO_DO
