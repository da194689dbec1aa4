"""Many items, shared out among processes on one machine: the parent deals them out, one answer comes back for each."""

from __future__ import annotations

import contextlib
import os
import pickle
import signal
from collections import deque
from collections.abc import Callable, Generator, Sequence
from multiprocessing import get_context
from multiprocessing.connection import Connection, wait
from typing import Any, Generic, Protocol, TypeVar

from ..errors import IrtoolError, UnavailableError
from .pipeline import READ_AHEAD, WRITE_BEHIND, JobResult, pipelined

J = TypeVar("J")
C = TypeVar("C")

IN_FLIGHT = 2 + READ_AHEAD + WRITE_BEHIND
"""Items that one process which reads ahead may hold: before that many it does not answer."""


class Stages(Protocol):
    """What a process does to items (`irtool.engine.pipeline.pipelined`). Made in the process; answers are pickled."""

    def load(self) -> list[str]:
        """Load what is needed; remarks for people."""
        ...

    def read(self, item: Any) -> Any:
        """The first stage."""
        ...

    def work(self, item: Any, read: Any) -> Any:
        """The second stage."""
        ...

    def write(self, item: Any, worked: Any) -> Any:
        """The third stage; what it returns is the answer."""
        ...


class LostProcessError(IrtoolError):
    """The process that worked on an item has ended without an answer, most often for want of memory."""


class _Worker(Generic[J]):
    """A process and the items that it holds."""

    def __init__(self, *setting: Any) -> None:
        self.setting = setting
        self.held: deque[tuple[int, J]] = deque()
        self.lost = False
        self.start()

    def start(self) -> None:
        """Start the process, in place of one that is lost."""
        context = get_context("spawn")  # torch's threads do not survive a fork
        self.pipe, theirs = context.Pipe()
        self.process = context.Process(target=_serve, args=(theirs, *self.setting), daemon=True)
        self.process.start()
        theirs.close()  # so that the pipe ends with the process
        self.lost = False

    def ready(self) -> list[str]:
        """Wait until the process has loaded what it needs; its remarks."""
        try:
            remarks, error = self.pipe.recv()
        except (EOFError, OSError):
            raise UnavailableError(
                "A process ended before it had loaded its model.", "There may be too little memory: fewer `jobs`."
            ) from None
        if error is not None:
            raise error
        return list(remarks)

    def fill(self, waiting: deque[tuple[int, J]], most: int, on_begin: Callable[[J], None]) -> None:
        """Deal items out to the process, up to `most` that it holds; when there are no more, tell it to end."""
        with contextlib.suppress(OSError):  # one that is gone is found when its answer is waited for
            while waiting and len(self.held) < most:
                self.held.append(waiting.popleft())
                on_begin(self.held[-1][1])
                self.pipe.send(self.held[-1][1])
            if not waiting:
                self.pipe.send(None)

    def receive(self) -> list[tuple[int, JobResult[J, Any]]]:
        """The answer that has come, with the place of its item; of a lost process one for each item it held."""
        try:
            result, error = self.pipe.recv()
            place, item = self.held.popleft()
            return [(place, JobResult(item, result, error))]
        except (EOFError, OSError):
            self.process.join()
            code = self.process.exitcode or 0
            how = f"was killed by signal {-code}" if code < 0 else f"ended with code {code}"
            hint = "Try again; with fewer `jobs` each has more memory."
            lost = LostProcessError(f"The process that worked on it {how}.", hint)
            answers: list[tuple[int, JobResult[J, Any]]] = [
                (place, JobResult(item, None, lost)) for place, item in self.held
            ]
            self.held.clear()
            self.lost = True
            return answers

    def close(self) -> None:
        """Let the process end; what it is about to write it still writes."""
        self.pipe.close()
        if self.held and self.process.is_alive():
            self.process.terminate()  # handled like Ctrl-C: nothing half-written stays


def parallel(
    items: Sequence[J],
    make: Callable[[int], Stages],
    count: int,
    *,
    threads: int = 1,
    overlap: bool = False,
    on_remark: Callable[[str], None] = lambda text: None,
    on_begin: Callable[[J], None] = lambda item: None,
    on_end: Callable[[], None] = lambda: None,
) -> Generator[JobResult[J, Any], None, None]:
    """Carry items through stages in `count` processes.

    A process that is lost costs the items it held, which end in a `LostProcessError`, and is replaced. Where the caller
    stops early or is interrupted, the processes end after what they are about to write.

    Args:
        items: to be dealt out; picklable.
        make: called in each process with its number; picklable.
        count: of the processes.
        threads: of torch, in each of them.
        overlap: read and write beside the work, as one process does; on a GPU, where the work leaves the CPU free.
        on_remark: given what `Stages.load` says, of the first process alone.
        on_begin, on_end: called when an item is dealt out and when it is done.

    Yields:
        One `JobResult` per item, in order.

    Raises:
        IrtoolError: the stages cannot be loaded.
    """
    waiting = deque(enumerate(items))
    done: dict[int, JobResult[J, Any]] = {}
    most = IN_FLIGHT if overlap else 1
    workers: list[_Worker[J]] = [_Worker(make, number, threads, overlap) for number in range(min(count, len(items)))]
    try:
        remarks = [worker.ready() for worker in workers]
        for remark in remarks[0]:
            on_remark(remark)
        for worker in workers:
            worker.fill(waiting, most, on_begin)
        for position in range(len(items)):
            while position not in done:
                busy = {worker.pipe: worker for worker in workers if worker.held}
                for worker in [busy[pipe] for pipe in wait(list(busy))]:  # type: ignore[index]
                    answers = worker.receive()
                    done.update(answers)
                    for _ in answers:
                        on_end()
                    if worker.lost and waiting:
                        worker.start()
                        worker.ready()
                    worker.fill(waiting, most, on_begin)
            yield done.pop(position)
    finally:
        for worker in workers:
            worker.close()
        for worker in workers:
            worker.process.join()


def _serve(pipe: Connection, make: Callable[[int], Stages], number: int, threads: int, overlap: bool) -> None:
    """The life of a process: load, then answer item after item until there are no more."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C reaches every process of a terminal; the parent decides
    signal.signal(signal.SIGTERM, signal.default_int_handler)
    try:
        import torch

        torch.set_num_threads(threads)
        stages = make(number)
        pipe.send((stages.load(), None))

        def items() -> Generator[Any, None, None]:
            with contextlib.suppress(EOFError, OSError):
                while (item := pipe.recv()) is not None:
                    yield item

        ahead = READ_AHEAD if overlap else 0
        for ended in pipelined(items(), stages.read, stages.work, stages.write, ahead=ahead):
            pipe.send((ended.result, _portable(ended.error)))
    except (BrokenPipeError, KeyboardInterrupt):
        os._exit(0)  # the parent has gone or wants no more
    except Exception as error:
        with contextlib.suppress(OSError):
            pipe.send(([], _portable(error)))


def _portable(error: Exception | None) -> Exception | None:
    """An error as it can be sent: some cannot be made again from their arguments."""
    if error is None:
        return None
    try:
        pickle.loads(pickle.dumps(error))
    except Exception:
        return RuntimeError(f"{type(error).__name__}: {error}")
    return error
