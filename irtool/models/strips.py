"""A picture worked on in strips of rows, several at a time, on a CPU.

Every strip is computed whole by one thread and the next free thread takes the next strip: a thread whose core is taken
by another program does fewer strips, and nobody waits for it but at the end of a layer. torch's own threads meet after
each operation, some five hundred times a picture; beside one busy program each of those meetings waits for it.
"""

from __future__ import annotations

import os
import threading
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from functools import lru_cache

import torch

WORKERS = 8
"""Threads that take strips: with more, Python between the operations sets the pace. What torch has beyond them is
shared out among them."""


def in_strips(height: int, rows: int, work: Callable[[int, int], None], device: torch.device) -> None:
    """``work(top, end)`` for strips of at most `rows` rows that cover `height`; without gradients.

    On a CPU they are worked on in any order and at the same time; elsewhere one after the other.

    Raises:
        Exception: what one of the calls raised.
    """
    strips = [(top, min(height, top + rows)) for top in range(0, height, rows)]
    threads = torch.get_num_threads()
    if device.type != "cpu" or threads == 1 or len(strips) < min(threads, WORKERS):
        for strip in strips:
            work(*strip)
        return
    inference = torch.is_inference_mode_enabled()

    def run(strip: tuple[int, int]) -> None:
        with torch.inference_mode(inference), torch.no_grad():  # modes belong to a thread
            work(*strip)

    futures = [_pool(threads).submit(run, strip) for strip in strips]
    try:
        for future in futures:
            future.result()
    finally:
        for future in futures:
            future.cancel()


@lru_cache(1)
def _pool(threads: int) -> ThreadPoolExecutor:
    workers = min(threads, WORKERS)
    pool, started = ThreadPoolExecutor(workers, "irtool-strip"), threading.Barrier(workers)

    def start(_: int) -> None:
        torch.set_num_threads(threads // workers)
        started.wait()

    list(pool.map(start, range(workers)))
    torch.set_num_threads(threads)  # what is set in one thread is what others begin with
    return pool


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_pool.cache_clear)  # threads are not inherited
