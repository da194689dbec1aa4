"""irtool restore FOLDER --watch: pictures are done as they come."""

from __future__ import annotations

import contextlib
import time
from collections.abc import Callable, Collection, Iterable
from pathlib import Path

from ..errors import EXIT_INTERRUPTED, NothingToDoError, UnavailableError, UsageError
from ..naming import Template
from ..picture import is_pattern, pattern_root
from ..targets import STDIO, gather
from .options import Request
from .output import Output

SETTLED = 2.0
"""Seconds for which a file has kept its size and time when it is taken for whole."""
TICK_MS = 500


class Settling:
    """Tells which files have stopped growing, each once in each of its states."""

    def __init__(self, seconds: float = SETTLED, clock: Callable[[], float] = time.monotonic) -> None:
        self._seconds, self._clock = seconds, clock
        self._done: dict[Path, tuple[int, int]] = {}
        self._waiting: dict[Path, tuple[tuple[int, int], float]] = {}

    @property
    def waiting(self) -> bool:
        """Whether there are files that may still grow."""
        return bool(self._waiting)

    def ready(self, paths: Iterable[Path]) -> set[Path]:
        """Those of the files now there that have become whole since the last call."""
        now, found, before = self._clock(), set(), self._waiting
        self._waiting = {}
        for path in paths:
            try:
                status = path.stat()
            except OSError:  # gone again
                continue
            state = (status.st_size, status.st_mtime_ns)
            if self._done.get(path) == state:
                continue
            known, since = before.get(path, (None, now))
            if known == state and now - since >= self._seconds:
                self._done[path] = state
                found.add(path)
            else:
                self._waiting[path] = (state, since if known == state else now)
        return found


def watch(request: Request, restore: Callable[[Collection[Path]], int]) -> int:
    """Call `restore` with the pictures of a request that are there, and with those that come, until it is interrupted;
    returns the exit code.

    Raises:
        UsageError: there is no folder to watch, or another option does not go with it.
        UnavailableError: the package watchfiles is not installed.
    """
    folders = _folders(request)
    with contextlib.suppress(NothingToDoError):
        request.items()  # what is wrong with the request is said at once
    try:
        import watchfiles
    except ImportError:
        raise UnavailableError("--watch needs the package watchfiles.", "pip install 'irtool[watch]'") from None
    settling = Settling()
    out = Output(quiet=request.quiet, log=request.log)
    out.note(f"watching {', '.join(map(str, folders))}; Ctrl-C ends it")
    changed = True  # what is there already is done too
    deep = request.recursive or any("**" in text for text in request.inputs)
    for changes in watchfiles.watch(
        *folders, watch_filter=None, rust_timeout=TICK_MS, yield_on_timeout=True, recursive=deep
    ):
        if not (changed or changes or settling.waiting):
            continue
        changed = False
        ready = settling.ready(_there(request))
        try:
            if ready and restore(ready) == EXIT_INTERRUPTED:
                break
        except UsageError as error:  # such as two pictures that would share an output
            out.failure(error, "")
    return EXIT_INTERRUPTED


def _folders(request: Request) -> list[Path]:
    """The folders that pictures may come into; raises a UsageError where there are none, or as `watch`."""
    refused = {"--dry-run": request.dry_run, "--ask": request.ask, "--on": request.on, "--shard": request.shard,
               "--jobs": request.jobs != "1", "--limit": request.limit}  # fmt: skip
    for flag, given in refused.items():
        if given:
            raise UsageError(f"{flag} and --watch exclude each other.", "Leave one of them out.")
    if STDIO in (*request.inputs, request.output):
        raise UsageError("--watch reads folders and writes files.", "Name a folder.")
    roots = [pattern_root(text) if is_pattern(text) else Path(text) for text in request.inputs]
    folders = [root for root in dict.fromkeys(roots) if root.is_dir()]
    if not folders or request.is_remote:
        raise UsageError("--watch needs a folder on this machine to watch.", "irtool restore FOLDER -o DONE --watch")
    return folders


def _there(request: Request) -> list[Path]:
    """The pictures of a request that are there now."""
    output = None if request.output is None else Path(request.output)
    template = Template(request.name) if request.name and output is None else None
    try:
        found = gather(request.inputs, recursive=request.recursive, output=output, template=template)
    except NothingToDoError:
        return []
    return [one.path for one in found if one is not None]
