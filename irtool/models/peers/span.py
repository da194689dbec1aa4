"""SPAN: super-resolution with parameter-free attention (Wan et al., CVPRW 2024), as fused for inference.

The attention of a block is its own output passed through an odd sigmoid. The published x4 network is the baseline of
the NTIRE 2026 challenge on efficient super-resolution.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ..base import SinglePassModel, describe

BLOCKS = 6
MEAN = (0.4488, 0.4371, 0.4040)


class Fused(nn.Module):
    """A 3x3 convolution under the name it was fused to."""

    def __init__(self, channels: int, out: int) -> None:
        super().__init__()
        self.eval_conv = nn.Conv2d(channels, out, 3, padding=1)

    def forward(self, x: Tensor) -> Tensor:
        y: Tensor = self.eval_conv(x)
        return y


class Block(nn.Module):
    """Three convolutions whose result, with the input added, is weighted by itself."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.c1_r, self.c2_r, self.c3_r = (Fused(width, width) for _ in range(3))

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """(N, C, H, W) -> the result, and what the first convolution gives, activated."""
        first = F.silu(self.c1_r(x))
        third = self.c3_r(F.silu(self.c2_r(first)))
        return (third + x) * (third.sigmoid() - 0.5), first


class SPAN(nn.Module):
    """The network.

    Args:
        scale: magnification.
        width: feature maps.
    """

    def __init__(self, scale: int = 4, width: int = 28) -> None:
        super().__init__()
        self.scale, self.width = scale, width
        self.conv_1 = Fused(3, width)
        for i in range(1, BLOCKS + 1):
            setattr(self, f"block_{i}", Block(width))
        self.conv_cat = nn.Conv2d(4 * width, width, 1)
        self.conv_2 = Fused(width, width)
        self.upsampler = nn.Sequential(nn.Conv2d(width, 3 * scale**2, 3, padding=1))

    def forward(self, x: Tensor) -> Tensor:
        """(N, 3, H, W) in [0, 1] -> (N, 3, scale H, scale W), not clipped."""
        shallow = y = self.conv_1(255 * (x - x.new_tensor(MEAN)[:, None, None]))
        after_first, first = y, y
        for i in range(1, BLOCKS + 1):
            y, first = getattr(self, f"block_{i}")(y)
            after_first = y if i == 1 else after_first
        y = self.conv_cat(torch.cat([shallow, self.conv_2(y), after_first, first], dim=1))
        return F.pixel_shuffle(self.upsampler(y), self.scale)


def recognize(shapes: Mapping[str, tuple[int, ...]]) -> dict[str, Any] | None:
    """Hyperparameters of `SPAN` from its tensors, None where these are not its."""
    width = shapes["conv_1.eval_conv.weight"][0]
    scale = next((s for s in (2, 3, 4) if shapes["upsampler.0.weight"][:2] == (3 * s**2, width)), 0)
    return {"scale": scale, "width": width} if scale and len(shapes) == 2 * (3 * BLOCKS + 4) else None


def restorer(net: SPAN, header: Mapping[str, str]) -> SinglePassModel:
    """The model of a loaded network."""
    info = describe(
        net,
        header,
        "span",
        tasks=(),
        overlap=3 * BLOCKS + 3,
        bytes_per_pixel=4 * 9 * net.width,
        padding="zeros",
        scale=net.scale,
    )
    return SinglePassModel(net, info)
