"""Where a print is scratched, dusty, creased or torn: a map of a small network of its own.

The detector says what a picture suffers from and looks at it reduced; a scratch is a pixel or two wide and goes by
then. This network looks at every pixel, and only where somebody asks for it.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ..errors import UnavailableError
from ..models import loading

AREA = 3_000_000
"""Pixels to which a larger picture is reduced before it is looked at."""


class _Stage(nn.Module):
    """Two convolutions with the sum of input and output, begun as the identity."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.first = nn.Conv2d(width, width, 3, padding=1)
        self.second = nn.Conv2d(width, width, 3, padding=1)
        nn.init.zeros_(self.second.weight)
        nn.init.zeros_(self.second.bias)  # type: ignore[arg-type]

    def forward(self, x: Tensor) -> Tensor:
        return F.relu(x + self.second(F.relu(self.first(x))))


class ScratchNet(nn.Module):
    """A U-Net (Ronneberger et al., MICCAI 2015) that works at half resolution and answers at full.

    Args:
        widths: channels at a half, a quarter, ... of the picture's resolution.
    """

    def __init__(self, widths: Sequence[int] = (16, 32, 64, 80)) -> None:
        super().__init__()
        self.multiple = 2 ** len(widths)
        inputs = (12, *widths)
        self.down = nn.ModuleList(
            nn.Conv2d(a, b, 3, 1 if i == 0 else 2, 1) for i, (a, b) in enumerate(zip(inputs, widths, strict=False))
        )
        self.encode = nn.ModuleList(_Stage(width) for width in widths)
        self.up = nn.ModuleList(nn.Conv2d(b, a, 1) for a, b in zip(widths, widths[1:], strict=False))
        self.decode = nn.ModuleList(_Stage(width) for width in widths[:-1])
        self.out = nn.Conv2d(widths[0], 4, 3, padding=1)
        nn.init.constant_(self.out.bias, -3.0)  # type: ignore[arg-type]  # most of a picture is sound

    def forward(self, pixels: Tensor) -> Tensor:
        """pixels (N, 3, H, W) in [0, 1], any size -> logits (N, 1, H, W) of a pixel being damaged."""
        height, width = pixels.shape[-2:]
        below, right = (-side % self.multiple for side in (height, width))
        x = F.pixel_unshuffle(F.pad(pixels - 0.5, (0, right, 0, below), mode="replicate"), 2)
        kept: list[Tensor] = []
        for down, encode in zip(self.down, self.encode, strict=True):
            x = encode(F.relu(down(x)))
            kept.append(x)
        for up, decode, side in zip(reversed(self.up), reversed(self.decode), reversed(kept[:-1]), strict=True):
            x = decode(F.relu(side + F.interpolate(up(x), scale_factor=2, mode="nearest")))
        return F.pixel_shuffle(self.out(x), 2)[..., :height, :width]
