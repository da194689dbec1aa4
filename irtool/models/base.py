"""What the rest of irtool knows of a network."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Protocol

import torch
from torch import Tensor


@dataclass(frozen=True)
class Capability:
    """What a restorer can do and what it needs.

    Attributes:
        name: of the architecture.
        tasks: ids of the degradations it removes.
        multiple: height and width of a tile must be multiples of this many pixels.
        margin: pixels of surroundings a tile needs on each side so that tiled and whole results agree
            to within one 8-bit level.
        parameters: number of weights.
        gmacs_per_megapixel: multiply-accumulates of one pass, in 1e9 per 1e6 pixels.
        bytes_per_pixel: peak working memory of a float32 pass per input pixel, activations only.
    """

    name: str
    tasks: tuple[str, ...]
    multiple: int
    margin: int
    parameters: int
    gmacs_per_megapixel: float
    bytes_per_pixel: int


class Expert(Protocol):
    """A restorer fixed to one mixture of tasks."""

    capability: Capability

    def to(self, device: torch.device, dtype: torch.dtype) -> Expert:
        """Move to a device and compute in a type; returns itself."""
        ...

    def context(self, pixels: Tensor) -> Tensor:
        """Describe a whole picture (3, H, W) in [0, 1], once, before it is cut into tiles -> (1, K)."""
        ...

    def __call__(self, tile: Tensor, context: Tensor) -> Tensor:
        """Restore tiles (N, 3, h, w) in [0, 1], h and w multiples of `capability.multiple` -> the same shape."""
        ...


class Restorer(Protocol):
    """A loaded network with all its tasks."""

    capability: Capability

    def specialise(self, mixture: Mapping[str, float]) -> Expert:
        """Fix a mixture, degradation id -> weight in [0, 1].

        Raises:
            UsageError: the network does not know one of the tasks.
        """
        ...
