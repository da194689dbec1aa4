"""Distributed training by torchrun and DistributedDataParallel, and signals that end a run cleanly.

``torchrun --nproc-per-node 2 -m -- irtool train ...`` starts the processes (without the ``--`` torchrun would read
our options as its own). The rest of the loop uses a `ProcessGroup`, which does nothing for a single process. Hugging
Face
Accelerate would wrap the same DistributedDataParallel; what it adds (sharded loaders, its own checkpoints, placement)
conflicts with runs that follow from their seed and resume bit for bit.
"""

from __future__ import annotations

import os
import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType
from typing import Any

import torch
import torch.distributed as dist
from torch import nn
from torch.nn.parallel import DistributedDataParallel

from ..errors import IrtoolError
from .tasks import Shard


class ProcessGroup:
    """The processes that train together.

    Attributes:
        rank: of this process; rank 0 writes and prints.
        world_size: number of processes (world size).
        device: of this process.
    """

    def __init__(self, rank: int, world_size: int, device: torch.device) -> None:
        self.rank, self.world_size, self.device = rank, world_size, device

    @property
    def shard(self) -> Shard:
        return Shard(self.rank, self.world_size, self.device)

    def wrap(self, module: nn.Module) -> nn.Module:
        """The module in DistributedDataParallel, if there are several processes."""
        if self.world_size == 1:
            return module
        return DistributedDataParallel(module, device_ids=[self.device.index] if self.device.type == "cuda" else None)

    def synchronize(self, seconds: float, stop: bool) -> tuple[float, bool]:
        """The clock of rank 0, and whether any process was told to stop: all must stop at the same step."""
        if self.world_size == 1:
            return seconds, stop
        reduced = torch.tensor([seconds if self.rank == 0 else 0.0, float(stop)], dtype=torch.float64)
        dist.all_reduce(reduced)
        return float(reduced[0]), bool(reduced[1] > 0)

    def all_gather(self, value: Any) -> list[Any]:
        """All-gather: the values of all processes, in every process."""
        if self.world_size == 1:
            return [value]
        values = [None] * self.world_size
        dist.all_gather_object(values, value)
        return values

    @contextmanager
    def rank_zero_first(self) -> Iterator[None]:
        """Rank 0 runs the block first, the others after it, so that they find its cached files."""
        if self.rank > 0:
            dist.barrier()
        yield
        if self.rank == 0 and self.world_size > 1:
            dist.barrier()


def is_rank_zero() -> bool:
    """Whether this process has rank 0, also before and after a run."""
    return os.environ.get("RANK", "0") == "0"


@contextmanager
def init_distributed(device: torch.device) -> Iterator[ProcessGroup]:
    """Join the process group that torchrun has started, or run alone. A lost process ends the run of the others.

    Raises:
        IrtoolError: another process has gone.
    """
    world_size = int(os.environ.get("WORLD_SIZE", "1"))
    if world_size == 1:
        yield ProcessGroup(0, 1, device)
        return
    if device.type == "cuda":
        device = torch.device("cuda", int(os.environ.get("LOCAL_RANK", "0")))
        torch.cuda.set_device(device)
    rank = -1
    try:
        # Numbers that the CPU needs, such as the clock, go by gloo in both cases: no step waits for the GPU.
        dist.init_process_group("cpu:gloo,cuda:nccl" if device.type == "cuda" else "gloo")
        rank = dist.get_rank()
        yield ProcessGroup(rank, world_size, device)
    except (RuntimeError, ConnectionError) as error:
        if not _is_connection_lost(error):
            raise
        raise IrtoolError(
            f"A process of the run has gone; process {rank} of {world_size} cannot go on without it.",
            "Look above for why it ended. The same command goes on from the last checkpoint.",
        ) from error
    finally:
        if dist.is_initialized() and rank >= 0:
            dist.destroy_process_group()


def _is_connection_lost(error: RuntimeError | ConnectionError) -> bool:
    # gloo raises plain RuntimeErrors that only their text tells from others.
    message = str(error).lower()
    words = ("connection", "gloo", "nccl", "socket", "peer", "process group")
    return isinstance(error, (dist.DistError, ConnectionError)) or any(word in message for word in words)


class StopSignal:
    """SIGINT and SIGTERM as a request to stop after the current step; a second signal stops at once.

    True in a condition once a signal has come. Outside the main thread, which alone gets signals, it stays False.
    """

    def __init__(self) -> None:
        self.requested = False
        self._before: dict[signal.Signals, Any] = {}

    def __bool__(self) -> bool:
        return self.requested

    def __enter__(self) -> StopSignal:
        if threading.current_thread() is threading.main_thread():
            for number in (signal.SIGINT, signal.SIGTERM):
                self._before[number] = signal.signal(number, self._on_signal)
        return self

    def __exit__(self, *_: object) -> None:
        for number, handler in self._before.items():
            signal.signal(number, handler)

    def _on_signal(self, number: int, frame: FrameType | None) -> None:
        if self.requested:
            raise KeyboardInterrupt
        self.requested = True
