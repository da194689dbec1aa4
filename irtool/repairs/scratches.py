"""Where a print is scratched, dusty, creased or torn: a map of a small network of its own.

The detector says what a picture suffers from and looks at it reduced; a scratch is a pixel or two wide and goes by
then. This network looks at every pixel, and only where somebody asks for it.
"""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise

import torch
import torch.nn.functional as F
from torch import Tensor, nn

AREA = 3_000_000
"""Pixels to which a larger picture is reduced before it is looked at."""
THRESHOLD = 0.9
LEAST_SHARE = 1e-3
"""Share of a picture that must be damaged for it to count as scratched (measured: docs/old-photographs.md)."""
_TILE, _MARGIN = 768, 64  # of pieces that are looked at, and how far the network sees beyond their borders
_RIM = 1  # pixels around what was found that are filled too: marks have soft borders


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
            nn.Conv2d(a, b, 3, 1 if i == 0 else 2, 1) for i, (a, b) in enumerate(pairwise(inputs))
        )
        self.encode = nn.ModuleList(_Stage(width) for width in widths)
        self.up = nn.ModuleList(nn.Conv2d(b, a, 1) for a, b in pairwise(widths))
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


@torch.inference_mode()
def find_scratches(net: ScratchNet, pixels: Tensor) -> Tensor:
    """Where a picture is damaged.

    Args:
        net: on the device to compute on.
        pixels: (3, H, W) sRGB in [0, 1], any size; one above `AREA` is looked at reduced.

    Returns:
        (1, H, W) float32 on the CPU, 1 where the picture is to be filled; all zeros where less than `LEAST_SHARE` of it
        is damaged.
    """
    size = pixels.shape[-2:]
    scale = min(1.0, (AREA / (size[0] * size[1])) ** 0.5)
    small = pixels[None].float()
    if scale < 1:
        sides = [max(1, round(side * scale)) for side in size]
        small = F.interpolate(small, sides, mode="bilinear", antialias=True, align_corners=False)
    found = (_probabilities(net, small) > THRESHOLD).float()
    if float(found.mean()) < LEAST_SHARE:
        return torch.zeros(1, *size)
    found = F.max_pool2d(found, 2 * _RIM + 1, 1, _RIM)
    return found[0] if scale == 1 else F.interpolate(found, size, mode="nearest")[0]


def _probabilities(net: ScratchNet, pixels: Tensor) -> Tensor:
    """(1, 3, H, W) -> (1, 1, H, W), by pieces that overlap, which bounds the memory."""
    device = next(net.parameters()).device
    height, width = pixels.shape[-2:]
    found = torch.empty(1, 1, height, width)
    for top in range(0, height, _TILE):
        for left in range(0, width, _TILE):
            above, before = min(top, _MARGIN), min(left, _MARGIN)
            piece = pixels[..., top - above : top + _TILE + _MARGIN, left - before : left + _TILE + _MARGIN]
            seen = net(piece.to(device)).float().sigmoid().cpu()
            found[..., top : top + _TILE, left : left + _TILE] = seen[..., above:, before:][..., :_TILE, :_TILE]
    return found
