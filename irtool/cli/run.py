"""A run over pictures, as `restore` and `detect` have it: overlapped, going on past errors, counted, summed up."""

from __future__ import annotations

import sys
import time
from collections.abc import Callable, Sequence
from contextlib import closing
from typing import TYPE_CHECKING, Any, TypeVar

from ..errors import EXIT_INTERRUPTED, EXIT_OK, EXIT_SOME_FAILED, IrtoolError
from .jobs import Job
from .output import Bar, Output

if TYPE_CHECKING:
    from ..picture import Picture

B = TypeVar("B")
C = TypeVar("C")
Loaded = tuple["Picture", "bytes | None"]


def read(job: Job) -> Loaded:
    """Decode the input of a job; of stdin the bytes are kept, for a clean picture to be passed through."""
    from .. import picture

    if job.source is not None:
        return picture.read(job.source), None
    data = sys.stdin.buffer.read()
    return picture.read(data, name="stdin"), data


def head(job: Job, status: str) -> dict[str, Any]:
    """How the JSON record of a job begins."""
    record = {"type": "image", "input": "-" if job.source is None else str(job.source), "status": status}
    if job.target is not None:
        record["output"] = str(job.target)
    return record


class Run:
    """What became of the pictures of a run.

    Args:
        out: where to print.
        kinds: statuses a job can end in, besides "failed".
        hint: said when the run is interrupted with more than one picture to do.
    """

    def __init__(self, out: Output, kinds: Sequence[str], hint: str = "") -> None:
        self.out, self.hint = out, hint
        self.counts = dict.fromkeys((*kinds, "failed"), 0)
        self.bar = Bar()
        self.begun = time.perf_counter()

    def carry(
        self,
        jobs: Sequence[Job],
        work: Callable[[Job, Loaded], B],
        write: Callable[[Job, B], C],
        told: Callable[[Job, C], None],
    ) -> int:
        """Read, `work` and `write` every job; `told` prints what became of it. Returns the exit code."""
        from ..engine.folder import overlap

        def shown(job: Job, loaded: Loaded) -> B:
            self.bar.begin(job.name)
            try:
                return work(job, loaded)
            finally:
                self.bar.end()

        last: Exception | None = None
        try:
            with closing(overlap(jobs, read, shown, write)) as stages, self.out.progress(len(jobs)) as self.bar:
                for done in stages:
                    if isinstance(done.error, BrokenPipeError):
                        raise done.error
                    if done.value is None:
                        last = done.error
                        self.failed(done.job, done.error)
                    else:
                        told(done.job, done.value)
        except KeyboardInterrupt:
            self.out.note("interrupted; nothing half-written is left")
            if self.hint and len(jobs) > 1:
                self.out.note(f"hint: {self.hint}")
            return self.summary(EXIT_INTERRUPTED)
        if last is None:
            return self.summary(EXIT_OK)
        # Of one picture alone, the kind of its error is the answer.
        return self.summary(last.exit_code if len(jobs) == 1 and isinstance(last, IrtoolError) else EXIT_SOME_FAILED)

    def failed(self, job: Job, error: Exception | None) -> None:
        """Say what went wrong with one picture."""
        self.counts["failed"] += 1
        error = error or RuntimeError("no result")
        self.out.failure(error, job.name)
        message = error.message if isinstance(error, IrtoolError) else f"{type(error).__name__}: {error}"
        self.out.record(head(job, "failed") | {"error": message, "hint": getattr(error, "hint", "")})

    def summary(self, code: int) -> int:
        """Print the closing record or line, and return the exit code."""
        seconds = round(time.perf_counter() - self.begun, 3)
        self.out.record({"type": "summary", **self.counts, "seconds": seconds, "exit_code": code})
        # One picture has had its own line, unless there was nothing to do about it.
        if sum(self.counts.values()) > 1 or self.counts.get("skipped"):
            told = ", ".join(f"{count} {kind}" for kind, count in self.counts.items() if count)
            self.out.note(f"{told} in {seconds:.1f} s")
        return code
