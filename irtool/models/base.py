"""What the rest of irtool knows of a network."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Protocol

import torch
from torch import Tensor

from ..errors import UsageError


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
        blind: it finds out by itself what to undo; the mixture it is given changes nothing.
    """

    name: str
    tasks: tuple[str, ...]
    multiple: int
    margin: int
    parameters: int
    gmacs_per_megapixel: float
    bytes_per_pixel: int
    blind: bool = False


def require_known(mixture: Mapping[str, float], tasks: Sequence[str]) -> None:
    """See that a restorer knows what it is asked for.

    Raises:
        UsageError: a task of the mixture is none of its tasks.
    """
    unknown = [task for task in mixture if task not in tasks]
    if unknown:
        raise UsageError(f"The model has no task '{unknown[0]}'.", "It knows: " + ", ".join(tasks) + ".")


class Expert(Protocol):
    """A restorer fixed to one mixture of tasks."""

    capability: Capability

    def to(self, device: torch.device, dtype: torch.dtype) -> Expert:
        """Move to a device and compute in a type; returns itself."""
        ...

    def context(self, pixels: Tensor) -> Tensor:
        """Describe a whole picture (3, H, W) in [0, 1], once, before it is cut into tiles -> (1, K)."""
        ...

    def prepare(self, pixels: Tensor) -> Tensor:
        """What tiles are to be cut from, of a whole picture (3, H, W) in [0, 1] -> (C, H, W), most often itself."""
        ...

    def __call__(self, tile: Tensor, context: Tensor) -> Tensor:
        """Restore tiles (N, C, h, w) of what `prepare` gave, sides multiples of `multiple` -> (N, 3, h, w)."""
        ...


Sweep = Callable[..., Tensor]
"""``sweep(net, *images)``: what ``net(*tiles)`` gives, put together over all tiles of the images (N, C, H, W) of one
size, as if the network had seen them whole. Tiles overlap, and their answers are blended there."""


class WholeExpert(Protocol):
    """A restorer that passes over a picture many times, such as a diffusion model; fixed like an `Expert`.

    It keeps the whole picture as its state, so that all tiles share one noise field and agree at every step, and leaves
    to the engine how much of it the network sees at once.
    """

    capability: Capability

    def to(self, device: torch.device, dtype: torch.dtype) -> WholeExpert:
        """Move to a device and compute in a type; returns itself."""
        ...

    def context(self, pixels: Tensor) -> Tensor:
        """As `Expert.context`."""
        ...

    def restore(self, pixels: Tensor, context: Tensor, sweep: Sweep, on_progress: Callable[[int, int], None]) -> Tensor:
        """Restore (1, 3, H, W) in [0, 1], any size -> the same shape; tells (passes done, passes in all)."""
        ...


class Restorer(Protocol):
    """A loaded network with all its tasks."""

    capability: Capability

    def specialise(self, mixture: Mapping[str, float]) -> Expert | WholeExpert:
        """Fix a mixture, degradation id -> weight in [0, 1].

        Raises:
            UsageError: the network does not know one of the tasks.
        """
        ...
