"""CUDA graphs: a network's evaluation is recorded once and replayed, so that launching its kernels costs nothing."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor


class CudaGraphCache:
    """A network on a CUDA device, called many times with tensors of a few shapes (every tile, every step).

    An evaluation of a U-Net is hundreds of kernels, short ones at small tiles. Each shape is recorded when it first
    comes, at the price of three evaluations; its memory lasts as long as this object.

    Args:
        net: ``(*tensors) -> tensor``; it neither looks at values nor moves anything to the device.
    """

    def __init__(self, net: Callable[..., Tensor]) -> None:
        self.net = net
        self.recordings: dict[Any, tuple[torch.cuda.CUDAGraph, list[Tensor], Tensor]] = {}
        self.disabled = False

    def __call__(self, *inputs: Tensor) -> Tensor:
        """What the network gives, in memory of its own."""
        key = tuple(x.shape for x in inputs)
        if key not in self.recordings and not self.disabled:
            self._record(key, inputs)
        if self.disabled:
            return self.net(*inputs)
        graph, static_inputs, out = self.recordings[key]
        for static, value in zip(static_inputs, inputs, strict=True):
            static.copy_(value)
        graph.replay()
        return out.clone()

    def _record(self, key: Any, inputs: tuple[Tensor, ...]) -> None:
        static_inputs, graph, stream = [x.clone() for x in inputs], torch.cuda.CUDAGraph(), torch.cuda.Stream()
        try:
            stream.wait_stream(torch.cuda.current_stream())
            with torch.cuda.stream(stream):
                for _ in range(2):  # libraries choose their kernels and take their memory before
                    self.net(*static_inputs)
            torch.cuda.current_stream().wait_stream(stream)
            with torch.cuda.graph(graph):
                out = self.net(*static_inputs)
        except torch.cuda.OutOfMemoryError:
            self.recordings.clear()
            raise
        except RuntimeError:
            # What cannot be recorded can still be computed.
            self.disabled = True
            return
        self.recordings[key] = graph, static_inputs, out
