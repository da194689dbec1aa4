"""Many pictures, one after the other, with decoding and encoding in the shadow of the network."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Generator, Iterable
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from itertools import islice
from typing import Generic, TypeVar

J = TypeVar("J")
A = TypeVar("A")
B = TypeVar("B")
C = TypeVar("C")

READ_AHEAD = 1
WRITE_BEHIND = 1
"""Pictures decoded ahead of the network and waiting behind it: more would cost memory and gain nothing, since the
slowest of the three stages sets the pace."""


@dataclass(frozen=True)
class JobResult(Generic[J, C]):
    """What became of an item.

    Attributes:
        item: as it was given.
        result: what `write` returned; None where an error is set.
        error: what one of the stages raised.
    """

    item: J
    result: C | None = None
    error: Exception | None = None


def pipelined(
    items: Iterable[J],
    read: Callable[[J], A],
    process: Callable[[J, A], B],
    write: Callable[[J, B], C],
    *,
    ahead: int = READ_AHEAD,
) -> Generator[JobResult[J, C], None, None]:
    """Carry items through three stages that run at the same time on successive items.

    `read` and `write` run in a thread each, `work` in the caller's, so that an interruption reaches it. The error of an
    item ends that item alone. Where the caller stops early or is interrupted, what was handed to `write` is still
    finished, and nothing new is begun.

    With `ahead` 0 the stages take turns: where memory is bounded, one item is held at a time.

    Yields:
        One `JobResult` per item, in order.
    """
    if not ahead:
        yield from _in_turn(items, read, process, write)
        return
    waiting = iter(items)
    reading: deque[tuple[J, Future[A]]] = deque()
    writing: deque[tuple[J, Future[C]]] = deque()
    reader = ThreadPoolExecutor(1, "irtool-read")
    writer = ThreadPoolExecutor(1, "irtool-write")

    def read_ahead() -> None:
        reading.extend((item, reader.submit(read, item)) for item in islice(waiting, 1 + ahead - len(reading)))

    try:
        read_ahead()
        while reading:
            item, ready = reading.popleft()
            # Waiting comes first: the next read starts when this one is out of the way; at most `ahead` are held.
            failed = ready.exception()
            read_ahead()
            if failed is None:
                try:
                    future = writer.submit(write, item, process(item, ready.result()))
                except Exception as error:
                    failed = error
            if failed is not None:
                if not isinstance(failed, Exception):
                    raise failed
                future = Future()
                future.set_exception(failed)
            del ready
            writing.append((item, future))
            while len(writing) > WRITE_BEHIND or (writing and writing[0][1].done()):
                yield _finished(*writing.popleft())
        while writing:
            yield _finished(*writing.popleft())
    finally:
        reader.shutdown(wait=False, cancel_futures=True)
        writer.shutdown(wait=True)


def _in_turn(
    items: Iterable[J], read: Callable[[J], A], process: Callable[[J, A], B], write: Callable[[J, B], C]
) -> Generator[JobResult[J, C], None, None]:
    for item in items:
        try:
            done = JobResult(item, write(item, process(item, read(item))))
        except Exception as error:
            done = JobResult(item, error=error)
        yield done


def _finished(item: J, future: Future[C]) -> JobResult[J, C]:
    try:
        return JobResult(item, future.result())
    except Exception as error:
        return JobResult(item, error=error)
