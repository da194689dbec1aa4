"""Prefetching of pools."""

from __future__ import annotations

import os
import queue
import signal
import threading
from collections.abc import Generator
from typing import Any

import torch
from torch.utils.data import DataLoader, Dataset

_READ_AHEAD = 2


def prefetch(pools: Dataset[Any], first: int, device: torch.device) -> Generator[Any, None, None]:
    """Pools `first`, `first` + 1, ... without end; close the iterator when done with it.

    On a CPU a worker process makes them (several where there are many cores). On a GPU a thread makes them on the GPU,
    since the degradations run in torch.
    """
    return _by_thread(pools, first) if device.type == "cuda" else _by_workers(pools, first)


def _by_workers(pools: Dataset[Any], first: int) -> Generator[Any, None, None]:
    workers = max(1, min(4, (os.cpu_count() or 1) // 4))
    loader = DataLoader(
        pools,
        batch_size=None,
        sampler=range(first, 1 << 40),
        num_workers=workers,
        prefetch_factor=_READ_AHEAD,
        worker_init_fn=_begin_worker,
    )
    yield from loader


def _begin_worker(number: int) -> None:
    # Ctrl-C reaches every process of the terminal, and torchrun signals whole groups. Workers ignore it, so that the
    # training process can finish its step; they end when it ends.
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    signal.signal(signal.SIGTERM, signal.SIG_IGN)


def _by_thread(pools: Dataset[Any], first: int) -> Generator[Any, None, None]:
    ready: queue.Queue[Any] = queue.Queue(_READ_AHEAD)
    done = threading.Event()

    def put(item: Any) -> None:
        while not done.is_set():
            try:
                ready.put(item, timeout=0.1)
                return
            except queue.Full:
                continue

    def make() -> None:
        index = first
        try:
            while not done.is_set():
                put(pools[index])
                index += 1
        except BaseException as error:  # the waiting step must receive any error
            put(error)

    thread = threading.Thread(target=make, daemon=True)
    thread.start()
    try:
        while True:
            item = ready.get()
            if isinstance(item, BaseException):
                raise item
            yield item
    finally:
        done.set()
        thread.join()
