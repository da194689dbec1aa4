"""The one place that prints: results to stdout, everything else to stderr."""

from __future__ import annotations

import contextlib
import json
import os
import re
import sys
import traceback
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from datetime import datetime, timezone
from pathlib import Path
from typing import Any, TextIO

from ..errors import FileError, IrtoolError, UsageError, explained, reason
from ..fileio import exists, open_regular

# What moves the cursor, sets a window's title, turns the direction of writing or breaks a line: C0 and C1 controls,
# the separators of lines and paragraphs, and the marks of Unicode's bidirectional algorithm.
_UNPRINTABLE = re.compile(r"[\x00-\x1f\x7f-\x9f\u061c\u200e\u200f\u2028-\u202e\u2066-\u2069]")


def printable(text: str) -> str:
    """Text for a terminal, with control characters spelt out: names of files come from strangers, as do the texts of
    model files, servers and recipes."""
    return _UNPRINTABLE.sub(lambda found: ascii(found[0])[1:-1], text)


def write_stdout(data: bytes) -> None:
    """Write a picture to stdout.

    Raises:
        FileError: stdout is closed or full.
        BrokenPipeError: its reader has gone.
    """
    if sys.__stdout__ is None:
        raise FileError("stdout is closed.", "Name a file with -o.")
    try:
        sys.stdout.buffer.write(data)
        sys.stdout.buffer.flush()
    except BrokenPipeError:
        raise
    except OSError as error:
        discard_stdout()
        raise FileError(f"stdout cannot be written: {reason(error)}.", "Name a file with -o.") from error


def discard_stdout() -> None:
    """Let what is still to be printed go nowhere where stdout cannot be written, also what Python flushes at exit."""
    try:
        sys.stdout.flush()
    except (OSError, ValueError):
        with contextlib.suppress(OSError, ValueError):
            os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())


def debugging() -> bool:
    """Whether IRTOOL_DEBUG asks for tracebacks."""
    return os.environ.get("IRTOOL_DEBUG", "") not in ("", "0")


def is_plain(stream: TextIO) -> bool:
    """Whether a stream takes text alone: no terminal, or one that wants no colours or cannot show them."""
    return not stream.isatty() or bool(os.environ.get("NO_COLOR")) or os.environ.get("TERM") == "dumb"


FLAGS = {"output": "-o", "recursive": "-r"}
"""Flags of parameters that are not called alike."""


def in_flags(text: str) -> str:
    """A message with the parameters it names, in backquotes, as flags of the command line."""
    return re.sub(r"`([a-z][a-z_]*)`", lambda found: FLAGS.get(found[1], "--" + found[1].replace("_", "-")), text)


def print_error(error: IrtoolError, subject: str = "") -> None:
    """Say what is wrong and what to do; `subject` is a file the message does not name itself."""
    if debugging() and error.__traceback__ is not None:
        traceback.print_exception(error)
    print(*error_lines(error, subject), sep="\n", file=sys.stderr)


def error_lines(error: IrtoolError, subject: str = "") -> list[str]:
    """The lines of `print_error`."""
    prefix = f"{subject}: " if subject and subject not in error.message else ""
    lines = [f"error: {prefix}{in_flags(error.message)}"]
    if error.hint:
        lines.append(f"hint: {in_flags(error.hint)}")
    return [printable(line) for line in lines]


def print_bug(error: Exception, subject: str = "") -> None:
    """Say that irtool itself is at fault."""
    if debugging():
        traceback.print_exception(error)
    print(bug_line(error, subject), file=sys.stderr)
    if not debugging():
        print("hint: Run it again with IRTOOL_DEBUG=1 and report what it prints.", file=sys.stderr)


def bug_line(error: Exception, subject: str = "") -> str:
    """The line of `print_bug`."""
    prefix = f"{subject}: " if subject else ""
    message = " ".join(f"{type(error).__name__}: {error}".split())
    return printable(f"error: {prefix}a bug in irtool ({message}).")


class Bar:
    """Progress over pictures, and over the tiles of the current one."""

    def begin(self, name: str) -> None:
        """A picture is now being worked on."""

    def tiles(self, done: int, total: int) -> None:
        """Tiles done of the current picture."""

    def end(self) -> None:
        """The current picture has left the network."""


class _RichBar(Bar):
    def __init__(self, progress: Any, total: int) -> None:
        self.progress, self.done = progress, 0
        self.task = progress.add_task("", total=total)

    def begin(self, name: str) -> None:
        from rich.markup import escape

        short = name if len(name) <= 32 else "..." + name[-29:]
        self.progress.update(self.task, description=escape(printable(short)))

    def tiles(self, done: int, total: int) -> None:
        self.progress.update(self.task, completed=self.done + done / total)

    def end(self) -> None:
        self.done += 1
        self.progress.update(self.task, completed=self.done)


class _Log:
    """A file that lines are appended to, each with its time (UTC)."""

    def __init__(self, path: Path) -> None:
        from ..picture.formats import sniff

        if exists(path):
            with open_regular(path) as file:
                if sniff(file.read(4096)) is not None:
                    raise UsageError(f"--log {path} is a picture, which is not written to.", "Name another file.")
        self.path = path
        self.add(())

    def add(self, lines: Iterable[str]) -> None:
        """Append lines; raises a FileError where the file cannot be written."""
        now = datetime.now(timezone.utc).isoformat(timespec="seconds")
        try:
            with self.path.open("a", encoding="utf-8", errors="backslashreplace") as file:
                file.writelines(f"{now} {printable(line)}\n" for line in lines)
        except (OSError, ValueError) as error:
            raise FileError(f"--log {self.path} cannot be written: {reason(error)}.", "Name another file.") from error


class Output:
    """What a verb prints through.

    Args:
        json: results are JSON records, one per line, and nothing else goes to stdout.
        quiet: only results and errors.
        verbose: more remarks.
        stdout_taken: stdout carries a picture, so results in words go to stderr.
        log: a file that gets every line too, each with its time, also those that `quiet` and no `verbose` hide.

    Raises:
        UsageError: the log is a picture.
        FileError: it cannot be written.
    """

    def __init__(
        self, *, json: bool = False, quiet: bool = False, verbose: bool = False, stdout_taken: bool = False,
        log: Path | None = None,
    ) -> None:  # fmt: skip
        self.json, self.quiet, self.verbose, self.stdout_taken = json, quiet, verbose, stdout_taken
        self._log = None if log is None else _Log(log)

    def result(self, text: str) -> None:
        """A result in words, one line; nothing under --json."""
        self.keep(text)
        if not self.json:
            print(printable(text), file=sys.stderr if self.stdout_taken else sys.stdout, flush=True)

    def record(self, data: Mapping[str, Any]) -> None:
        """A result as one line of JSON; nothing without --json."""
        if self.json:
            print(json.dumps(data), flush=True)

    def note(self, text: str) -> None:
        """A remark for people."""
        self.keep(text)
        if not self.quiet:
            print(printable(text), file=sys.stderr)

    def detail(self, text: str) -> None:
        """A remark for those who asked for more."""
        self.keep(text)
        if self.verbose and not self.quiet:
            print(printable(text), file=sys.stderr)

    def failure(self, error: Exception, subject: str) -> None:
        """One picture failed; the run goes on."""
        known = explained(error)
        if known is not None:
            print_error(known, subject)
        else:
            print_bug(error, subject)
        self.keep(*(error_lines(known, subject) if known is not None else [bug_line(error, subject)]))

    def keep(self, *lines: str) -> None:
        """Lines for the log alone."""
        if self._log is not None:
            self._log.add(lines)

    @contextmanager
    def progress(self, total: int) -> Iterator[Bar]:
        """A progress bar with the time left on stderr, where that is a terminal."""
        if self.quiet or is_plain(sys.stderr):
            yield Bar()
            return
        from rich.console import Console
        from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

        columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn())
        # Lines of results are moved above the bar where both are on the terminal; a pipe keeps its own.
        shown = Progress(*columns, console=Console(stderr=True), transient=True, redirect_stdout=sys.stdout.isatty())
        with shown:
            yield _RichBar(shown, total)
